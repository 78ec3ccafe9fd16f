"""`ai-factory apply`, `diff` and `export`: many services as files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, RefusedError, connect
from api.cli.services.declarations import (
    MARK,
    ServiceDeclaration,
    difference,
    of_api,
    patch,
    read,
    same,
    text_of,
    write_all,
)
from api.cli.services.rows import Service, tell_warnings
from api.contract.exits import Exit

SUFFIXES = (".yaml", ".yml", ".json")
"""Of the files that are taken from a folder."""
_COLOURS = {"+": "green", "-": "red", "@": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedChange:
    """What is to be done about one service, as it was when it was looked at."""

    before: ServiceDeclaration | None
    """`None`: it is not there."""
    after: ServiceDeclaration | None
    """`None`: it is to be deleted."""
    key: str = ""
    version: int = 0

    @property
    def name(self) -> str:
        """Of the service."""
        one = self.after or self.before
        assert one is not None
        return one.name

    @property
    def done(self) -> str:
        """What has been done, once it is carried out."""
        return "created" if self.before is None else "deleted" if self.after is None else "changed"


def apply(context: Context) -> Exit:
    """Make services what files say, once people have seen the difference and said yes."""
    arguments, console = context.arguments, context.console
    wanted = _wanted(context)
    with connect(context) as client:
        changes = _changes(context, client, wanted)
        _show(context, changes)
        unchanged = len(wanted) - sum(change.after is not None for change in changes)
        if arguments.dry_run:
            _try(context, client, changes)
        if not changes or arguments.dry_run:
            console.note(_summary(changes, unchanged, "would be " if arguments.dry_run else ""))
            return Exit.OK
        if not arguments.yes:
            _ask(context, _summary(changes, unchanged, "to be "))
        refusals = [text for change in changes if (text := _carried_out(context, client, change))]
    if refusals:
        raise CliError(f"{len(refusals)} of {len(changes)} changes were refused. {' '.join(refusals)}")
    return Exit.OK


def diff(context: Context) -> Exit:
    """Show what apply would change; exit 1 if it is anything."""
    wanted = _wanted(context)
    try:
        with connect(context) as client:
            changes = _changes(context, client, wanted)
    except CliError as error:
        # 1 means that something differs, to whoever asks.
        raise CliError(str(error), Exit.UNREACHABLE if error.code is Exit.FAILED else error.code) from error
    _show(context, changes)
    return Exit.FAILED if changes else Exit.OK


def export(context: Context) -> Exit:
    """Write services as files hold them."""
    with connect(context) as client:
        names = context.arguments.services or [str(service["id"]) for service in client.living()]
        found = [_living(client, name) for name in names]
    if context.output == "json":
        context.console.json([declared.document() for declared in found])
    elif found:
        context.console.text(write_all(found))
    return Exit.OK


def _living(client: Client, name: str) -> ServiceDeclaration:
    declared = client.declaration(name)
    if declared["deleted_at"] is not None:
        raise CliError(f"The service {name} was deleted.", Exit.NOT_FOUND)
    return of_api(declared)


def _wanted(context: Context) -> list[ServiceDeclaration]:
    """Read the files; raises `CliError` (usage)."""
    arguments = context.arguments
    if arguments.prune and not arguments.applied_as:
        raise CliError("--prune needs --as SET: it deletes services of that set, and no others.", Exit.USAGE)
    found: dict[str, str] = {}
    wanted: list[ServiceDeclaration] = []
    for file in _files(arguments.files):
        for declaration in read(text_of(file), file):
            if declaration.name in found:
                where = f"{found[declaration.name]} and {file}"
                raise CliError(f"The service {declaration.name} is declared twice, in {where}.", Exit.USAGE)
            found[declaration.name] = file
            wanted.append(declaration)
    if not wanted and not arguments.prune:
        raise CliError(f"There is no service in {', '.join(arguments.files)}.", Exit.USAGE)
    if arguments.access:
        wanted = [replace(one, access=one.access or arguments.access) for one in wanted]
    if arguments.applied_as:
        return [replace(one, config={**one.config, MARK: arguments.applied_as}) for one in wanted]
    return wanted


def _files(given: Sequence[str]) -> list[str]:
    """Return the files, those of a folder in its place, by name; raises `CliError` (usage) for a folder without any."""
    found: list[str] = []
    for file in given:
        if file == "-" or not Path(file).is_dir():
            found.append(file)
            continue
        inside = sorted(str(path) for path in Path(file).iterdir() if path.suffix in SUFFIXES and path.is_file())
        if not inside:
            raise CliError(f"There is no file {', '.join(f'*{suffix}' for suffix in SUFFIXES)} in {file}.", Exit.USAGE)
        found += inside
    return found


def _changes(context: Context, client: Client, wanted: Sequence[ServiceDeclaration]) -> list[PlannedChange]:
    """Compare what is wanted with what is declared; raises `CliError` for a change that can't be made."""
    changes = [change for one in wanted if (change := _change(client, one)) is not None]
    if context.arguments.prune:
        named = {one.name for one in wanted}
        surplus = [
            service
            for service in client.living()
            if service["config"].get(MARK) == context.arguments.applied_as and service["name"] not in named
        ]
        for service in surplus:
            declared = client.declaration(str(service["id"]))
            changes.append(PlannedChange(before=of_api(declared), after=None, key=str(service["id"])))
    return changes


def _change(client: Client, wanted: ServiceDeclaration) -> PlannedChange | None:
    try:
        declared = client.declaration(wanted.name)
    except CliError as error:
        if error.code is not Exit.NOT_FOUND:
            raise
        return PlannedChange(before=None, after=wanted)
    if declared["deleted_at"] is not None or declared["name"] != wanted.name:
        return PlannedChange(before=None, after=wanted)
    before = of_api(declared)
    if MARK in before.config and MARK not in wanted.config:  # applied without --as: it stays in its set
        wanted = replace(wanted, config={**wanted.config, MARK: before.config[MARK]})
    wanted = replace(wanted, access=wanted.access or before.access)
    if same(before, wanted):
        return None
    patch(before, wanted)
    return PlannedChange(before=before, after=wanted, key=str(declared["id"]), version=int(declared["version"]))


def _show(context: Context, changes: Sequence[PlannedChange]) -> None:
    if context.output == "json":
        found = [
            {
                "name": change.name,
                "before": change.before.document() if change.before else None,
                "after": change.after.document() if change.after else None,
            }
            for change in changes
        ]
        context.console.json(found)
        return
    for change in changes:
        for line in difference(change.before, change.after):
            context.console.line(context.console.paint(line, _COLOURS.get(line[:1], "")))


def _try(context: Context, client: Client, changes: Sequence[PlannedChange]) -> None:
    """Have the API look at what would be created; raises `CliError` for what it would refuse."""
    for change in changes:
        if change.before is None and change.after is not None:
            try:
                tell_warnings(context, client.try_create(change.after.request()), change.name)
            except RefusedError as error:
                raise CliError(f"{change.name}: {error}", error.code) from error


def _summary(changes: Sequence[PlannedChange], unchanged: int, how: str) -> str:
    counts = {word: sum(change.done == word for change in changes) for word in ("created", "changed", "deleted")}
    parts = [f"{number} {how}{word}" for word, number in counts.items() if number]
    return ", ".join([*parts, f"{unchanged} unchanged"]) + "."


def _ask(context: Context, summary: str) -> None:
    """Raise `CliError` unless people say yes."""
    if not sys.stdin.isatty() or "-" in context.arguments.files:
        raise CliError(f"{summary} Nobody can be asked here: give --yes to have it done.", Exit.USAGE)
    if not context.console.confirm(f"{summary} Shall it be?"):
        raise CliError("Nothing was changed.")


def _carried_out(context: Context, client: Client, change: PlannedChange) -> str:
    """Carry a change out and say so; return why it was refused, or "". One refusal does not hold up the others."""
    try:
        written = _action(client, change)()
    except CliError as error:
        if error.code not in (Exit.FAILED, Exit.NOT_FOUND):
            raise
        return f"{change.name}: {error}"
    if context.output != "json":
        context.console.line(f"{change.name} {change.done}")
    tell_warnings(context, written or {}, change.name)
    return ""


def _action(client: Client, change: PlannedChange) -> Callable[[], Service | None]:
    before, after = change.before, change.after
    if after is None:
        return lambda: client.delete(change.key)
    if before is not None:
        asked = patch(before, after)
        return lambda: client.change(change.key, asked, change.version)

    def create() -> Service:
        created = client.create(after.request())
        if after.desired_state != "running":
            client.change(str(created["id"]), {"desired_state": after.desired_state})
        return created

    return create
