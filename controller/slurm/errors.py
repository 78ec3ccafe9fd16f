"""What a command's failure means: one table of Slurm's texts, and what to tell people.

The texts are those of slurm_strerror(3) and of the commands' option parsers, nearly alike in 22.05, 24.11 and 26.05.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from controller.core.attempt import SendOutcome
from controller.ports import SLURM_TIMEOUT
from controller.slurm.runner import Completed


class Trouble(StrEnum):
    """The classes of failure."""

    AMBIGUOUS = "ambiguous"
    """The request may or may not have been carried out, or may still be."""
    TRANSIENT = "transient"
    """Slurm, or what it needs, does not answer."""
    SETUP = "set-up"
    """This host is not set up to talk to Slurm."""
    RETRY_LATER = "retry later"
    """Slurm said not now; nothing was created."""
    PERMANENT = "permanent"
    """Slurm said no to what was asked."""
    REFUSED = "refused"
    """A plugin of the site said no in words of its own. That no job comes of it, looking has to settle."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One failure, classified."""

    trouble: Trouble
    reason: str
    """One CamelCase word, for programs."""
    said: str
    """The command, and what it said."""
    remedy: str = ""
    """What to do about it, where that is known."""

    @property
    def message(self) -> str:
        """What Slurm said, and what to do about it where that is known."""
        return f"{self.said}: {self.remedy}" if self.remedy else self.said


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: str
    """A regular expression, looked for in standard error without regard to case."""
    trouble: Trouble
    reason: str
    remedy: str


_CONTROLLER = "is slurmctld running and reachable from this host (scontrol ping)?"

# The first row that matches decides, so what leaves the outcome open stands above what settles it.
_TABLE = (
    _Row(
        "Zero Bytes were transmitted", Trouble.AMBIGUOUS, SLURM_TIMEOUT,
        "slurmctld gave no answer: is it overloaded (sdiag), or do munge's key and the clock of this host differ from "
        "those of its host (munge -n | ssh HOST unmunge)?",
    ),
    _Row(
        "Socket timed out|Message receive failure|\\(receive failure\\)|\\(send failure\\)"
        "|\\(shutdown failure\\)|Unexpected message received|Connection timed out (reading|writing)",
        Trouble.AMBIGUOUS, SLURM_TIMEOUT, "slurmctld took the request but gave no answer; is it overloaded (sdiag)?",
    ),
    _Row(
        "talking to (the )?database|slurmdbd|Unable to connect to database",
        Trouble.TRANSIENT, "AccountingDown", "is slurmdbd running (sacctmgr show cluster)?",
    ),
    _Row(
        "munge (encode|decode)|munged|authentication (credential|agent|error)|credential (invalid|expired|replayed)",
        Trouble.TRANSIENT, "MungeDown", "is munged running on this host, and its clock right (munge -n | unmunge)?",
    ),
    _Row(
        "Could not establish a configuration source|Unable to process configuration file"
        "|cannot stat file|Incompatible versions of client and server",
        Trouble.SETUP, "SlurmNotConfigured", "set slurm.conf, or SLURM_CONF, to the cluster's configuration file",
    ),
    _Row(
        "Unable to resolve|Unable to establish control machine", Trouble.TRANSIENT, "SlurmUnreachable",
        "this host does not know the name of slurmctld's host: correct SlurmctldHost in slurm.conf, or have the "
        "name resolved by DNS or /etc/hosts (getent hosts NAME)",
    ),
    _Row(
        "Unable to contact slurm controller|connect failure|Communication connection failure|Connection refused"
        "|No route to host|standby mode",
        Trouble.TRANSIENT, "SlurmUnreachable", _CONTROLLER,
    ),
    _Row(
        "Rate limit exceeded", Trouble.TRANSIENT, "SlurmRateLimited",
        "the site limits how often Slurm is asked (rl_enable); other programs of this user count too",
    ),
    _Row(
        "\\w*(Max|Grp)SubmitJob\\w*|MaxJobCount limit|job queue full|temporarily unable to accept job|create job record"
        "|Licenses currently unavailable",
        Trouble.RETRY_LATER, "SubmitLimit", "the submission is tried again when other jobs have ended; "
        "if none is there, ask the site for a higher limit (sacctmgr show associations user=$USER)",
    ),
    _Row(
        "Required partition not available|Required node not available|partition configuration not available now"
        "|submissions disabled|reservation not usable now|Requested nodes are busy",
        Trouble.RETRY_LATER, "NotAvailableNow", "the submission is tried again",
    ),
    _Row(
        "(QOS|Assoc)\\w*(Limit|PerJob|PerUser|PerAccount|PerNode)\\b",
        Trouble.PERMANENT, "OverLimit", "ask for less time or fewer resources, or for another `qos` or `account`",
    ),
    _Row(
        "violates accounting/QOS policy|breached requested QOS usage threshold",
        Trouble.RETRY_LATER, "PolicyLimit",
        "the submission is tried again; ask for less, or for another `qos` or `account`, if that does not help",
    ),
    _Row(
        "Invalid account|Invalid parent account",
        Trouble.PERMANENT, "InvalidAccount", "change `account` (sacctmgr show associations user=$USER), or `partition`",
    ),
    _Row(
        "Invalid partition name|No partition specified|not permitted to use this partition|nodes not in this partition",
        Trouble.PERMANENT, "InvalidPartition", "change `partition` (sinfo lists them)",
    ),
    _Row("Invalid qos", Trouble.PERMANENT, "InvalidQos", "change `qos` (sacctmgr show associations user=$USER)"),
    _Row(
        "generic resource|\\bgres\\b|GRES specification|gpu-bind|gpu-freq|did not request any GPU",
        Trouble.PERMANENT, "InvalidGres", "change `gpu`, `gpu_type` or `gres` (sinfo -o '%P %G' lists them)",
    ),
    _Row(
        "feature specification|Invalid constraint",
        Trouble.PERMANENT, "InvalidConstraint", "change `constraint` (sinfo -o '%P %f' lists the features)",
    ),
    _Row(
        "reservation is invalid|Access denied to requested reservation|reservation is in use",
        Trouble.PERMANENT, "InvalidReservation", "change `reservation` (scontrol show reservation)",
    ),
    _Row(
        "time limit is invalid|Time limit specification required|Invalid --time|Invalid time",
        Trouble.PERMANENT, "InvalidTime", "change `time_limit` (sinfo -o '%P %l' lists the partitions' limits)",
    ),
    _Row(
        "node configuration is not available|More processors requested|Node count specification|CPU count specification"
        "|Memory required by task|more tasks than available|Invalid node count|Invalid node name|Task count",
        Trouble.PERMANENT, "TooBig",
        "ask for fewer `nodes`, `cpu`, `memory` or `gpu`, or for another `gres`, `constraint` or `partition`",
    ),
    _Row(
        "other parameter too long|mutually exclusive|unrecognized --"
        "|Invalid (wckey|license|numeric|memory|count|distribution|user id|group id"
        "|Trackable RESource|\\w+ specification|--)|mcs_label",
        Trouble.PERMANENT, "InvalidOption", "change the option that Slurm names",
    ),
    _Row(
        "unrecognized option|unknown option|doesn't allow an argument|requires an argument|is ambiguous|invalid option",
        Trouble.PERMANENT, "UnrecognizedOption", "this Slurm does not know the option: take it out of `extra_options`",
    ),
    _Row(
        "Unable to open file|Batch script (is empty|contains)",
        Trouble.RETRY_LATER, "ScriptUnreadable", "the batch script of this installation can't be read on this host",
    ),
    _Row(
        "I/O error writing script/environment", Trouble.RETRY_LATER, "SlurmDiskFull",
        "slurmctld can't write to its StateSaveLocation: is that disk full? The submission is tried again",
    ),
    _Row(
        "cli_filter plugin terminated", Trouble.PERMANENT, "RefusedBySite",
        "a submit filter of the site (cli_filter) refuses it: change what it names, or ask the site",
    ),
    _Row(
        "Access/permission denied|Requested operation not supported|Requested operation is presently disabled",
        Trouble.PERMANENT, "PermissionDenied", "ask the site whether this user may submit and cancel jobs "
        "from this host (AllocNodes of the partition: scontrol show partition)",
    ),
    _Row(
        "Unspecified error", Trouble.REFUSED, "RefusedBySite",
        "a submit filter of the site (job_submit) refuses it: change what it names, or ask the site",
    ),
)  # fmt: skip

_REFUSALS = frozenset({Trouble.RETRY_LATER, Trouble.PERMANENT, Trouble.REFUSED})
"""What only a command that ended by itself can report: one that was killed was trying again."""

_GONE = re.compile("Invalid job id specified|already completing or completed|Job has already finished", re.IGNORECASE)

_NO_ACCOUNTING = re.compile("accounting storage is disabled", re.IGNORECASE)

_ERROR = re.compile(r"^(\w+: (error|fatal):|slurm_load_\w+( error)?:) ", re.MULTILINE)


def diagnose(completed: Completed) -> Diagnosis:
    """Say what the failure of a command means. A command that was killed leaves its outcome open."""
    said, killed = _said(completed), completed.exit_code is None
    verdict = _verdict(completed.stderr)
    for row in _TABLE:
        if re.search(row.pattern, verdict, re.IGNORECASE) and not (killed and row.trouble in _REFUSALS):
            return Diagnosis(row.trouble, row.reason, said, row.remedy)
    if killed:
        return Diagnosis(Trouble.AMBIGUOUS, SLURM_TIMEOUT, said, _CONTROLLER)
    return Diagnosis(Trouble.UNKNOWN, "SlurmFailed", said)


def reading_trouble(completed: Completed, *, empty: bool) -> Diagnosis | None:
    """Return what makes the answer of a reading command worthless, `None` if it can be used.

    Beside an answer and an exit code of 0, errors are noise: a configuration's odd line, partitions that the site
    hides (PrivateData). Another exit code counts whatever was printed, since a header stands there before its rows:
    only the 0 says that they are all there. Where no answer proves itself (`empty`), any error counts. (22.05's
    `squeue --json` ends so while slurmctld is down; its text form does not.)
    """
    if completed.exit_code == 0 and not (empty and _ERROR.search(completed.stderr)):
        return None
    return diagnose(completed)


def send_outcome(diagnosis: Diagnosis) -> SendOutcome:
    """Return what a failed sbatch means for its submission: unknown, unless Slurm is known to have refused."""
    if diagnosis.trouble is Trouble.PERMANENT:
        return SendOutcome.REJECTED
    if diagnosis.trouble is Trouble.RETRY_LATER:
        return SendOutcome.DEFERRED
    return SendOutcome.UNKNOWN


def cancel_trouble(completed: Completed) -> Diagnosis | None:
    """Return what kept scancel from its work, `None` if the job is told to end, is ending already or is no more."""
    is_gone = completed.exit_code is not None and bool(_GONE.search(completed.stderr))
    return None if completed.exit_code == 0 or is_gone else diagnose(completed)


def is_without_accounting(completed: Completed) -> bool:
    """Whether sacct says that the site keeps no accounting (AccountingStorageType unset or accounting_storage/none)."""
    return completed.exit_code is not None and bool(_NO_ACCOUNTING.search(completed.stderr))


def _verdict(stderr: str) -> str:
    """Return the part of standard error that decides.

    For sbatch this is Slurm's last word on the submission: what stands before it may echo what was asked for, or speak
    of a try that sbatch made again. Only which limit of a policy was hit is said before.
    """
    before, found, last = stderr.rpartition("Batch job submission failed:")
    return last if found and "policy" not in last else before + last


def _said(completed: Completed) -> str:
    """Return the command and the last lines that it printed as errors, on one line."""
    lines = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
    text = "; ".join(re.sub(r"^\w+: (error|fatal): ", "", line) for line in lines[-3:])
    if completed.exit_code is None:
        text = f"no answer in time, killed{': ' if text else ''}{text}"
    return f"{completed.command}: {text[:500] or f'exit code {completed.exit_code} without a word'}"
