"""How attempts fared on the nodes lately: read from the rows when a term begins, then kept by every pass."""

from __future__ import annotations

from collections.abc import Iterable

from controller.core.attempt import Attempt
from controller.core.bad_nodes import FAULTS, WINDOW, BadNode, Fault, Successes, bad_nodes
from controller.ports import Clock, Store


class NodeRecords:
    """What speaks for and against nodes."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._is_read = False
        self._faults: dict[str, Fault] = {}
        """By token."""
        self._last_success: dict[tuple[str, bool], float] = {}
        self._worked: dict[str, frozenset[str]] = {}

    async def learn(self) -> None:
        """Read how attempts fared before this term, once; raises what the database raises."""
        if not self._is_read:
            self.update(await self._store.placed(self._clock.now() - WINDOW))
            self._is_read = True

    def update(self, attempts: Iterable[Attempt]) -> None:
        """Take in attempts as they were recorded."""
        for attempt in attempts:
            if attempt.node is not None and attempt.ready_at is not None:
                self._take_success(attempt, attempt.node, attempt.ready_at)
            elif attempt.token not in self._faults and (fault := Fault.of(attempt)) is not None:
                self._faults[attempt.token] = fault

    def bad(self, *, has_gpus: bool, nodes: int) -> tuple[BadNode, ...]:
        """Return the nodes to keep jobs off that have GPUs, or have none. `nodes`: how many Slurm tells of."""
        if len(self._faults) < FAULTS:
            return ()
        now = self._clock.now()
        self._faults = {token: fault for token, fault in self._faults.items() if fault.at + WINDOW > now}
        successes = Successes(last=self._last_success, nodes=self._worked)
        met = {fault.node for fault in self._faults.values()} | {node for node, _ in self._last_success}
        return bad_nodes(self._faults.values(), successes, now, has_gpus=has_gpus, nodes=max(nodes, len(met)))

    def _take_success(self, attempt: Attempt, node: str, at: float) -> None:
        place = node, attempt.gpus > 0
        self._last_success[place] = max(at, self._last_success.get(place, at))
        if node not in self._worked.get(attempt.digest, ()):
            self._worked[attempt.digest] = self._worked.get(attempt.digest, frozenset()) | {node}
