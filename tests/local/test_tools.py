"""The tools' installers, as far as that needs no download; and that uv fetches from where pip would."""

import os
import ssl
import subprocess
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_systems_own_apptainer_is_used(tmp_path, script):
    own = program(tmp_path / "bin" / "apptainer", "exit 0")
    for _ in range(2):
        done = script("install-apptainer", tmp_path / "tools" / "apptainer", PATH=f"{own.parent}:{os.environ['PATH']}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert (tmp_path / "tools" / "apptainer" / "bin" / "apptainer").resolve() == own


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["elephant", "out"], "unknown kind of model: elephant"),
        (["tiny", "out", "nowhere"], "no virtual environment in"),
    ],
)
def test_make_model_refuses(tmp_path, script, arguments, told):
    kind, *paths = arguments
    done = script("make-model", kind, *(tmp_path / path for path in paths))
    assert done.returncode == 1
    assert told in done.stderr


LOCAL = Path(__file__).parents[2] / "deploy" / "local"
UV = LOCAL.parents[1] / ".local" / "tools" / "uv" / "bin" / "uv"


@pytest.fixture
def site_index(tmp_path):
    """A package index behind a certificate authority of the site's own: its URL and the authority's certificate."""
    packages = tmp_path / "index" / "simple" / "af-example"
    packages.mkdir(parents=True)
    wheel = "af_example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(packages / wheel, "w") as file:
        file.writestr("af_example.py", "")
        file.writestr("af_example-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: af-example\nVersion: 1.0\n")
        file.writestr(
            "af_example-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("af_example-1.0.dist-info/RECORD", "")
    (packages / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    authority = ("-subj", "/CN=authority of the site", "-addext", "basicConstraints=critical,CA:TRUE")
    host = ("-subj", "/CN=index", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
    for name, further in (("ca", authority), ("index", (*host, "-CA", "ca.pem", "-CAkey", "ca.key"))):
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        command = ("openssl", *new, "-keyout", f"{name}.key", "-out", f"{name}.pem", *further)
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=tmp_path / "index"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "index.pem", tmp_path / "index.key")
    served.socket = context.wrap_socket(served.socket, server_side=True)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{served.server_address[1]}/simple/", tmp_path / "ca.pem"
    served.shutdown()
    served.server_close()


def fetch(folder, like_pip=True, **environment):
    """Have uv install a package of the site's index as our scripts have it do so."""
    first = "uv_like_pip" if like_pip else ":"
    script = f". {LOCAL}/lib.sh; {first}; exec {UV} pip install --no-cache --target {folder} af-example"
    others = ("PIP_", "UV_", "SSL_", "REQUESTS_", "CURL_")
    bare = {key: value for key, value in os.environ.items() if not key.startswith(others)}
    bare |= {"NO_PROXY": "127.0.0.1", "UV_NO_CONFIG": "1", "UV_HTTP_RETRIES": "0"}
    return subprocess.run(
        ["bash", "-c", script], env=bare | environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize("by", ["pip.conf", "variables", "requests"])
def test_uv_fetches_from_where_pip_would(tmp_path, site_index, by):
    if not UV.exists():
        pytest.skip("there is no uv in .local/tools: `make test` installs it")
    url, certificate = site_index
    settings = {
        "pip.conf": {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")},
        "variables": {"PIP_INDEX_URL": url, "PIP_CERT": str(certificate)},
        "requests": {"PIP_INDEX_URL": url, "REQUESTS_CA_BUNDLE": str(certificate), "PIP_CONFIG_FILE": os.devnull},
    }[by]
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {url}\n[install]\ncert = {certificate}\n")
    done = fetch(tmp_path / "target", **settings)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "target" / "af_example.py").exists()
    without = fetch(tmp_path / "other", like_pip=False, UV_DEFAULT_INDEX=url)
    assert without.returncode != 0
    assert "certificate" in without.stderr.lower()
