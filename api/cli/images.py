"""`ai-factory images`: the container images in run_dir. The controller's own program answers; this shows it."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import Any

from api.cli.console import Column, duration
from api.cli.context import Context
from api.cli.exits import CliError, Exit

USUAL_DAYS = 30.0
"""For which an image has been unused when `prune` removes it, unless something else is said."""

_COLUMNS = (
    Column("KEY"),
    Column("IMAGE", flexible=True),
    Column("SIZE"),
    Column("MADE"),
    Column("USED"),
    Column("SERVICES", flexible=True),
)
_WIDE = (*_COLUMNS, Column("JOBS"), Column("SHA-256"), Column("FILE"))
_VERIFIED = (
    Column("KEY"),
    Column("IMAGE", flexible=True),
    Column("STATE", colour=lambda state: {"ok": "green", "damaged": "red"}.get(state, "yellow")),
    Column("MESSAGE", flexible=True),
)


def list_(context: Context) -> Exit:
    """List the images, and who uses them."""
    code, images = _ask(context, "list")
    console = context.console
    if images is None:
        return code
    if context.output == "json":
        console.json(images)
    elif context.output == "name":
        for image in images:
            console.line(image["key"])
    else:
        wide = context.output == "wide"
        rows = [_row(image, wide=wide) for image in images]
        console.table(_WIDE if wide else _COLUMNS, rows, full=wide)
    return Exit.OK


def make(context: Context) -> Exit:
    """Pull or build an image, unless it is there."""
    arguments = context.arguments
    options = [f"--where={arguments.where}"] if arguments.where else []
    options += ["--refresh"] if arguments.refresh else []
    code, image = _ask(context, "make", *options, "--", arguments.what)
    console = context.console
    if image is None:
        return code
    if context.output == "json":
        console.json(image)
    elif context.output == "name":
        console.line(image["key"])
    else:
        made = "is made" if image["made"] else "was there already; to make it anew: --refresh"
        console.line(f"{image['key']} ({origin(image)}, {size(image['size'])}) {made}.")
    return Exit.OK


def verify(context: Context) -> Exit:
    """Verify images; exit 1 if one is damaged, removed or not."""
    remove = ["--remove"] if context.arguments.remove else []
    code, found = _ask(context, "verify", *remove, "--", *context.arguments.keys)
    if found is None:
        return code
    damaged = [image for image in found if image["state"] == "damaged"]
    console = context.console
    if context.output == "json":
        console.json(found)
    else:
        console.table(_VERIFIED, [[i["key"], origin(i), i["state"], i["message"]] for i in found])
        for image in damaged:
            console.note(f"{image['key']}: {_remedy(image)}")
        console.note(f"{len(found)} verified, {len(damaged) or 'none'} damaged.")
    return code


def prune(context: Context) -> Exit:
    """Remove images that nothing uses."""
    days, dry = context.arguments.unused_for, context.arguments.dry_run
    if days is None:
        days = context.settings.images.keep_days or USUAL_DAYS
    if not 0 <= days < math.inf:
        raise CliError(f"--unused-for takes a number of days, not {days:g}.", Exit.USAGE)
    code, verdicts = _ask(context, "prune", f"--unused-for={days}", *(["--dry-run"] if dry else []))
    if verdicts is None:
        return code
    removed = [image for image in verdicts if image["removed"]]
    console = context.console
    if context.output == "json":
        console.json(verdicts)
    elif context.output == "name":
        for image in removed:
            console.line(image["key"])
    else:
        for image in verdicts:
            word = "kept" if not image["removed"] else "to be removed" if dry else "removed"
            console.line(f"{word}: {image['key']} ({origin(image)}, {size(image['size'])}): {image['why']}")
        freed = size(sum(image["size"] for image in removed))
        console.note(f"{len(removed) or 'None'} {'to be removed' if dry else 'removed'}, {freed}.")
    return Exit.OK


def origin(image: dict[str, Any]) -> str:
    """Return what an image was made of, in few words."""
    if image["source"] is not None:
        return str(image["source"])
    if image["definition"] is None:
        return "unknown"
    base = re.search(r"^\s*from\s*:\s*(\S+)", image["definition"], re.IGNORECASE | re.MULTILINE)
    return f"definition from {base[1]}" if base else "definition"


def size(number: float) -> str:
    """Return a number of bytes in a unit that leaves up to four digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _row(image: dict[str, Any], *, wide: bool) -> list[str]:
    services = "?" if image["services"] is None else ", ".join(image["services"])
    row = [image["key"], origin(image), size(image["size"]), _age(image["made_at"]), _age(image["used_at"]), services]
    if wide:
        jobs = "?" if image["jobs"] is None else ", ".join(image["jobs"])
        row += [jobs, image["sha256"] or "", image["path"]]
    return row


def _age(at: str) -> str:
    return duration(time.time() - datetime.fromisoformat(at).timestamp())


def _remedy(image: dict[str, Any]) -> str:
    if image["removed"]:
        return "damaged and removed; the next job makes it anew."
    again = f"ai-factory images pull --refresh {image['source']}" if image["source"] is not None else None
    return "damaged. " + (
        f"Make it anew, while jobs go on: {again}"
        if again
        else f"Remove it: ai-factory images verify {image['key']} --remove. The next job makes it anew."
    )


def _ask(context: Context, *arguments: str) -> tuple[Exit, Any]:
    """Have the controller's program answer; return its exit code and, read from JSON, its answer, `None` without one.

    What it tells people goes to standard error. Ctrl-C is passed on, and waited for: an image that is being made ends
    with all that belongs to it.
    """
    command = [sys.executable, "-m", "controller", "images", *arguments]
    with subprocess.Popen(
        command, env=context.child_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            answer = process.stdout.read()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
    code = Exit(process.returncode) if process.returncode in set(Exit) else Exit.FAILED
    return code, json.loads(answer) if answer else None
