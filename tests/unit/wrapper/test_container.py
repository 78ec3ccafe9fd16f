"""Real containers: what Apptainer makes of the command line and the environment."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from .doors import ENGINE as DOOR_ENGINE
from .doors import SOCKET, door, kill_at_one_blow, knock
from .jobs import ENGINE, Job, alive, running, until
from .test_job import ECHO, HOSTILE, PORT

TOOLS = Path(__file__).parents[3] / ".local/tools/apptainer/bin/apptainer"
APPTAINER = os.environ.get("AI_FACTORY_TEST_APPTAINER", str(TOOLS))

# the host's own /usr is the container's: the quickest real image
DEFINITION = """\
Bootstrap: scratch

%setup
    R="$APPTAINER_ROOTFS"
    mkdir -p "$R/usr" "$R/etc" "$R/tmp" "$R/var/tmp" "$R/proc" "$R/sys" "$R/dev" "$R/root" "$R/home"
    for l in bin lib lib64 sbin; do ln -s usr/$l "$R/$l"; done
    cp /etc/ld.so.cache "$R/etc/"
    printf 'root:x:0:0:root:/root:/bin/sh\\n' > "$R/etc/passwd"; printf 'root:x:0:\\n' > "$R/etc/group"

%environment
    export PATH=/from/the/image:/usr/bin:/bin FROM_IMAGE=1
"""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not Path(APPTAINER).exists(), reason="no Apptainer (deploy/local/install-apptainer)"),
]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    (folder / "thin.def").write_text(DEFINITION)
    command = [APPTAINER, "build", str(folder / "thin.sif"), str(folder / "thin.def")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder / "thin.sif"


@pytest.fixture
def run(job: Job, image: Path) -> Any:
    def write(*command: Any, **parameters: Any) -> Job:
        fixed: dict[str, Any] = {
            "apptainer": APPTAINER,
            "image": {"source": str(image), "definition": None},
            "binds": ["/usr:/usr:ro"],
            "command": list(command),
        }
        job.write(**{**fixed, **parameters})
        return job

    return write


def test_values_arrive_byte_for_byte_and_nothing_is_evaluated(run: Any, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    values = {name: value.replace("CANARY", str(canary)) for name, value in HOSTILE.items()}
    values["PATH"] = "/usr/bin:/bin:/opt/$(touch /tmp/x) y"
    values["HOME"] = "/srv/home"
    token = tmp_path / "token"
    token.write_text("hf_$(id)\n")
    token.chmod(0o600)
    job = run(
        "python3", "-I", "-c", ECHO, *HOSTILE.values(), [{"runtime": "files"}, "/x"],
        environment=values,
        environment_from={"HF_TOKEN": str(token)},
        secret="0123abcd",
        secret_variable="VLLM_API_KEY",
        binds=["/usr:/usr:ro", f"{tmp_path}:{tmp_path}"],
    )  # fmt: skip
    assert job.run() == 0, job.stderr
    environment, arguments = json.loads(job.stdout)
    assert {name: environment.get(name) for name in values} == values
    assert arguments == [*HOSTILE.values(), "/recipe/x"]
    assert environment["HF_TOKEN"] == "hf_$(id)"
    assert environment["VLLM_API_KEY"] == "0123abcd"
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,3"
    assert environment["ROCR_VISIBLE_DEVICES"] == "GPU-5a1d,GPU-77f0"
    assert [environment[name] for name in ("HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")] == [
        "1",
        "1",
        "0.1",
    ]
    assert environment["FROM_IMAGE"] == "1"
    assert environment["AF_RECIPE_DIR"] == "/recipe"
    assert "UNRELATED" not in environment
    assert "SLURM_JOB_ID" not in environment
    assert not canary.exists()
    assert job.stderr == ""


def test_the_recipe_is_read_only_and_the_job_folder_out_of_sight(run: Any) -> None:
    body = (
        "import os, sys; folder = sys.argv[1]\n"
        "print(open('/recipe/a b.txt').read(), os.getcwd(), os.path.exists(folder))\n"
        "try: open('/recipe/new', 'w')\n"
        "except OSError as error: print(error.strerror)\n"
        "for place in ('/tmp', os.path.expanduser('~')): open(place + '/new', 'w').write('x')"
    )
    job = run("python3", "-c", body, "", files={"a b.txt": "text"})
    job.write(
        **{**json.loads((job.folder / "params.json").read_text()), "command": ["python3", "-c", body, str(job.folder)]}
    )
    assert job.run() == 0, job.stderr
    assert job.stdout == "text /tmp False\nRead-only file system\n"
    assert list(job.temporary.iterdir()) == []


def test_a_volume_may_be_written_to_and_stays(run: Any, tmp_path: Path) -> None:
    """Whatever its path is called; and what holds its lock is out of sight."""
    volume = tmp_path / 'a,b:c "d" $(id)' / "v"
    volumes = [{"source": str(volume), "target": "/var/lib/the data,x:y", "root": None}]
    body = 'cd "/var/lib/the data,x:y" && ls -A && ls -A .. | head -c 200 >&2 && echo kept >> file'
    for _ in range(2):
        job = run("sh", "-c", body, volumes=volumes, token="af-i-s-0-1")
        (job.folder / "claim").unlink(missing_ok=True)
        assert job.run() == 0, job.stderr
    assert (volume / "data" / "file").read_text() == "kept\nkept\n"
    assert job.stdout == "file\n"
    assert "lock" not in job.stderr


def test_a_home_of_ones_own_stays(run: Any, tmp_path: Path) -> None:
    home = tmp_path / "home, sweet"
    job = run("sh", "-c", "echo kept > ~/file", home=str(home))
    assert job.run() == 0, job.stderr
    assert (home / "file").read_text() == "kept\n"


def test_a_check_runs_in_a_container_like_the_engines(run: Any, tmp_path: Path) -> None:
    """It finds what the engine left in /tmp and at home, and is over when it hangs, whatever it started in there."""
    token, marker = tmp_path / "token", f"check-{os.getpid()}"
    token.write_text("hf_x\n")
    token.chmod(0o600)
    body = f"""
        [ -e /tmp/sign ] && [ -e ~/sign ] && [ -e "$AF_RECIPE_DIR"/x ] || exit 8
        [ "$FROM_IMAGE$A$HF_TOKEN" = "1a'b"hf_x ] || exit 9
        [ ! -e /tmp/hang ] || sh -c "trap '' TERM; setsid sleep 60 & sleep 61" {marker}"""
    until_told = 'until [ -e "$AF_RECIPE_DIR"/go ]; do sleep 0.1; done'
    job = run(
        "sh", "-c", f"touch /tmp/sign ~/sign; {until_told}; touch /tmp/hang; sleep 60",
        check={"command": ["sh", "-c", body], "interval": 0.2, "timeout": 2.5},
        environment={"A": "a'b"},
        environment_from={"HF_TOKEN": str(token)},
        files={"x": ""},
    )  # fmt: skip
    job.start()
    until(lambda: job.state.get("health", {}).get("ok"))
    (job.folder / "files" / "go").touch()
    until(lambda: not job.state["health"]["ok"])
    assert job.state["health"]["message"] == "The health check did not end within 2.5 s"
    until(lambda: not running(marker))


def test_serves_and_stops(run: Any) -> None:
    engine = ["python3", [{"runtime": "files"}, "/engine.py"], "--host", "127.0.0.1", "--port", [PORT]]
    job = run(*engine, files={"engine.py": ENGINE.read_text()}, listens=True, nv=True)
    job.start()
    job.until_step("serving")
    job.send(signal.SIGTERM)
    assert job.wait() == 0, job.stderr
    assert job.exit["reason"] == "Terminated"


def test_term_in_the_first_moments_is_not_lost(run: Any) -> None:
    job = run("sleep", "60", stop_grace=20)
    job.start()
    job.until_step("serving")
    job.send(signal.SIGTERM)
    job.wait()
    assert job.exit["reason"] == "Terminated"


def test_a_stubborn_engine_in_a_container_is_killed(run: Any, tmp_path: Path) -> None:
    marker = f"stubborn-{os.getpid()}"
    body = "trap '' TERM; (trap '' TERM; setsid sleep 60) & echo up; while :; do sleep 1; done"
    job = run("sh", "-c", body, marker, stop_grace=0.3)
    job.start()
    until(lambda: "up" in job.stdout)
    inside = running(marker)
    assert inside
    job.send(signal.SIGTERM)
    assert job.wait() == 137
    assert not any(alive(pid) for pid in inside)


def test_an_engine_in_a_container_does_not_outlive_a_killed_wrapper(run: Any) -> None:
    marker = f"orphan-{os.getpid()}"
    job = run("sh", "-c", "echo up; while :; do sleep 1; done", marker)
    job.start()
    until(lambda: "up" in job.stdout)
    inside = running(marker)
    assert inside
    job.send(signal.SIGKILL)
    job.wait()
    until(lambda: not any(alive(pid) for pid in inside))


def test_an_engine_in_a_container_is_reached_through_the_door(run: Any) -> None:
    job = run(
        "python3", [{"runtime": "files"}, "/engine.py"], [SOCKET],
        files={"engine.py": DOOR_ENGINE},
        listens=True,
        door=door("af-i-job0-0-1"),
    )  # fmt: skip
    job.start()
    job.until_step("serving")
    assert job.stdout.split()[1] == "/engine/socket"
    with knock(job) as line:
        line.send(b"echo\nhello\n")
        assert line.receive(6) == b"hello\n"
    job.send(signal.SIGTERM)
    job.wait()
    assert job.exit["reason"] == "Terminated"


def test_killed_at_one_blow_nothing_is_left(run: Any) -> None:
    """Wrapper, guards and door, whatever might end the engine; and what it started in a session of its own."""
    marker = f"blow-{os.getpid()}"
    body = f"setsid sh -c 'while :; do sleep 1; done' {marker} & exec python3 $AF_RECIPE_DIR/engine.py $0 0 {marker}"
    job = run(
        "sh", "-c", body, [SOCKET],
        files={"engine.py": DOOR_ENGINE},
        listens=True,
        door=door("af-i-job0-0-1"),
    )  # fmt: skip
    job.start()
    job.until_step("serving")
    inside = running(marker)
    assert len(inside) >= 2
    doomed = kill_at_one_blow(job)
    assert len(doomed) == 4
    job.wait()
    until(lambda: not any(alive(pid) for pid in (*inside, *doomed)), 20.0)


def test_apptainers_own_failure_is_told(run: Any) -> None:
    job = run("true", binds=["/nonexistent:/x"])
    assert job.run() == 255
    assert job.exit["reason"] == "EngineExited"
    assert "mount source /nonexistent doesn't exist" in job.exit["message"]


def test_a_definition_is_built_for_real(run: Any, tmp_path: Path) -> None:
    job = run("echo", "hello", image={"source": None, "definition": DEFINITION}, image_cache=str(tmp_path / "images"))
    assert job.run(seconds=30) == 0, job.stderr
    assert "hello\n" in job.stdout
    kept = sorted((tmp_path / "images").iterdir())
    assert [path.suffix for path in kept] == [".json", ".lock", ".seen", ".sif", ".used"]
    record = json.loads(kept[0].read_text())
    assert (record["source"], record["definition"]) == (None, DEFINITION)
    assert record["sha256"] == hashlib.sha256(kept[3].read_bytes()).hexdigest()
    assert job.state["image"] == kept[3].stem


def test_folders_of_models_are_seen_where_they_are_and_the_cache_is_written_to(run: Any, tmp_path: Path) -> None:
    """Read-only, but for the one into which engines download: that is made, for nobody else, and is their HF_HOME."""
    models, cache = tmp_path / "the, models:x", tmp_path / "run" / "models"
    models.mkdir()
    (models / "weights").write_text("w")
    body = (
        "import os, sys; models = sys.argv[1]\n"
        "print(open(models + '/weights').read(), os.environ['HF_HOME'], os.environ['HF_MODULES_CACHE'])\n"
        "try: open(models + '/new', 'w')\n"
        "except OSError as error: print(error.strerror)\n"
        "open(os.environ['HF_HOME'] + '/new', 'w').write('kept')"
    )
    folders = [str(models), str(tmp_path / "not on this node")]
    job = run("python3", "-c", body, str(models), model_folders=folders, model_cache=str(cache))
    assert job.run() == 0, job.stderr
    assert job.stdout == f"w {cache} /tmp/hf-modules\nRead-only file system\n"
    assert (cache / "new").read_text() == "kept"
    assert cache.stat().st_mode & 0o777 == 0o700


def test_a_cache_of_the_recipes_own_goes_before(run: Any, tmp_path: Path) -> None:
    job = run("printenv", "HF_HOME", model_cache=str(tmp_path / "cache"), environment={"HF_HOME": "/elsewhere"})
    assert (job.run(), job.stdout) == (0, "/elsewhere\n")


def test_a_cache_that_cannot_be_made_is_no_reason_to_fail(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = run("sh", "-c", "echo ${HF_HOME-none}", model_cache=str(tmp_path / "file" / "cache"))
    assert (job.run(), job.stdout) == (0, "none\n")
    assert "models.cache" in job.stderr


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("models/Qwen3 32B", "", id="there"),
        pytest.param("models/Qwen3-8b", "Did you mean {}/models/Qwen3-8B?", id="misspelt"),
        pytest.param("models/nothing/here", "There is no {}/models/nothing either.", id="no folder"),
        pytest.param("outside/weights", "is not bound into the container", id="not bound"),
        pytest.param("models/link", "leads to {}/outside/weights, which is there", id="a link out of it"),
        pytest.param("/no/such", "neither on", id="nowhere"),
    ],
)
def test_what_the_engine_is_to_read_is_looked_for_before_it_is_started(
    run: Any, tmp_path: Path, path: str, words: str
) -> None:
    models, outside = tmp_path / "models", tmp_path / "outside"
    for folder in (models / "Qwen3-8B", models / "Qwen3 32B", outside / "weights"):
        folder.mkdir(parents=True)
    (models / "link").symlink_to(outside / "weights")
    asked, binds = tmp_path / path, ["/usr:/usr:ro", f"{tmp_path}:/seen"]
    paths = [str(models / "Qwen3-8B"), "/usr", str(asked)]
    job = run("touch", "/seen/started", binds=binds, model_folders=[str(models)], paths=paths)
    job.run()
    assert job.exit["reason"] == ("PathUnseen" if words else "EngineExited"), job.exit
    assert (tmp_path / "started").exists() is not bool(words)
    if words:
        assert str(asked) in job.exit["message"]
        assert words.format(tmp_path) in job.exit["message"]
    if "bound" in words or "neither" in words:
        assert "models.folders" in job.exit["message"]
