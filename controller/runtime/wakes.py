"""Which attempts a new snapshot gives reason to look at: pure."""

from __future__ import annotations

from collections.abc import Collection

from controller.core.model import Snapshot
from controller.ports import Tracked


def changed_tokens(before: Snapshot | None, after: Snapshot, tracked: Collection[Tracked]) -> set[str]:
    """Return the tokens whose jobs changed between two snapshots, those that are missed, and those being ended.

    A token that is not tracked counts too: the end of an orphan may be what its replica waits for.
    """
    jobs = before.jobs if before is not None else {}
    changed = {token for token in jobs.keys() | after.jobs.keys() if jobs.get(token) != after.jobs.get(token)}
    return changed | {t.token for t in tracked if not t.open or t.token not in after.jobs}
