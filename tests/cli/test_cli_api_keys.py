"""`ai-factory api-keys`: the secret is written once, alone, and stands in no command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_tools import LiveApi, Run

from api.cli.rest.client import Client
from api.contract.exits import Exit
from api.web.key_secret import is_whole


@pytest.fixture(autouse=True)
def no_keys(live: LiveApi) -> None:
    live.sql("DELETE FROM api_keys")


def test_the_secret_is_written_once_and_alone(ask: Run) -> None:
    made = ask("api-keys", "create", "laptop", "--owner", "alice", "--scope", "infer", "--scope", "read",
               "--model", "qwen", "--expires", "12h")  # fmt: skip
    secret = made.out.strip()
    assert (made.code, is_whole(secret)) == (0, True)
    assert secret not in made.err
    assert "of alice: infer, read, models qwen, until " in made.err
    for output in ("table", "wide", "json", "name"):
        listed = ask("api-keys", "list", "-o", output)
        assert secret not in listed.out + listed.err
    assert secret[:10] in ask("api-keys", "list", "-o", "wide").out
    assert "alice  active  infer, read  qwen" in ask("api-keys", "list").out


def test_what_is_left_out_is_the_apis(ask: Run) -> None:
    made = json.loads(ask("api-keys", "create", "laptop", "-o", "json").out)
    assert (made["owner"], made["scopes"], made["models"]) == ("laptop", ["infer"], None)
    assert is_whole(made["secret"])
    assert json.loads(ask("api-keys", "create", "x", "--expires", "never", "-o", "json").out)["expires_at"] is None


def test_rotated_and_revoked(ask: Run, live: LiveApi) -> None:
    made = json.loads(ask("api-keys", "create", "laptop", "--scope", "read", "-o", "json").out)
    rotated = ask("api-keys", "rotate", made["id"], "--grace", "2h")
    for secret in (made["secret"], rotated.out.strip()):
        with Client(live.url, secret, is_chosen=True) as client:
            assert client.services() == []
    first, second = json.loads(ask("api-keys", "list", "-o", "json").out)
    assert (first["id"], first["state"], second["state"]) == (made["id"], "active", "active")
    for key in (first, second):
        assert ask("api-keys", "revoke", key["id"]).out == f"laptop ({key['id']}) of laptop is revoked.\n"
    assert [line.split()[3] for line in ask("api-keys", "list").out.splitlines()[1:]] == ["ended", "ended"]


def test_when_it_was_last_used(ask: Run, live: LiveApi) -> None:
    made = json.loads(ask("api-keys", "create", "laptop", "-o", "json").out)
    for output in ("table", "wide"):
        assert " never" in ask("api-keys", "list", "-o", output).out
    live.sql("INSERT INTO key_use (key_id, last_used_at) VALUES (?, 86400.0)", made["id"])
    assert json.loads(ask("api-keys", "list", "-o", "json").out)[0]["last_used_at"] == "1970-01-02T00:00:00.000+00:00"
    for output in ("table", "wide"):
        head, line = ask("api-keys", "list", "-o", output).out.splitlines()
        assert "LAST USED" in head
        assert " 1970-01-02" in line


def test_a_key_of_ones_own_comes_from_a_file(ask: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "own.key"
    file.write_text(ask("api-keys", "create", "laptop", "--scope", "read").out)
    file.chmod(0o600)
    monkeypatch.setenv("AI_FACTORY_API_ADMIN_KEY_FILE", str(file))
    assert ask("services", "list").code == 0
    refused = ask("api-keys", "list")
    assert refused.code == Exit.FAILED
    assert "This needs the scope admin" in refused.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("revoke", "nobody"), Exit.NOT_FOUND, "There is no such key. See: ai-factory api-keys list"),
        (("rotate", "nobody"), Exit.NOT_FOUND, "There is no such key"),
        (("create", "x", "--expires", "soon"), Exit.USAGE, "write 90d, 12h, 30m or 20s"),
        (("create", "x", "--scope", "root"), Exit.USAGE, "invalid choice: 'root'"),
        (("create", "x" * 161), Exit.FAILED, "1 to 160 printable characters"),
        (("create", "x", "--expires", "99999d"), Exit.FAILED, "seconds from 1"),
    ],
)
def test_what_is_refused(ask: Run, words: tuple[str, ...], code: Exit, said: str) -> None:
    ran = ask("api-keys", *words)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_an_empty_list_says_how_to_begin(ask: Run) -> None:
    assert ask("api-keys", "list").err == "No keys yet. Make one with: ai-factory api-keys create NAME\n"


def test_a_token_is_written_alone(ask: Run) -> None:
    secret = ask("token", "--scope", "read", "--expires", "1h").out
    assert secret.startswith("aift_")
    assert secret.count("\n") == 1
    assert json.loads(ask("token", "-o", "json").out)["scopes"] == ["infer"]
    assert ask("token", "--expires", "13h").code != 0
