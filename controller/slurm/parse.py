"""What the commands printed, read into the model: pure, strict about the frame, lenient about what only informs.

A text that is not what was asked for raises `GarbledError`; it is never read as fewer jobs than there are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from controller.core.jobs import Job, JobPhase, Maintenance
from controller.slurm.argv import ACCOUNTING_FIELDS, ADDRESS_FIELDS, LIST_FIELDS, NODE_FIELDS
from controller.slurm.hostlist import first_host
from controller.slurm.reasons import KEPT_BACK, advice, meaning
from controller.slurm.states import end_of, leaving, phase_of, state_word

Record = tuple[str, ...]
"""The fields of one line."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Put around words by what some sites have in the place of squeue (ECMA-48, SGR)."""
_SUBMITTED = re.compile(r"(?:Submitted batch job )?(\d+)(?:;[^;\s]+| on cluster \S+)?")
_TIME_LIMIT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_MAINTENANCE = "MAINT"
_NO_RESERVATIONS = "No reservations in the system"
_LASTS = frozenset({JobPhase.RUNNING, JobPhase.SUSPENDED})


class GarbledError(Exception):
    """The text is cut short, or not of the form that was asked for."""


def records(text: str, mark: str, width: int) -> list[Record]:
    """Split a listing in which every field is followed by the mark, and every record by a newline.

    The first record is the listing's header, which proves that it is one, and is left out. Raises GarbledError if
    there is none, or if a record is incomplete.
    """
    header, *rows = _split(text, mark, width) or [()]
    if not header or any(map(str.isdigit, header[0])):
        msg = f"it begins without a header{f': {_excerpt(text)}' if text.strip() else ', and says nothing'}"
        raise GarbledError(msg)
    return rows


def _split(text: str, mark: str, width: int) -> list[Record]:
    *fields, rest = COLOUR.sub("", text).split(mark)
    if rest.strip("\n") or len(fields) % width:
        msg = f"it ends in the middle of a record ({len(fields)} fields of {width} a record): {_excerpt(rest)}"
        raise GarbledError(msg)
    return [
        (fields[at].removeprefix("\n"), *fields[at + 1 : at + width])  # the newline is what ended the record before
        for at in range(0, len(fields), width)
    ]


def read_listing(text: str, mark: str, prefix: str, before: Mapping[Record, Job]) -> tuple[tuple[Record, Job], ...]:
    """Read the jobs whose name begins with the prefix out of squeue's answer to `argv.list_command`.

    Each is returned with the record that tells of it.
    A record that the listing before had word for word, as most are, gives the very same job again, at little cost.
    """
    found = (record for record in records(text, mark, len(LIST_FIELDS)) if record[5].startswith(prefix))
    return tuple((record, before.get(record) or _listed(record)) for record in found)


def _listed(record: Record) -> Job:
    job_id, state, host, start, end, name, reason, limit = record
    word = state_word(state)
    phase = phase_of(word)
    node = first_host(host)
    return Job(
        job_id=_number(job_id),
        token=name,
        phase=phase,
        state=word,
        end=end_of(word),
        reason="" if reason == "None" else reason,
        advice=advice(phase, reason, job_id),
        bar=meaning(reason).bar if phase is JobPhase.PENDING else None,
        is_kept_back=reason == KEPT_BACK,
        lacks_room=phase is JobPhase.PENDING and meaning(reason).lacks_room,
        is_held=phase is JobPhase.PENDING and meaning(reason).is_held,
        awaits_maintenance=phase is JobPhase.PENDING and meaning(reason).awaits_maintenance,
        time_limit=read_limit(limit) if phase is JobPhase.PENDING else None,
        begins_at=read_time(start) if phase is JobPhase.PENDING and node is None else None,
        node=node,
        # of jobs without a node these are forecasts, or the times of an earlier run
        started_at=read_time(start) if node is not None else None,
        ends_at=read_time(end) if node is not None and (phase in _LASTS or word == "CONFIGURING") else None,
    )


def parse_accounting(text: str, mark: str, prefix: str) -> tuple[Job, ...]:
    """Read the jobs whose name begins with the prefix out of sacct's answer to `argv.accounting_command`.

    For a moment sacct may call a job that ended at once `allocation`: such a row is left out like any stranger's.
    """
    rows = records(text, mark, len(ACCOUNTING_FIELDS))
    return tuple(_accounted(row) for row in rows if row[7].startswith(prefix))


def _accounted(row: tuple[str, ...]) -> Job:
    job_id, state, exit_code, reason, nodes, start, _end, name = row
    word = state_word(state)
    code, signal = _exit(exit_code)
    return Job(
        job_id=_number(job_id),
        token=name,
        phase=phase_of(word),
        state=word,
        end=end_of(word),
        reason="" if reason == "None" else reason,
        node=first_host(nodes),
        started_at=read_time(start),
        exit_code=code,
        signal=signal,
    )


def parse_addresses(text: str, mark: str) -> dict[str, str]:
    """Read node name -> address out of sinfo's answer to `argv.address_command`."""
    return {name: address for name, address in records(text, mark, len(ADDRESS_FIELDS)) if name and address}


def parse_leaving(text: str, mark: str) -> dict[str, str]:
    """Read the nodes that are being taken out of service, with their states, out of the answer to `argv.node_command`.

    A node shows once for each of its partitions.
    """
    found = {name: leaving(state) for name, state in records(text, mark, len(NODE_FIELDS))}
    return {name: state for name, state in found.items() if name and state}


def parse_maintenances(text: str) -> tuple[Maintenance, ...]:
    """Read the maintenance out of scontrol's answer to `argv.reservations_command`, the one that begins first before.

    Raises GarbledError for what is neither a list of reservations nor says that there is none to be seen, which is
    also what users are told from whom a site hides them (PrivateData; measured with 22.05).
    """
    found: list[Maintenance] = []
    for line in text.splitlines():
        told = dict(re.findall(r"(\w+)=(\S*)", line)[::-1])  # what comes first counts, a comment comes last
        if "ReservationName" in told and _MAINTENANCE not in told.get("Flags", "").split(","):
            continue
        begins_at, ends_at = read_time(told.get("StartTime", "")), read_time(told.get("EndTime", ""))
        if "ReservationName" in told and begins_at is not None and ends_at is not None:
            found.append(Maintenance(begins_at=begins_at, ends_at=ends_at))
        elif line.strip() not in ("", _NO_RESERVATIONS):
            msg = f"not a reservation: {_excerpt(line)}"
            raise GarbledError(msg)
    if not text.strip():
        msg = "it says nothing"
        raise GarbledError(msg)
    return tuple(sorted(found, key=lambda each: each.begins_at))


def parse_submission(text: str) -> int | None:
    """Return the id in what `sbatch --parsable` printed: `ID` or `ID;CLUSTER`, on a line of its own.

    A site's sbatch that drops the option says `Submitted batch job ID`, and `on cluster CLUSTER` behind it.
    """
    for line in text.splitlines():
        if match := _SUBMITTED.fullmatch(line.strip()):
            return int(match[1])
    return None


def read_time(text: str) -> float | None:
    """Return Unix seconds; `None` for `N/A`, `Unknown` and the like.

    The commands are asked for seconds (SLURM_TIME_FORMAT=%s); a Slurm that does not heed this prints times of UTC,
    which is the time zone that they are given.
    """
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def read_limit(text: str) -> float | None:
    """Return the seconds of a time limit in squeue's words (`4:00`, `1:00:00`, `3-01:03:00`).

    `None` for `UNLIMITED`, `NOT_SET` and the like.
    """
    match = _TIME_LIMIT.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _excerpt(text: str) -> str:
    return repr(text.strip()[:80])


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        msg = f"not a job id: {text[:80]!r}"
        raise GarbledError(msg)
    return int(text)


def _exit(text: str) -> tuple[int | None, int | None]:
    """Read `CODE:SIGNAL`; `None` where sacct says nothing, and for a signal of 0."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2]) or None) if match else (None, None)
