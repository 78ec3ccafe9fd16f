"""Hostile values travel the whole way, REST to container, literally; a canary shows that none was executed."""

from __future__ import annotations

import json

import pytest

from tests.cluster.system import System

pytestmark = pytest.mark.cluster

ECHO_RECIPE = """
name: echo
category: hostile
description: Prints its arguments and environment as JSON.
version: 1.0.0
kind: job
container_def: ../host.def
program: [python3, -c]
command:
  - "import json, os, sys; print('SEEN' + json.dumps([sys.argv[1:], dict(os.environ)]))"
  - "{text}"
  - "{items}"
binds: ["/usr:/usr:ro"]
parameters:
  text: {type: string}
  items: {type: list, default: []}
restart: {max_failures: 1}
"""


def test_hostile_values_arrive_literally(system: System) -> None:
    canary = system.folder / "canary"
    hostile = [
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"'; touch {canary}; '",
        f'"; touch {canary}; "',
        f"\n#SBATCH --wrap='touch {canary}'\ntouch {canary}\n",
        "${HOME} $PATH %j %x \\n \\0",
        "a,b=c;d|e&f>g<h*?[x]{port}{{host}}",
        "ünï → 你好 🎈",
        "x" * 10_000,
    ]
    folder = system.folder / "recipes" / "hostile"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "host.def").write_text((system.root / "recipes" / "host.def").read_text())
    (folder / "echo.yaml").write_text(ECHO_RECIPE)
    environment = {f"HOSTILE_{n}": value for n, value in enumerate(hostile)}
    items = [*hostile, "--leading", "-x"]
    text = " ".join(hostile)
    key = system.create("hostile/echo", text=text, items=items, environment=environment, note=hostile)
    system.wait_status(key, "completed")
    attempt = system.attempts(key)[0]
    output = next((system.folder / "run").glob(f"*/{key}/{attempt['token']}/stdout.log")).read_text()
    line = next(line for line in output.splitlines() if line.startswith("SEEN"))
    arguments, seen = json.loads(line.removeprefix("SEEN"))
    assert arguments == [text, *items]
    assert {name: seen.get(name) for name in environment} == environment
    assert system.service(key)["config"]["note"] == hostile
    assert not canary.exists()
    system.delete(key)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"text": "--help"}, "text"),
        ({"text": "a\0b"}, None),
        ({"resources": {"partition": "main --wrap=id"}}, "partition"),
        ({"resources": {"account": "$(id)"}}, "account"),
        ({"resources": {"constraint": "a\nb"}}, "constraint"),
        ({"resources": {"memory": "1G; id"}}, "memory"),
        ({"resources": {"time_limit": "1:00 --array=1-9"}}, "time_limit"),
        ({"resources": {"extra_options": ["--array=1-3"]}}, "extra_options"),
        ({"resources": {"extra_options": ["--wrap=id"]}}, "extra_options"),
        ({"resources": {"extra_options": ["exclusive"]}}, "extra_options"),
        ({"environment": {"A;id": "x"}}, "A;id"),
        ({"environment": {"SBATCH_ARRAY_INX": "1-3"}}, "SBATCH_ARRAY_INX"),
        ({"command": ["id"]}, "command"),
        ({"binds": ["/:/host"]}, "binds"),
    ],
)
def test_what_could_do_harm_is_refused_by_name(system: System, config: dict[str, object], key: str | None) -> None:
    answer = system.client.post("/api/v1/services", json={"recipe_name": "hostile/echo", "config": config})
    assert 400 <= answer.status_code < 500, answer.text
    assert key is None or key in answer.text
