"""`ai-factory services edit`: a service's declaration in an editor, and what of it was changed back to the API."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import fill

from api.cli.context import Context
from api.cli.errors import CliError
from api.cli.rest.client import Client, RefusedError, connect
from api.cli.services.declarations import ServiceDeclaration, of_api, patch, read, write
from api.cli.services.rows import Service, show, tell_warnings
from api.contract.configuration import process_environment
from api.contract.exits import Exit

CONFLICT = 412
MOST_ROUNDS = 20
"""An editor that is a script may never mend what is refused."""
HEAD = """\
# Change what is wanted of this service, save, and leave the editor. Lines with # in front are left out;
# a file without a change, or an empty one, changes nothing.
"""


def edit(context: Context) -> Exit:
    """Let a service's declaration be edited, until it is taken, or given up."""
    chosen_editor()
    with connect(context) as client:
        declared = client.declaration(context.arguments.service)
        if declared["deleted_at"] is not None:
            raise CliError(f"{declared['name']} was deleted. Create a new one.", Exit.NOT_FOUND)
        service = _edited(client, str(declared["id"]), int(declared["version"]), of_api(declared))
        if service is None:
            context.console.note(f"{declared['name']} is as it was: nothing was changed.")
            return Exit.OK
    tell_warnings(context, service)
    show(context, [service], service)
    return Exit.OK


def _edited(client: Client, key: str, version: int | None, before: ServiceDeclaration) -> Service | None:
    """Return the service as it is after the change; `None` if nothing was changed.

    Only what differs from the declaration as it was first shown is sent: others' changes since are kept.
    """
    descriptor, name = tempfile.mkstemp(prefix=f"{before.name[:64].replace('/', '_')}-", suffix=".yaml")  # mode 0600
    os.close(descriptor)
    file, text, complaint, is_conflict = Path(name), write(before), "", False
    for _ in range(MOST_ROUNDS):
        given = _with_head(text, complaint)
        file.write_text(given, encoding="utf-8")
        written_at = file.stat().st_mtime_ns
        _open_editor(file)
        came, is_saved = _read(file), file.stat().st_mtime_ns != written_at
        text = _without_head(came)
        if not text.strip() or (came == given and not (is_conflict and is_saved)):
            _give_up(file, complaint)
            return None
        try:
            asked = _asked(before, text)
            if not asked:
                file.unlink()
                return None
            changed = client.change(key, asked, version)
        except RefusedError as error:
            complaint, is_conflict = str(error), error.status == CONFLICT
            if is_conflict:
                version = None  # told once; what is sent then takes nothing from anybody
                complaint = (
                    "somebody else has changed this service since you began. Save once more to make your change "
                    "all the same: only what you have changed yourself is sent, what they changed is kept."
                )
        except CliError as error:
            if error.code not in (Exit.USAGE, Exit.FAILED):
                raise CliError(f"{error} Your text is kept in {file}.", error.code) from error
            complaint, is_conflict = str(error), False
        else:
            file.unlink()
            return changed
    raise CliError(
        f"It was refused {MOST_ROUNDS} times, at last: {complaint.rstrip('.')}. Your text is kept in {file}."
    )


def _asked(before: ServiceDeclaration, text: str) -> dict[str, object]:
    declarations = read(text, "the text")
    if len(declarations) != 1:
        raise CliError("the text must hold one service, in one document.", Exit.USAGE)
    return patch(before, declarations[0])


def _give_up(file: Path, complaint: str) -> None:
    """End without a change; a text that was refused is kept."""
    if complaint:
        raise CliError(f"Nothing was changed: {complaint.rstrip('.')}. Your text is kept in {file}.")
    file.unlink()


def _with_head(text: str, complaint: str) -> str:
    """Put what people should know above the text; `_without_head` takes it away again."""
    if not complaint:
        return f"{HEAD}\n{text}"
    return f"{HEAD}#\n{fill(complaint, 110, initial_indent='# It was refused: ', subsequent_indent='# ')}\n\n{text}"


def _without_head(text: str) -> str:
    """Leave out the comments at the top; those further down are the people's own."""
    lines = text.splitlines(keepends=True)
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    return "".join(lines)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CliError(f"The text is not UTF-8 any more. It is kept in {file}.", Exit.USAGE) from error


def chosen_editor() -> str:
    """Return the editor's command; raises `CliError` (usage) where none is set, and vi would find no terminal."""
    environment = process_environment()
    command = environment.get("VISUAL") or environment.get("EDITOR")
    if not command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CliError(
            "There is no terminal to edit in. Set EDITOR to a program that changes the file it is given, or use: "
            "ai-factory export, and apply",
            Exit.USAGE,
        )
    return command or "vi"


def _open_editor(file: Path) -> None:
    command = chosen_editor()
    try:
        ended = subprocess.run([*shlex.split(command), str(file)], check=False)
    except (OSError, ValueError) as error:
        file.unlink()
        raise CliError(f"The editor {command} can't be run: {error}. Set EDITOR to another.", Exit.USAGE) from error
    if ended.returncode != 0:
        raise CliError(f"The editor ended with {ended.returncode}: nothing was changed. The text is kept in {file}.")
