"""What an empty database begins: a new installation, one that lost its database, or nothing until people say which."""

from __future__ import annotations

import re
from collections.abc import Sequence

from api.cli.errors import CliError
from api.contract.exits import Exit
from api.contract.identity import ALPHABET
from api.contract.traces import Traces

NEW = "new"
_ID = re.compile(f"[{ALPHABET}]{{1,16}}")


def installation_of(chosen: str | None) -> str | None:
    """Return the id that `--installation` asks for; `None`: a new one. Raises `CliError` (usage)."""
    if chosen is None or chosen == NEW:
        return None
    if not _ID.fullmatch(chosen):
        raise CliError(f"{chosen!r} is no installation's id, such as k3x9pq, nor the word {NEW}.", Exit.USAGE)
    return chosen


def notes_on(traces: Traces, chosen: str | None, database: str) -> Sequence[str]:
    """Return what people should know of an empty database that begins what was chosen.

    Raises `CliError` (set-up) where nothing was chosen, and the database of an installation is lost.
    """
    taken_up = installation_of(chosen)
    if taken_up is not None:
        return _on_taking_up(traces, taken_up)
    if chosen == NEW:
        return ()
    if traces.run_from_here:
        what, remedy = lost(traces, database)
        raise CliError(f"{what[0].upper()}{what[1:]}. Nothing was changed. {remedy}", Exit.SETUP)
    if traces.jobs:
        ids, folder = _and([path.name for path in traces.jobs]), traces.jobs[0].parent
        return (
            f"A new installation begins. {folder} holds jobs of another one, {ids}: if its database is lost, those "
            "that still run belong to nobody: ai-factory doctor",
        )
    if traces.key_file is not None:
        return (
            f"A new installation begins with the key that was there, {traces.key_file}. If nobody put it there for "
            "this, a database is lost, and jobs may run that belong to nobody: ai-factory doctor",
        )
    return ()


def lost(traces: Traces, database: str) -> tuple[str, str]:
    """Say that the database of an installation which was run from here is lost, and what to do."""
    ids = traces.run_from_here
    where = ", ".join(str(path) for one in ids for path in traces.paths_of(one))
    name = ids[0] if len(ids) == 1 else "ID"
    return (
        f"the database {database} is empty, but installation {_and(ids)} was run from here ({where}): its database is "
        "lost or elsewhere, and a new one would leave its jobs running without an owner",
        "Correct database_url; or restore a backup: ai-factory restore FILE; or, if no other controller runs it, take "
        f"its jobs up without one: ai-factory migrate --installation {name}; or leave them behind: "
        f"ai-factory migrate --installation {NEW}. "
        "See docs/operation.md, A lost database",
    )


def _on_taking_up(traces: Traces, installation: str) -> Sequence[str]:
    notes = [
        f"This is installation {installation} again, without services. Declare them under their old ids in SQL, and "
        "give them their jobs: ai-factory adopt --take. See docs/operation.md, A lost database",
    ]
    if traces.key_file is None:
        notes.append("Its key file is missing: put it back before you start anything, else its engines answer nobody.")
    return notes


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
