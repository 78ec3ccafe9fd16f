"""`ai-factory services rollout`: how far a service's last change is, what was before; undo, pause and resume."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, connect, for_people
from api.cli.services.history import local
from api.cli.services.standing import STANDING, standing_rows
from api.cli.services.wait import wait_rolled_out
from api.cli.terminal.table import Column
from api.contract.exits import Exit

Rollout = Mapping[str, Any]

_STATES = {"complete": "green", "failed": "red", "stopped": "dim"}
_ROLLOUT = (
    Column("NAME", flexible=True),
    Column("GENERATION"),
    Column("STATE", colour=lambda word: _STATES.get(word, "yellow")),
    Column("UPDATED"),
    Column("READY"),
    Column("MESSAGE", flexible=True, below=True, whole=True),
)
_GENERATIONS = (
    Column("GENERATION"),
    Column("AT"),
    Column("WANTED", colour=lambda word: "green" if word == "now" else ""),
    Column("RECIPE", flexible=True),
    Column("CHANGED", flexible=True, below=True),
)
_WIDE = (*_GENERATIONS, Column("CONFIG"))


def status(context: Context) -> Exit:
    """Tell how far the last change is; with --wait, once it is through. Raises `CliError` if it is not to be."""
    name = context.arguments.service
    with connect(context) as client:
        rollout = wait_rolled_out(context, client, name, context.arguments.timeout) if context.arguments.wait else None
        _show(context, client.rollout(name) if rollout is None else rollout)
    return Exit.OK


def history(context: Context) -> Exit:
    """List what can be gone back to."""
    with connect(context) as client:
        kept = client.generations(context.arguments.service)
    if context.output == "json":
        context.console.json(kept)
    else:
        wide = context.output == "wide"
        context.console.table(_WIDE if wide else _GENERATIONS, [_generation(one, wide=wide) for one in kept], full=wide)
    return Exit.OK


def undo(context: Context) -> Exit:
    """Ask for what an earlier generation asked for."""
    generation = context.arguments.generation
    if generation is not None and not 1 <= generation < 2**31:
        raise CliError(f"--to takes a generation, a whole number from 1 on, not {generation}.", Exit.USAGE)
    with connect(context) as client:
        return _changed(context, client, client.undo(context.arguments.service, generation))


def pause(context: Context) -> Exit:
    """Hold changes back from what runs."""
    with connect(context) as client:
        _show(context, client.pause(context.arguments.service))
    return Exit.OK


def resume(context: Context) -> Exit:
    """Go on with what was held back."""
    with connect(context) as client:
        return _changed(context, client, client.resume(context.arguments.service))


def _changed(context: Context, client: Client, rollout: Rollout) -> Exit:
    if context.arguments.wait:
        rollout = wait_rolled_out(context, client, str(rollout["service_id"]), context.arguments.timeout)
    _show(context, rollout)
    return Exit.OK


def _show(context: Context, rollout: Rollout) -> None:
    """Write a rollout, and below it the attempts that stand for the replicas."""
    console = context.console
    if context.output == "json":
        console.json(rollout)
    elif context.output == "name":
        console.line(str(rollout["name"]))
    else:
        console.table(_ROLLOUT, [_row(rollout)])
        if rollout["attempts"]:
            console.line()
            console.table(STANDING, standing_rows(rollout["attempts"], time.time()))


def _row(rollout: Rollout) -> list[str]:
    replicas = rollout["replicas"]
    return [
        str(rollout["name"]),
        str(rollout["generation"]),
        str(rollout["state"]),
        f"{rollout['updated_replicas']}/{replicas}",
        f"{rollout['ready_replicas']}/{replicas}",
        for_people(str(rollout["message"])),
    ]


def _generation(one: Mapping[str, Any], *, wide: bool) -> list[str]:
    wanted, changed = "now" if one["is_wanted"] else "", ", ".join(one["changed"])
    cells = [str(one["generation"]), local(one["at"]), wanted, str(one["recipe_name"]), changed]
    return [*cells, json.dumps(one["config"], ensure_ascii=False)] if wide else cells
