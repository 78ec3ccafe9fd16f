"""The grammar of the commands about people's keys."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

from api.cli.api_keys.limits import LIMITS
from api.cli.parser import Commands, Parser, command, group

_SCOPES = ("infer", "read", "write", "publish", "admin")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def add(commands: Commands) -> None:
    """Add api-keys."""
    keys = group(commands, "api-keys", "keys of those who use the API: what they send to ask models, or more",
                 "api-keys create laptop --owner alice", "api-keys list", "api-keys revoke k3x9q2ab")  # fmt: skip
    create = command(
        keys, "create", "api_keys.make:create", "make a key, and write its secret, which is never shown again",
        "api-keys create laptop --owner alice  # asks every model, for 90 days",
        "api-keys create notebooks --owner course-7 --model qwen --expires 30d >notebooks.key",
        "api-keys create course --owner course-7 --requests-per-minute 60 --requests-at-once 4",
        "api-keys create dashboard --scope read --expires never",
        "api-keys create deploy --owner alice --project course-7 --scope write --recipe inference/vllm",
        formats=("table", "json"), is_local=False,
        more="Scopes: infer asks models; read looks at services; write changes them, which means running containers as "
        "the operator; publish, beside write, publishes them to everybody; admin is for keys, and all else.",
    )  # fmt: skip
    create.add_argument("name", metavar="NAME", help="what it is for")
    create.add_argument("--owner", metavar="WHO", help="whose it is; default: NAME")
    create.add_argument("--scope", dest="scopes", action="append", metavar="SCOPE",
                        choices=_SCOPES,
                        help="what it opens, as below; several times for several (infer)")  # fmt: skip
    create.add_argument("--model", dest="models", action="append", metavar="MODEL",
                        help="a model that it may ask for; several times for several; default: all")  # fmt: skip
    create.add_argument("--project", metavar="PROJECT", help="in which what it makes is, and whose services it sees")
    create.add_argument("--recipe", dest="recipes", action="append", metavar="RECIPE",
                        help="a recipe that it may launch; several times for several; default: all")  # fmt: skip
    for limit, what in LIMITS.items():
        create.add_argument(f"--{limit.replace('_', '-')}", type=_number, metavar="N",
                            help=f"at most so many {what}; default: no limit")  # fmt: skip
    create.add_argument("--expires", type=_duration_or_never, default=90 * _UNITS["d"], metavar="AFTER",
                        help="how long it is good: 90d, 12h, never (90d)")  # fmt: skip
    command(
        keys, "list", "api_keys.list:list_", "list the keys, the newest last",
        "api-keys list",
        "api-keys list -o json",
        formats=("table", "wide", "json", "name"), is_local=False,
    )  # fmt: skip
    revoke = command(
        keys, "revoke", "api_keys.revoke:revoke", "have a key open nothing any more; what is served under it ends",
        "api-keys revoke k3x9q2ab", is_local=False,
    )  # fmt: skip
    _id(revoke)
    rotate = command(
        keys, "rotate", "api_keys.make:rotate", "make a key in a key's place, good for as long, and write its secret",
        "api-keys rotate k3x9q2ab",
        "api-keys rotate k3x9q2ab --grace 2h  # the old one goes on for two hours",
        formats=("table", "json"), is_local=False,
    )  # fmt: skip
    _id(rotate)
    rotate.add_argument("--grace", type=_duration, default=0.0, metavar="FOR",
                        help="how long the old key goes on: 2h, 30m (not at all)")  # fmt: skip
    token = command(
        commands, "token", "api_keys.token:token", "print a key for some hours, which is signed and kept by nobody",
        "token  # export OPENAI_API_KEY=$(ai-factory token)",
        "token --scope infer --scope read --expires 30m",
        formats=("table", "json"), is_local=False,
        more="It opens what the scopes name (infer), as your own, and ends with the key with which it was asked for.",
    )  # fmt: skip
    token.add_argument("--scope", dest="scopes", action="append", metavar="SCOPE", choices=_SCOPES,
                       help="what it opens, of what you may do; several times for several (infer)")  # fmt: skip
    token.add_argument("--expires", type=_duration, default=12 * _UNITS["h"], metavar="AFTER",
                       help="how long it is good, at most 12h (12h)")  # fmt: skip


def _id(parser: Parser) -> None:
    parser.add_argument("key", metavar="ID", help="the key's id, as `api-keys list` shows it")


def _duration(text: str) -> float:
    """Read a duration in seconds; raises `ArgumentTypeError`."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if match is None:
        raise ArgumentTypeError(f"{text!r} is no duration: write 90d, 12h, 30m or 20s")
    return int(match[1]) * _UNITS[match[2]]


def _number(text: str) -> int:
    """Read a number from 1 on; raises `ArgumentTypeError`."""
    if re.fullmatch(r"[1-9]\d{0,9}", text) is None:
        raise ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _duration_or_never(text: str) -> float | None:
    return None if text == "never" else _duration(text)
