"""What stands in front of an engine, each as its makers would have it run, on one core but for two workers."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from api.contract.certificates import Authority
from api.contract.identity import load_keys
from api.contract.job.tls import server_name
from bench.installation import Installation
from bench.processes import ROOT, Way, children, process, wait_until_listens
from bench.simulated import installation_at_rest, stub_engine
from tests.cluster.system import wait_for
from tests.ports import free_port

NGINX = "/usr/sbin/nginx"
PACKAGES = {"vllm-router": "vllm-router==0.1.17", "litellm": "litellm[proxy]==1.108.7"}
"""Not of our own environment: each gets one below `.local/bench`."""
ENVIRONMENTS = ROOT / ".local" / "bench" / "proxies"
MOST_CONNECTIONS = 4096

NGINX_CONF = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; user root; error_log stderr;
worker_rlimit_nofile 16384; events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass {scheme}://engine; proxy_http_version 1.1; proxy_set_header Connection "";
                  proxy_buffering off; proxy_read_timeout 600; {tls} }}
  }}
}}
"""
NGINX_TLS = """
    proxy_ssl_certificate {folder}/client.pem; proxy_ssl_certificate_key {folder}/client.key;
    proxy_ssl_trusted_certificate {folder}/authority.pem; proxy_ssl_verify on; proxy_ssl_name {name};
    proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;
"""
LITELLM_CONFIG = """
model_list:
  - model_name: dummy
    litellm_params: {{ model: hosted_vllm/dummy, api_base: "http://127.0.0.1:{engine}/v1", api_key: none }}
general_settings:
  master_key: {key}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What stands in front of an engine, and the key that it wants."""

    way: Way
    key: str = "none"


class MissingError(Exception):
    """It is not here, and can't be installed; the message says what is missing."""


def cores() -> tuple[Sequence[str], Sequence[str]]:
    """Return what runs a program on the core of the proxies, and on the others; nothing where there is one core."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        return (), ()
    rest = ",".join(map(str, own[1:]))
    return ("taskset", "-c", str(own[0])), ("taskset", "-c", rest)


@contextmanager
def nginx(folder: Path, engine: int, name: str, door: tuple[Authority, str] | None = None) -> Iterator[Proxy]:
    """Run nginx with one worker; `door` is that of the engine, if it has one."""
    if not Path(NGINX).exists():
        raise MissingError("nginx is not installed (apt install nginx-light)")
    folder.mkdir()
    port, tls = free_port(), ""
    if door is not None:
        authority, token = door
        own = authority.client("api")
        _write(folder / "client.pem", own.certificate)
        _write(folder / "client.key", own.key)
        _write(folder / "authority.pem", authority.certificate)
        tls = NGINX_TLS.format(folder=folder, name=server_name(token))
    conf = folder / "nginx.conf"
    scheme = "http" if door is None else "https"
    conf.write_text(NGINX_CONF.format(folder=folder, port=port, engine=engine, scheme=scheme, tls=tls))
    with _listening(folder / "nginx.log", [NGINX, "-c", str(conf), "-p", str(folder)], port) as master:
        yield Proxy(Way(name, port, tuple(children(master.pid))))


@contextmanager
def vllm_router(folder: Path, engine: int) -> Iterator[Proxy]:
    """Run vLLM's own router; its threads are as many as it has cores, one.

    It does not give its engine up: it is stopped while others are measured, and its checks fail then.
    """
    port = free_port()
    options = {
        "--host": "127.0.0.1",
        "--port": port,
        "--worker-urls": f"http://127.0.0.1:{engine}",
        "--policy": "round_robin",
        "--prometheus-port": free_port(),
        "--max-concurrent-requests": MOST_CONNECTIONS,
        "--log-level": "error",
        "--health-failure-threshold": 10**6,
    }
    words = [str(word) for option in options.items() for word in option]
    command = [_program("vllm-router"), *words, "--disable-circuit-breaker"]
    with _listening(folder / "vllm-router.log", command, port) as running:
        yield Proxy(Way("vllm-router", port, (running.pid,)))


@contextmanager
def litellm(folder: Path, engine: int) -> Iterator[Proxy]:
    """Run LiteLLM's proxy with one worker."""
    config, port = folder / "litellm.yaml", free_port()
    key = f"sk-{secrets.token_hex(32)}"
    _write(config, LITELLM_CONFIG.format(engine=engine, key=key))
    words = ("--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1")
    with _listening(folder / "litellm.log", [_program("litellm"), *words], port) as running:
        yield Proxy(Way("LiteLLM", port, (running.pid,)), key)


@contextmanager
def installation(folder: Path) -> Iterator[Installation]:
    """Make an installation with one service that runs, which is to be served by an engine of the bench's."""
    with stub_engine() as port:
        made = installation_at_rest(folder, 1, port)
    try:
        yield made
    finally:
        made.end()


def door_of(made: Installation) -> tuple[Authority, str]:
    """Return whose door its engine has."""
    ((token,),) = made.sql("SELECT token FROM endpoints")
    return Authority(load_keys(made.settings.key_file)[0]), str(token)


@contextmanager
def gateway(made: Installation, engine: int, name: str, *, has_door: bool = False) -> Iterator[Proxy]:
    """Run our own, in the API's process, with a key that may ask models and nothing else."""
    door = door_of(made)[0].id if has_door else None
    made.sql("UPDATE endpoints SET host = '127.0.0.1', port = ?, door = ?", engine, door)
    made.start("api", under=cores()[0])
    yield Proxy(Way(name, made.port, (made.pid("api"),)), _key_of(made))


@contextmanager
def gateway_workers(made: Installation, workers: int, name: str) -> Iterator[Proxy]:
    """Run our own as a program by itself, with so many workers, beside the API's; one on the core of the proxies.

    More have all cores, as on a host of their own: on one they would pay for the kernel's changing between them.
    """
    port, log = free_port(), made.folder / f"gateway-{workers}.log"
    command = [sys.executable, "-m", "api.cli", "--config", str(made.config), "gateway", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", str(workers)]
    with _listening(log, command, port, cores()[0] if workers == 1 else ()) as running:
        wait_for(lambda: len(children(running.pid)) == workers, f"{workers} workers")
        yield Proxy(Way(name, port, tuple(children(running.pid))), _key_of(made))


def _key_of(made: Installation) -> str:
    """Make a key that may ask models and nothing else, with limits that the load stays below."""
    limits = {"requests_per_minute": 10**7, "tokens_per_minute": 10**9, "requests_at_once": 10**4}
    answer = made.client.post("/api/v1/keys", json={"name": "bench", "scopes": ["infer"], **limits})
    answer.raise_for_status()
    return str(answer.json()["secret"])


def _program(name: str) -> str:
    """Return where a program of the package index is, installing it where it is not; raises `MissingError`."""
    folder = ENVIRONMENTS / PACKAGES[name]
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--no-input", "-q", PACKAGES[name]]
        for command in ([sys.executable, "-m", "venv", str(folder)], install):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise MissingError(f"{PACKAGES[name]} can't be installed ({done.stderr.strip().splitlines()[-1:]})")
        (folder / "complete").touch()
    return str(folder / "bin" / name)


@contextmanager
def _listening(
    log: Path, command: Sequence[str], port: int, under: Sequence[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """`under`: what it is run by; `None`: what has it run on the core of the proxies."""
    with process([*(cores()[0] if under is None else under), *command], log=log) as running:
        wait_until_listens(port, running, log)
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


def _write(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)
