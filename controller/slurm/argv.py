"""The command lines: pure, each value one argv element. Nothing here goes through a shell.

Facts about the options are from squeue(1), sacct(1), sinfo(1), sbatch(1), scancel(1), scontrol(1), and measured with
22.05.
"""

from __future__ import annotations

from collections.abc import Collection

from api.contract.gpus import name_of
from api.contract.job.folder import STDERR, STDOUT
from api.contract.launch import Resources, Submission

LIST_FIELDS = ("%A", "%T", "%B", "%S", "%e", "%j", "%r", "%l")
"""Id, state, batch host, start, end, name, reason, time limit (squeue(1)). `%A` is a number for parts of arrays too;
`%B` is the host of the batch script, which need not be the first of the node list, and `n/a` while there is none."""

ACCOUNTING_FIELDS = ("JobIDRaw", "State", "ExitCode", "Reason", "NodeList", "Start", "End", "JobName")
"""As `sacct --helpformat` names them."""

ADDRESS_FIELDS = ("%N", "%o")
"""Node name and address (sinfo(1))."""

NODE_FIELDS = ("%N", "%T")
"""Node name and state in its long form (sinfo(1))."""

MOST_NAMED = 500
"""Nodes that are named in one sinfo; of more all nodes are asked for."""

LIMITS = "--propagate=NONE"
"""Limits are the node's. sbatch's default hands on those of the process that submits (slurm.conf(5),
PropagateResourceLimits), and a daemon's differ from a login shell's: 8 MB of locked memory, where RDMA needs more."""

COMMENT_LENGTH = 200
"""Characters of a comment that are sent; Slurm refuses comments above 1,024 bytes."""


def make_mark(word: str) -> str:
    """Return what is put behind every field: a control character around a word drawn afresh by the caller.

    Values are not escaped, and names may hold anything, newlines and control characters too (measured), so that a
    fixed mark could be forged by a job's name. Raises ValueError for a word that squeue would read as format.
    """
    if not (word.isascii() and word.isalnum()):
        msg = f"a mark must be made of letters and digits, not {word!r}"
        raise ValueError(msg)
    return f"\x1f{word}\x1f"


def list_command(mark: str) -> tuple[str, ...]:
    """Return the one listing of this user's jobs in every state that squeue still holds.

    `--all` shows jobs in hidden partitions too; `--local` keeps other clusters of a federation out. The header is
    asked for, here as in the other listings: squeue writes it once slurmctld has answered, so it tells a listing
    without jobs from no listing at all.
    """
    fields = "".join(field + mark for field in LIST_FIELDS)
    return ("squeue", "--me", "--all", "--local", "--states=all", f"--format={fields}")


def accounting_command(job_ids: Collection[int], uid: int, mark: str) -> tuple[str, ...]:
    """Return the question to accounting about some jobs of this user; one row a job, the newest under its number.

    With `--jobs` and no `--starttime` sacct looks as far back as there is anything, and at jobs that never became
    eligible too. `--parsable` ends every field with the delimiter, which may be several characters (measured).
    """
    ids = ",".join(str(job_id) for job_id in sorted(job_ids))
    return (
        "sacct", "--parsable", "--allocations", "--local", f"--user={uid}", f"--jobs={ids}",
        f"--delimiter={mark}", f"--format={','.join(ACCOUNTING_FIELDS)}",
    )  # fmt: skip


def address_command(mark: str) -> tuple[str, ...]:
    """Return the question for every node's address; a node shows once for each of its partitions."""
    fields = "".join(field + mark for field in ADDRESS_FIELDS)
    return ("sinfo", "--all", "--local", "--Node", f"--format={fields}")


def node_command(nodes: Collection[str], mark: str) -> tuple[str, ...]:
    """Return the question for the states of some nodes; names that Slurm does not know give no row (measured)."""
    fields = "".join(field + mark for field in NODE_FIELDS)
    which = (f"--nodes={','.join(sorted(nodes))}",) if len(nodes) <= MOST_NAMED else ()
    return ("sinfo", "--all", "--local", "--Node", *which, f"--format={fields}")


def cancel_command(token: str, job_id: int) -> tuple[str, ...]:
    """Return the cancellation of the job that has both this name and this id (both must match; measured)."""
    return ("scancel", f"--name={token}", str(job_id))


def reservations_command() -> tuple[str, ...]:
    """Return the question for all reservations that this user may see, one a line (scontrol(1))."""
    return ("scontrol", "--local", "--oneliner", "show", "reservation")


def shorten_command(token: str, uid: int, minutes: int) -> tuple[str, ...]:
    """Return the change of the time limit of this user's jobs of that name.

    By the name: an id may be another job's by now, and with both of them the name is what is set. Without a user it
    would be the jobs of all of them (scontrol(1); measured). A user may lower the limit of his own jobs.
    """
    return ("scontrol", "update", f"JobName={token}", f"UserID={uid}", f"TimeLimit={minutes}")


def submit_command(job: Submission) -> tuple[str, ...]:
    """Return the submission of a job.

    Where an option is given twice, sbatch takes the last (measured, also for `--dependency`), so what the protocol
    rests on comes after what was asked for, and the singleton last of all. Raises ValueError where a value can't be
    handed to sbatch.
    """
    return ("sbatch", *submit_options(job), job.script, *job.arguments)


def submit_options(job: Submission) -> tuple[str, ...]:
    """Return the options alone; raises ValueError as `submit_command` does."""
    return (*_asked_for(job.resources), *_kept_off(job), *_fixed(job), *_protocol(job))


def _asked_for(resources: Resources) -> list[str]:
    """Return the resources, extra options first. `None` leaves a thing to Slurm.

    Not `--time-min`: with it a job begins at once with no more than that
    (docs/decisions/jobs-are-shortened-by-the-controller.md).
    sbatch refuses `--cpus-per-task` beside `--cpus-per-gpu`, and more than one of the three that ask for memory.
    """
    extra = {name_of(option) for option in resources.extra_options}
    options = [*resources.extra_options, f"--nodes={resources.nodes}"]
    if "--propagate" not in extra:
        options.append(LIMITS)
    if resources.cpu is not None and "--cpus-per-gpu" not in extra:
        options.append(f"--cpus-per-task={resources.cpu}")
    if resources.time_limit is not None:
        options.append(f"--time={resources.time_limit}")
    if resources.memory_mb is not None and not extra & {"--mem-per-cpu", "--mem-per-gpu"}:
        options.append(f"--mem={resources.memory_mb}M")
    gres = [value for value in (_gpus(resources), resources.gres) if value]
    if gres:
        options.append(f"--gres={','.join(gres)}")
    for name in ("partition", "account", "qos", "constraint", "reservation"):
        value = getattr(resources, name)
        if value is not None:
            options.append(f"--{name}={value}")
    return options


def _kept_off(job: Submission) -> list[str]:
    """Return the nodes to keep a job off, beside those that were asked to be left out: the last option counts."""
    asked = [option.partition("=")[2] for option in job.resources.extra_options if name_of(option) == "--exclude"]
    return [f"--exclude={','.join((*asked[-1:], *job.exclude))}"] if job.exclude else []


def _gpus(resources: Resources) -> str:
    """Return the GPUs as a generic resource, of a certain type if one is asked for."""
    if resources.gpu == 0:
        return ""
    return ":".join(("gpu", *([resources.gpu_type] if resources.gpu_type else []), str(resources.gpu)))


def _fixed(job: Submission) -> list[str]:
    """Return what is the same for every job.

    `--export=ALL` means the environment of the sbatch process, which `controller.slurm.environment` makes from a
    list of names. `NONE`, and naming variables, makes slurmd run a login shell on the node for the user's environment
    first (SLURM_GET_USER_ENV), which may hang on a slow home; `NIL` does not, but is not known to 22.05, which takes
    it for a variable's name.
    """
    logs = [f"{literal_path(job.folder)}/{name}" if job.keeps_logs else "/dev/null" for name in (STDOUT, STDERR)]
    return [
        f"--output={logs[0]}",
        f"--error={logs[1]}",
        "--open-mode=append",
        f"--chdir={_plain(job.folder)}",
        f"--comment={one_line(job.comment)}",
        "--export=ALL",
        "--parsable",
    ]


def _protocol(job: Submission) -> list[str]:
    """Return what submitting exactly once rests on, and the warning before the time limit (to the script alone).

    All dependencies between which a comma stands must hold (sbatch(1)).
    """
    warning = [f"--signal=B:USR1@{min(job.warning, 65535)}"] if job.warning > 0 else []
    awaited = f"afterany:{job.after}," if job.after is not None else ""
    return [*warning, "--no-requeue", f"--job-name={job.token}", f"--dependency={awaited}singleton"]


def literal_path(path: str) -> str:
    """Escape a path for `--output` and `--error`, where `%` begins a replacement ("filename pattern" of sbatch(1)).

    Raises ValueError for a backslash, which would switch all replacements off and vanish from the name itself.
    """
    if "\\" in path:
        msg = f"Slurm can't write to a path with a backslash: {path!r}; choose another folder"
        raise ValueError(msg)
    return _plain(path).replace("%", "%%")


def _plain(path: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        msg = f"not an absolute path without control characters: {path!r}; choose another folder"
        raise ValueError(msg)
    return path


def one_line(text: str) -> str:
    """Return a text fit for `--comment`: printable, one line, not too long."""
    return "".join(c if c.isprintable() else " " for c in text)[:COMMENT_LENGTH]
