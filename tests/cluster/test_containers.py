"""Any container is a service: databases and stores with volumes, on a real Slurm, from images made on the spot.

PostgreSQL is the real server: the image is the thin one of the other tests, which runs the host's own /usr, where the
distribution's package lies. MinIO, Qdrant and Chroma can't be had without a network: `stand_in.py` takes their place
under their names, and honours what their recipes pass and promise (arguments, variables, health path, volume, key).
The recipes are those that are shipped; as on any site, the configuration names another image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.cluster.system import ROOT, System, command_lines, running, wait_for
from tests.postgres_server import NoServerError, binaries
from tests.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.cluster

RECIPES = ("storage/postgres", "storage/minio", "vector-db/qdrant", "vector-db/chroma")
STAND_IN = Path(__file__).with_name("stand_in.py")
SMALL = {"cpu": 1, "memory": "512M"}

MADE = """
    install -m 755 "{folder}/stand-in" "$root/opt/minio"
    install -m 755 "{folder}/stand-in" "$root/opt/chroma"
    mkdir -p "$root/qdrant/storage" "$root/data" "$root/var/lib/postgresql/data"
    install -m 755 "{folder}/stand-in" "$root/qdrant/qdrant"
    printf 'postgres:x:{uid}:{uid}::/tmp:/bin/sh\\n' >>"$root/etc/passwd"
    printf 'postgres:x:{uid}:\\n' >>"$root/etc/group"

%environment
    export PATH={postgres}:/opt:/usr/bin:/bin
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, apptainer: str) -> Path:
    """One image for all of them: the shipped host.def, and the programs' names."""
    try:
        postgres = binaries()
    except NoServerError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("image")
    (folder / "stand-in").write_text("#!/usr/bin/python3\n" + STAND_IN.read_text())
    definition = (ROOT / "recipes" / "host.def").read_text().partition("\n%environment")[0]
    (folder / "all.def").write_text(definition + MADE.format(folder=folder, postgres=postgres, uid=2345))
    command = [apptainer, "build", str(folder / "all.sif"), str(folder / "all.def")]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert built.returncode == 0, built.stderr
    return folder / "all.sif"


@pytest.fixture(scope="module")
def system(slurm_cluster: SlurmCluster, apptainer: str, image: Path) -> Iterator[System]:
    folder = Path(tempfile.mkdtemp(prefix="af-test-"))
    site = [f'[recipe."{name}"]\nimage = "{image}"\nbinds = ["/usr:/usr:ro"]\n' for name in RECIPES]
    (folder / "secret").write_text("correct horse\n")
    (folder / "secret").chmod(0o600)
    system = System(folder, slurm_cluster, apptainer, more="".join(site))
    opened = f'[slurm]\nvolume_roots = ["{folder}/shared"]\n'
    system.config.write_text(system.config.read_text().replace("[slurm]\n", opened, 1))
    with running(system):
        yield system
    shutil.rmtree(folder)


def address(system: System, key: str) -> tuple[str, int]:
    """Where REST says that the service answers."""
    found = urlsplit(system.service(key)["endpoint"])
    assert found.hostname is not None
    assert found.port is not None
    return found.hostname, found.port


def psql(system: System, key: str, statement: str) -> str:
    host, port = address(system, key)
    command = [str(binaries() / "psql"), "-XAqt", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", str(port)]
    password = {"PGPASSWORD": "correct horse", "PGCONNECT_TIMEOUT": "10", "PATH": os.environ["PATH"]}
    done = subprocess.run([*command, "-U", "app", "-d", "things", "-c", statement], env=password, timeout=30,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def replaced(system: System, key: str) -> None:
    """Cancel the service's job by hand, and wait until another one runs in its place."""
    before = system.open_attempt(key)
    system.slurm("scancel", str(before["job_id"]))
    wait_for(
        lambda: [a for a in system.attempts(key) if a["incarnation"] > before["incarnation"] and a["ready_at"]],
        "another job has taken its place",
        story=lambda: system.story(key),
    )
    system.wait_status(key, "running")
    assert system.open_attempt(key)["job_id"] != before["job_id"]
    assert len(system.running_of(key)) == 1


def test_postgres_keeps_its_rows_and_its_volume_to_itself(system: System) -> None:
    path = system.folder / "shared" / "pg"
    where = {"volumes": [{"target": "/var/lib/postgresql/data", "path": str(path)}], "resources": SMALL}
    account = {"password_file": str(system.folder / "secret"), "user": "app", "database": "things"}
    key = system.create("storage/postgres", name="pg", **account, **where, shared_buffers=16)
    system.wait_status(key, "running")
    psql(system, key, "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept SELECT generate_series(1, 1000)")

    other = system.create("storage/postgres", name="pg-too", **account, **where, shared_buffers=16)
    system.wait_status(other, "failed")
    (refused,) = system.attempts(other)
    assert refused["outcome"] == "VolumeInUse"
    token = system.open_attempt(key)["token"]
    message = system.service(other)["message"]
    assert f"{path} is in use by {token} (job" in message
    assert psql(system, key, "SELECT count(*) FROM kept") == "1000"

    replaced(system, key)
    assert psql(system, key, "SELECT count(*), sum(id) FROM kept") == "1000|500500"

    seen = [system.story(key), *(p.read_text(errors="replace") for p in (system.folder / "run").rglob("*.log"))]
    seen += [p.read_bytes().decode(errors="replace") for p in (system.folder / "state").iterdir() if p.is_file()]
    seen += command_lines()
    seen += [p.read_text() for p in (system.folder / "run").rglob("params.json")]
    assert not any("correct horse" in text for text in seen), "the password is in its file and nowhere else"

    system.delete(key)
    system.delete(other)
    assert (path / "data" / "pgdata" / "PG_VERSION").exists(), "deleting a service keeps its data"
    heir = system.create("storage/postgres", name="pg-heir", **account, **where, shared_buffers=16)
    system.wait_status(heir, "running")
    assert psql(system, heir, "SELECT count(*) FROM kept") == "1000"
    system.delete(heir)


def put(system: System, key: str, path: str, headers: dict[str, str]) -> httpx.Response:
    """Put something there as its users do, at its endpoint: through the gateway, or itself."""
    endpoint = system.service(key)["endpoint"]
    if urlsplit(endpoint).path:
        assert httpx.put(endpoint + path, content=b"kept", trust_env=False).status_code == 401
        made = system.client.post("/api/v1/keys", json={"name": "user"}).json()
        headers = {**headers, "Authorization": f"Bearer {made['secret']}"}
    return httpx.put(endpoint + path, content=b"kept", headers=headers, trust_env=False, timeout=30)


@pytest.mark.parametrize(
    ("recipe", "config", "api_key"),
    [
        ("storage/minio", {"password_file": "secret", "user": "me.2"}, "me.2:correct horse"),
        ("vector-db/qdrant", {"api_key_file": "secret"}, "correct horse"),
        ("vector-db/chroma", {}, ""),
    ],
)
def test_stores_keep_what_is_put_there(system: System, recipe: str, config: dict[str, str], api_key: str) -> None:
    files = {k: str(system.folder / v) if k.endswith("_file") else v for k, v in config.items()}
    key = system.create(recipe, **files, resources=SMALL)
    system.wait_status(key, "running")
    own, path = {"api-key": api_key}, "/things/one"
    assert put(system, key, path, own).status_code == 200
    if api_key:
        assert system.ask(key, "GET", path).status_code == 401
    replaced(system, key)
    assert system.ask(key, "GET", path, headers=own).content == b"kept"
    assert (system.folder / "run" / "volumes" / key / "data" / "lock.2").exists()
    system.delete(key)
    assert any((system.folder / "run" / "volumes" / key / "data" / "data").iterdir()), "deleting keeps the data"
