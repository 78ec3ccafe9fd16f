"""Whether the cluster matches what is wanted: each replica once, nothing else, and nothing of what is over.

A replica that is handed over may have two attempts, of which one is ready.
"""

from __future__ import annotations

from typing import Any

from tests.cluster.system import System

STATES = """
SELECT s.id AS service_id, s.generation, t.observed_generation, t.digest
FROM services s LEFT JOIN service_status t ON t.service_id = s.id
"""


def differences(system: System, wanted: dict[str, int]) -> list[str]:
    """Return what is not as wanted: `wanted` are the replicas by service, 0 for one that is stopped or deleted."""
    attempts = [dict(row) for row in system.sql("SELECT * FROM attempts")]
    found = [f"{a['token']} is closed but not gone" for a in attempts if a["closed_at"] and not a["gone_at"]]
    states = {row["service_id"]: dict(row) for row in system.sql(STATES)}
    owned: dict[int, str] = {}
    waiting: set[str] = set()
    for key, replicas in wanted.items():
        mine = [a for a in attempts if a["service_id"] == key and a["closed_at"] is None]
        successors = [a for a in mine if _hands_over(a, mine)]
        if sorted(a["replica"] for a in mine if a not in successors) != list(range(replicas)):
            found.append(f"{key}: open are {[a['token'] for a in mine]}, wanted {replicas}")
        if key not in states or states[key]["generation"] != states[key]["observed_generation"]:
            found.append(f"{key}: its newest generation was not looked at yet")
        else:
            found += [f"{a['token']} is outdated" for a in mine if a["digest"] != states[key]["digest"]]
        for number in range(replicas):
            if not any(a["ready_at"] and not a["unready_since"] for a in mine if a["replica"] == number):
                found.append(f"nothing of {key}-{number} is ready")
        waiting |= {a["token"] for a in successors if not a["ready_at"]}
        owned |= {a["job_id"]: a["token"] for a in mine}
    jobs = {job["id"]: job for job in system.jobs()}
    found += [f"the job {job} has no owner" for job in jobs.items() if owned.get(job[0]) != job[1]["name"]]
    found += [
        f"{token} has no running job"
        for job_id, token in owned.items()
        if token not in waiting and not _runs(jobs, job_id)
    ]
    return found


def _hands_over(attempt: dict[str, Any], open_: list[dict[str, Any]]) -> bool:
    """Whether it was opened beside another one of its replica that is open still."""
    older = [a for a in open_ if a["replica"] == attempt["replica"] and a["incarnation"] < attempt["incarnation"]]
    return attempt["beside"] is not None and len(older) == 1 and older[0]["lane"] != attempt["lane"]


def _runs(jobs: dict[int, Any], job_id: int) -> bool:
    return job_id in jobs and jobs[job_id]["state"] == "RUNNING"
