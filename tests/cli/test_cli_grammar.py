from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import Run

from api.cli.arguments import build
from api.cli.errors import EXIT_CODES
from api.cli.main import command_of
from api.contract.exits import Exit

REDIRECTION = re.compile(r" [<>]\S+")


def commands(parser: ArgumentParser, path: str = "") -> Iterator[tuple[str, ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{path} {name}".strip(), inner
                yield from commands(inner, f"{path} {name}".strip())


def test_every_command_has_a_function_and_a_line_of_help() -> None:
    found = dict(commands(build()))
    assert {"up", "api", "controller", "migrate", "services create", "logs", "prompt", "recipes render", "doctor",
            "config", "explain", "controller replay"} <= set(found)  # fmt: skip
    for parser in found.values():
        run = parser.get_default("run")
        if run is not None:
            assert callable(command_of(run))
        assert parser.description


def examples(parser: ArgumentParser) -> list[str]:
    """Return the command lines of a help text, without what they are for."""
    lines = [line.strip() for line in (parser.epilog or "").splitlines()]
    return [line.removeprefix("$ ").partition("  # ")[0] for line in lines if line.startswith("$ ")]


def test_every_help_teaches_by_examples_that_are_understood() -> None:
    found = {"": build(), **dict(commands(build()))}
    for path, parser in found.items():
        if path == "complete":
            continue
        assert examples(parser), path
        for example in examples(parser):
            program, *words = shlex.split(REDIRECTION.sub("", example))
            assert program == "ai-factory"
            arguments = build().parse_args(words)
            assert arguments.output in arguments.formats, example
            assert path in ("", *(" ".join(words[:n]) for n in range(1, 4))), (path, example)


def test_every_flag_and_argument_is_explained() -> None:
    for path, parser in commands(build()):
        for action in parser._actions:
            if path != "complete" and not isinstance(action, _SubParsersAction):
                named = action.option_strings or [action.metavar]
                assert action.help or named in (["RECIPE"], ["FILE"]), (path, named)


def test_no_line_of_a_help_is_wider_than_a_terminal_but_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for path, parser in commands(build()):
        for line in parser.format_help().splitlines():
            assert len(line) <= 80 or "ai-factory " in line, (path, line)


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("services",),
        ("nonsense",),
        ("services", "list", "--nonsense"),
        ("services", "list", "--status", "nonsense"),
        ("services", "list", "-l", "team"),
        ("services", "events", "x", "-o", "yaml"),
        ("logs", "x", "-o", "wide"),
        ("--conf", "x", "config"),
        ("up", "--port", "http"),
        ("services", "create"),
    ],
)
def test_a_wrong_command_line_exits_2_with_one_line(run: Run, argv: tuple[str, ...]) -> None:
    ran = run(*argv)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.splitlines()[-1].startswith("ai-factory: ")


def test_commands_that_ask_no_server_refuse_one(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {path: parser for path, parser in commands(build()) if parser.get_default("run") and path != "complete"}
    local = {path for path, parser in found.items() if parser.get_default("is_local")}
    assert {"explain", "images list", "recipes list", "up", "backup", "key rotate"} <= local
    for path, parser in found.items():
        source = Path(inspect.getsourcefile(command_of(parser.get_default("run"))) or "").read_text()
        asks = path == "doctor" or re.search(r"with connect\(", source) is not None
        assert (path not in local) == (asks and path != "key rotate"), path
    ran = run("explain", "chat", "--server", "http://127.0.0.1:9")
    assert (ran.code, "ai-factory explain works on the controller's host" in ran.err) == (2, True)
    monkeypatch.setenv("AI_FACTORY_SERVER", "http://127.0.0.1:9")
    assert run("config").code == 0


def test_global_flags_stand_before_or_after_the_command(run: Run) -> None:
    assert run("-o", "json", "config").out == run("config", "-o", "json").out


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("ai-factory ")
    assert EXIT_CODES in run("--help").out
    assert "--set" in run("services", "create", "--help").out


def test_the_documented_exit_codes_are_the_ones_there_are() -> None:
    documented = {int(line.split()[0]) for line in EXIT_CODES.splitlines()[1:]}
    assert documented == set(Exit) - {Exit.BROKEN_PIPE}


def test_bad_settings_exit_3(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "config.toml"
    file.write_text("nonsense = 1\n")
    ran = run("--config", str(file), "config")
    assert (ran.code, ran.err.count("\n")) == (3, 1)
    assert "nonsense" in ran.err
    monkeypatch.setenv("AI_FACTORY_API_PORT", "many")
    assert run("config").code == 3


def test_help_is_quick_because_it_imports_no_command() -> None:
    slow = "{'httpx', 'sqlalchemy', 'alembic', 'controller'}"
    code = f"import sys, api.cli.main as m; m.build(); print(sorted({slow} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m api.cli config -o json | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 141)  # 0 where it was all written before the reader left
    assert "Traceback" not in ended.stderr
