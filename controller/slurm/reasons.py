"""Why a job waits, in Slurm's words, what it means, and what its owner may do about it: one table.

The words are those of "JOB REASON CODES" of squeue(1) in 22.05, 24.11 and 26.05; details may stand behind them
("ReqNodeNotAvail, UnavailableNodes:node4"), and some are sentences ("Job's account not permitted to use …").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from controller.core.jobs import Bar, JobPhase

KEPT_BACK = "Dependency"
"""It waits for other jobs to end."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason means to whoever waits."""

    advice: str = ""
    """A sentence, and what to do."""
    bar: Bar | None = None
    """Set where the job never starts as things are."""
    is_shared: bool = False
    """Whether a limit on many jobs together holds it: others may use that up, or it alone may ask for more."""
    lacks_room: bool = False
    """Whether it begins once another job of its owner ends."""
    is_held: bool = False
    """Whether it begins only once it is released."""
    awaits_maintenance: bool = False
    """Whether it could not end before a maintenance begins."""


_LIMITS = "(sacctmgr show qos; sacctmgr show associations user=$USER)"

_JOBS = r"(QOS|Assoc)(Max|Grp)\w*Jobs\w*|(QOS|Association)JobLimit"
_HELD_BY_SLURM = "launch failed|JobHoldMaxRequeue|MaxRequeueExceeded|JobLaunchFailure"
_HELD = ("JobHeldUser", "JobHeldAdmin", _HELD_BY_SLURM)
_MAINTENANCE = "(ReqNodeNotAvail, ?)?Reserved for maintenance"
_SHARED = r"(QOS|Assoc)(Grp|Max)\w+|(QOS|Association)ResourceLimit"

# The first row whose expression the reason begins with decides.
_TABLE: tuple[tuple[str, Bar | None, str], ...] = (
    ("PartitionTimeLimit", Bar.OVER_LIMIT,
     "It asks for more time than its partition allows: lower resources.time_limit (sinfo -o '%P %l')."),
    (r"\w*MaxWall\w*|QOSTimeLimit|AssociationTimeLimit", Bar.OVER_LIMIT,
     f"It asks for more time than its QOS or account allows one job: lower resources.time_limit {_LIMITS}."),
    (r"(QOS|Assoc)Max\w*(PerJob|PerNode)\w*|MaxBBPerJob", Bar.OVER_LIMIT,
     f"It asks for more than its QOS or account allows one job: lower its resources, or choose another QOS {_LIMITS}."),
    ("MaxMemPerLimit", Bar.OVER_LIMIT,
     "It asks for more memory than its partition or cluster allows a job on a node: lower resources.memory "
     "(scontrol show partition)."),
    (r"QOSMin\w+", Bar.OVER_LIMIT,
     "It asks for less than its QOS demands of a job: raise its resources, or choose another QOS (sacctmgr show qos)."),
    (r"Job's \w+ not permitted|(Account|Group|QOS|Qos)NotAllowed|InvalidAccount|InvalidQOS", Bar.NOT_PERMITTED,
     "This account, QOS or group may not use that partition: choose another partition, account or QOS "
     "(scontrol show partition; sacctmgr show associations user=$USER)."),
    ("PartitionNodeLimit|PartitionConfig", Bar.UNSATISFIABLE,
     "It asks for nodes, resources or a time that its partition does not have or allow: lower its resources or "
     "resources.time_limit, or choose another partition (scontrol show partition)."),
    ("BadConstraints|ReservationDeleted|DependencyNeverSatisfied|DeadLine", Bar.UNSATISFIABLE,
     "What it asks for is not there, or not any more: change its constraint or reservation, or restart the service."),
    ("PartitionDown|PartitionInactive", None,
     "Its partition is closed at the moment: choose another one, or ask the site."),
    ("JobHeldUser", None,
     "It is held: `scontrol release` lets it go. If none of you held it, a submit filter of the site did: ask there."),
    ("JobHeldAdmin", None, "An administrator holds it: ask the site."),
    (_HELD_BY_SLURM, None,
     "Nodes failed to start it, so Slurm holds it: tell the site, and restart the service to have it sent anew."),
    (_MAINTENANCE, None,
     "Its nodes are reserved for a maintenance: it starts when that ends (scontrol show reservation), or with a time "
     "limit that ends before it begins, to which it is lowered where resources.time_min allows that."),
    (r"ReqNodeNotAvail.*[Rr]eserved|Reservation", None,
     "Its nodes are reserved: it starts when the reservation ends (scontrol show reservation), or with a lower "
     "resources.time_limit that ends before it begins."),
    ("ReqNodeNotAvail|NodeDown|Nodes required for job are", None,
     "Nodes that it needs are down, drained or taken by more urgent jobs (sinfo -R says why): it waits for them, or "
     "choose another partition."),
    (_JOBS, None,
     "The QOS or account allows no more jobs of this user at a time: it starts when another one ends; if "
     f"none runs, ask the site for a higher limit {_LIMITS}."),
    (r"(QOS|Assoc)Grp\w*(Minutes|Wall)\w*|\w*RunMinutes\w*|QOSUsageThreshold", None,
     "The budget of the account or QOS is used up, or would be by it: ask for less time, or for another account or QOS "
     "(sshare)."),
    (_SHARED, None,
     "With what others of its account, QOS or user hold it would be over a limit: it starts when they end; if none "
     f"runs, lower its resources {_LIMITS}."),
    ("Resources|Priority", None, "It waits for free nodes: `squeue --me --start` may say until when."),
    ("BeginTime", None, "It waits for its time to begin; after a requeue that is about two minutes."),
    ("Licenses", None, "It waits for licenses that other jobs hold (scontrol show licenses)."),
    ("Cleaning|Prolog|NodesDraining|Power", None, "Its nodes are being made ready."),
)  # fmt: skip
_ENDED = {
    "Prolog": "The site's prolog failed on its node: tell the site, whose slurmd log says why.",
    "LaunchFail": "Its node could not launch it: tell the site, whose slurmd log says why.",
    "BadConstraints": "What it asks for is not there: change its constraint or resources.",
    "SystemFailure": "Slurm itself failed: tell the site.",
}
_ROWS = tuple(
    (
        re.compile(pattern),
        Meaning(
            advice=advice,
            bar=bar,
            is_shared=pattern is _SHARED,
            lacks_room=pattern in (_JOBS, _SHARED),
            is_held=pattern in _HELD,
            awaits_maintenance=pattern is _MAINTENANCE,
        ),
    )
    for pattern, bar, advice in _TABLE
)
_NOTHING = Meaning()


@lru_cache(maxsize=1024)
def meaning(reason: str) -> Meaning:
    """Return what the reason of a pending job means."""
    return next((told for pattern, told in _ROWS if pattern.match(reason)), _NOTHING)


def advice(phase: JobPhase, reason: str, job_id: str) -> str:
    """Return what to do about a job that does not run, or nothing."""
    if phase is JobPhase.SUSPENDED:
        return f"`scontrol show job {job_id}` may say why."
    if phase is JobPhase.ENDED:
        return next((told for word, told in _ENDED.items() if word in reason), "")
    return meaning(reason).advice if phase is JobPhase.PENDING else ""
