"""Settings: the file, then the environment, then flags, each stronger than the one before; and what they say no to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from api.contract import configuration as module
from api.contract.configuration import PREFIX, SettingsError, load, shared_folder
from api.contract.settings import Settings

Load = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Load:
    """Load settings from a file, an environment and flags, and nothing else."""

    def read(toml: str = "", environ: dict[str, str] | None = None, flags: dict[str, str] | None = None) -> Settings:
        file = tmp_path / "config.toml"
        file.write_text(toml)
        variables = {PREFIX + key: value for key, value in (environ or {}).items()}
        return load(flags, config=file, environ={"HOME": "/home/u", **variables})

    return read


def refusal(read: Load, **sources: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        read(**sources)
    return str(caught.value)


# Precedence


@pytest.mark.parametrize(
    ("toml", "environ", "flags", "port"),
    [
        ("", {}, {}, 8001),
        ("[api]\nport = 1", {}, {}, 1),
        ("[api]\nport = 1", {"API_PORT": "2"}, {}, 2),
        ("[api]\nport = 1", {"API_PORT": "2"}, {"api.port": "3"}, 3),
        ("", {"API_PORT": "2"}, {}, 2),
        ("", {}, {"api.port": "3"}, 3),
        ("[api]\nport = 1", {}, {"api.port": "3"}, 3),
    ],
)
def test_file_then_environment_then_flags(
    read: Load, toml: str, environ: dict[str, str], flags: dict[str, str], port: int
) -> None:
    assert read(toml, environ, flags).api.port == port


def test_a_stronger_source_changes_only_what_it_names(read: Load) -> None:
    found = read("[api]\nhost = '::1'\nport = 1\n", {"API_PORT": "2"}).api
    assert (found.host, found.port) == ("::1", 2)


def test_every_setting_but_the_recipes_tables_has_a_variable_and_a_flag(read: Load) -> None:
    def paths(settings: Any, prefix: str = "") -> list[str]:
        found = []
        for item in fields(settings):
            value = getattr(settings, item.name)
            found += paths(value, f"{prefix}{item.name}.") if is_dataclass(value) else [prefix + item.name]
        return found

    known = [path for path, _ in module._leaves(Settings)]
    assert [path for path in paths(read()) if path != "recipe"] == known
    variables = {module._variable(path) for path in known}
    assert len(variables) == len(known)
    assert PREFIX + "CONFIG" not in variables


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("slurm.partition", "gpu", "gpu"),
        ("slurm.partition", "", ""),
        ("slurm.extra_options", "--exclusive, --nice=5", ("--exclusive", "--nice=5")),
        ("slurm.extra_options", "", ()),
        ("slurm.port_range", "20000,20100", (20000, 20100)),
        ("controller.lease", "7.5", 7.5),
        ("controller.workers", "3", 3),
        ("log_level", "debug", "debug"),
        ("api.admin_key_file", "/keys/admin", Path("/keys/admin")),
        ("api.admin_key_file", "", None),
        ("api.require_key", "false", False),
        ("recipes", "/a:/b", (Path("/a"), Path("/b"))),
        ("recipes", "~/a", (Path.home() / "a",)),
        ("run_dir", "/shared/af", Path("/shared/af")),
        ("database_url", "postgresql://x@y/z", "postgresql://x@y/z"),
    ],
)
def test_a_text_becomes_what_the_setting_is(read: Load, path: str, text: str, value: object) -> None:
    by_path = attrgetter(path)
    assert by_path(read(flags={path: text})) == value
    assert by_path(read(environ={path.replace(".", "_").upper(): text})) == value


def test_a_whole_file(read: Load) -> None:
    found = read(
        """
        run_dir = "/shared/af"
        recipes = ["/ours"]
        log_level = "warning"
        [slurm]
        partition = "gpu"
        extra_options = ["--exclusive"]
        port_range = [20000, 20100]
        prologue = '''
        module load apptainer
        '''
        [controller]
        lease = 30
        [recipe."inference/vllm"]
        image = "/images/vllm.sif"
        resources = { partition = "h100", gpu = 2 }
        """
    )
    assert (found.run_dir, found.recipes, found.log_level) == (Path("/shared/af"), (Path("/ours"),), "warning")
    assert (found.slurm.partition, found.slurm.extra_options) == ("gpu", ("--exclusive",))
    assert (found.slurm.port_range, found.controller.lease) == ((20000, 20100), 30.0)
    assert "module load" in found.slurm.prologue
    assert found.recipe == {
        "inference/vllm": {"image": "/images/vllm.sif", "resources": {"partition": "h100", "gpu": 2}}
    }


# Defaults


def test_defaults_lie_under_the_home(read: Load) -> None:
    found = read()
    assert found.state_dir == Path("/home/u/.local/state/ai-factory")
    assert found.run_dir == Path("/home/u/.local/share/ai-factory")
    assert found.key_file == found.state_dir / "installation.key"
    assert found.database_url == "sqlite:////home/u/.local/state/ai-factory/ai-factory.db"
    assert found.recipes == (shared_folder("recipes"),)
    assert (found.api.host, found.api.admin_key_file) == ("127.0.0.1", None)


def test_what_lies_in_the_state_dir_moves_with_it(read: Load) -> None:
    found = read("state_dir = '/var/lib/af'")
    assert found.key_file == Path("/var/lib/af/installation.key")
    assert found.database_url == "sqlite:////var/lib/af/ai-factory.db"


def test_the_state_follows_xdg(tmp_path: Path) -> None:
    found = load(config="/dev/null", environ={"HOME": "/home/u", "XDG_STATE_HOME": "/state"})
    assert found.state_dir == Path("/state/ai-factory")


def test_which_file_is_read(tmp_path: Path) -> None:
    usual = tmp_path / "ai-factory" / "config.toml"
    usual.parent.mkdir()
    named, flagged = tmp_path / "named.toml", tmp_path / "flagged.toml"
    for file, port in ((usual, 1), (named, 2), (flagged, 3)):
        file.write_text(f"[api]\nport = {port}")
    environ = {"HOME": "/home/u", "XDG_CONFIG_HOME": str(tmp_path)}
    assert load(environ=environ).api.port == 1
    environ[PREFIX + "CONFIG"] = str(named)
    assert load(environ=environ).api.port == 2
    assert load(environ=environ, config=flagged).api.port == 3


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    assert load(environ={"HOME": "/home/u", "XDG_CONFIG_HOME": str(tmp_path)}).api.port == 8001


def test_an_older_name_is_understood(read: Load) -> None:
    assert read('[controller]\nlog_format = "json"\n').log_format == "json"
    assert read('log_format = "text"\n[controller]\nlog_format = "json"\n').log_format == "text"
    assert read(environ={"CONTROLLER_LOG_FORMAT": "json"}).log_format == "json"


def test_the_environment_of_other_programs_is_no_setting(read: Load) -> None:
    assert read(environ={"SOMETHING_ELSE": "x", "RECIPE": "x"}) == read()


# Refusals


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        pytest.param({"toml": "x = "}, "config.toml is not valid TOML", id="no TOML"),
        pytest.param({"toml": "a = 1\na = 2"}, "config.toml is not valid TOML", id="a key twice"),
        pytest.param({"toml": "colour = 1"}, "There is no setting colour.", id="unknown in the file"),
        pytest.param({"toml": "[api]\npoort = 1"}, "There is no setting api.poort.", id="unknown in a table"),
        pytest.param({"toml": "[slurm.deep]\nx = 1"}, "There is no setting slurm.deep.", id="unknown table"),
        pytest.param({"flags": {"api.poort": "1"}}, "There is no setting api.poort.", id="unknown flag"),
        pytest.param({"flags": {"recipe": "x"}}, "There is no setting recipe.", id="no flag for tables"),
        pytest.param({"toml": "[api]\nport = '1'"}, "$.api.port", id="text for a number"),
        pytest.param({"toml": "api = 5"}, "$.api", id="no table"),
        pytest.param(
            {"toml": "api = 5", "flags": {"api.port": "1"}}, "The setting api must be a table.", id="nor then"
        ),
        pytest.param({"toml": "recipe = 5"}, "$.recipe", id="recipe is a table"),
        pytest.param({"toml": "recipes = 5"}, "recipes must be a list of folders", id="recipes is a list"),
        pytest.param({"toml": "recipes = [5]"}, "5 is no path", id="of paths"),
        pytest.param({"toml": "run_dir = 'x'"}, "run_dir: x is a relative path", id="a relative run_dir"),
        pytest.param({"environ": {"STATE_DIR": "x/y"}}, "state_dir: x/y is a relative", id="a relative state_dir"),
        pytest.param({"toml": "recipes = ['x']"}, "recipes: x is a relative", id="relative recipes"),
        pytest.param({"toml": "[slurm]\nbin_dir = 'x'"}, "slurm.bin_dir: x is a relative", id="a relative bin_dir"),
        pytest.param({"toml": "[slurm]\nconf = 'x'"}, "slurm.conf: x is a relative", id="a relative slurm.conf"),
        pytest.param({"toml": "[apptainer]\ncommand = 'x/y'"}, "apptainer.command: x/y is a rel", id="a command"),
        pytest.param({"toml": "[api]\nadmin_key_file = 'x'"}, "x is a relative", id="a relative key file"),
        pytest.param({"toml": "state_dir = 5"}, "5 is no path", id="a number for a path"),
        pytest.param({"environ": {"STATE_DIR": ""}}, "'' is no path", id="an empty path"),
        pytest.param(
            {"environ": {"STATE_DIR": "~nobody-here/x"}}, "state_dir: ~nobody-here/x is no", id="no such user"
        ),
        pytest.param({"toml": "[api]\nadmin_key_file = '~no-one/x'"}, "~no-one/x is no path here", id="nobody's key"),
        pytest.param({"toml": "[slurm]\nconf = '~no-one/x'"}, "~no-one/x is no path here", id="nobody's slurm.conf"),
        pytest.param({"flags": {"api.port": "http"}}, "the flag for api.port has a bad value, 'http'", id="flag"),
        pytest.param(
            {"environ": {"API_PORT": "http"}},
            "the environment variable AI_FACTORY_API_PORT has a bad value",
            id="variable",
        ),
        pytest.param(
            {"environ": {"LOG_LEVEL": "loud"}}, "AI_FACTORY_LOG_LEVEL has a bad value, 'loud'", id="no choice"
        ),
        pytest.param({"flags": {"slurm.port_range": "1"}}, "$.slurm.port_range", id="one port"),
        pytest.param({"flags": {"slurm.port_range": "a,b"}}, "$.slurm.port_range[0]", id="no ports"),
        pytest.param({"flags": {"slurm.port_range": "²,³"}}, "$.slurm.port_range[0]", id="odd digits"),
        pytest.param({"flags": {"slurm.port_range": "0,70000"}}, "$.slurm.port_range[0]", id="no such ports"),
        pytest.param(
            {"flags": {"slurm.port_range": "9,8"}}, "slurm.port_range must run from low to high", id="reverse"
        ),
        pytest.param({"flags": {"api.port": "70000"}}, "$.api.port", id="no such port"),
        pytest.param({"flags": {"controller.workers": "0"}}, "$.controller.workers", id="nobody works"),
        pytest.param({"flags": {"controller.lease": "0"}}, "$.controller.lease", id="no time"),
        pytest.param({"flags": {"controller.lease": "nan"}}, "$.controller.lease", id="no number"),
        pytest.param({"flags": {"controller.resync": "inf"}}, "$.controller.resync", id="never"),
        pytest.param({"flags": {"controller.absence_grace": "-1"}}, "$.controller.absence_grace", id="before now"),
        pytest.param({"flags": {"slurm.command_timeout": "0"}}, "$.slurm.command_timeout", id="no patience"),
    ],
)
def test_a_mistake_is_named(read: Load, sources: dict[str, Any], words: str) -> None:
    assert words in refusal(read, **sources)


@pytest.mark.parametrize("character", list("\n\r,:\\\"'$`% "))
def test_the_run_dir_is_safe_in_binds_scripts_and_patterns(read: Load, character: str) -> None:
    assert "run_dir" in refusal(read, flags={"run_dir": f"/shared/a{character}b"})


def test_a_configuration_file_of_nobodys() -> None:
    for sources in ({"config": "~no-one/x", "environ": {}}, {"environ": {PREFIX + "CONFIG": "~no-one/x"}}):
        with pytest.raises(SettingsError, match="~no-one/x is no path here"):
            load(**sources)


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert load(environ={}, config="/dev/null").state_dir == Path("~").expanduser() / ".local/state/ai-factory"
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    for config in (None, "/dev/null"):
        with pytest.raises(SettingsError, match="Set HOME"):
            load(environ={}, config=config)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SettingsError, match="can't be read"):
            load(config=path, environ={})
    blob = tmp_path / "blob.toml"
    blob.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not valid TOML"):
        load(config=blob, environ={})


# A key that is required over TCP


def test_a_required_key_must_be_there(read: Load) -> None:
    said = refusal(read, toml="[api]\nrequire_key = true")
    assert "api.require_key" in said
    assert "set api.admin_key_file" in said
    assert read("[api]\nrequire_key = true\nadmin_key_file = '/k'").api.require_key


def test_a_state_dir_that_is_too_long_for_a_socket_is_refused_where_one_is_made(read: Load) -> None:
    longest = "/" + "ä" * ((107 - len("/api.sock") - 1) // 2) + "x"
    assert len(f"{longest}/api.sock".encode()) == 107
    required = "[api]\nrequire_key = true\nadmin_key_file = '/k'"
    for state_dir, toml in ((longest, required), (longest + "x", "")):
        read(f"state_dir = '{state_dir}'\n{toml}")
    said = refusal(read, toml=f"state_dir = '{longest}x'\n{required}")
    assert "has 108 bytes, and may have 107" in said
    assert "state_dir" in said
