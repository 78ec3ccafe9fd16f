"""Run many schedules: `python -m tests.simulation.schedules COUNT [FIRST_SEED]`, or one again: `… replay SEED`.

With `sqlite` before these they run on the project's own store and a real SQLite file.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.sql import SqlDatabase
from tests.simulation.world import Plan, ViolationError, World

REPLAY = ".venv/bin/python -W ignore -m tests.simulation.schedules"


@dataclass
class Outcome:
    """What came of a run of schedules."""

    schedules: int = 0
    seconds: float = 0.0
    reached: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0
    """Virtual seconds from the last fault until all was as wanted, in the slowest of them."""
    database: str = ""

    def tell(self) -> str:
        """Return a line for each failure, with the command that replays it."""
        return "\n".join(
            f"seed {seed}: {what}\n    {REPLAY} {self.database}replay {seed}"
            for seed, what in sorted(self.failures.items())[:5]
        )


def plan_of(seed: int) -> Plan:
    """Derive a schedule's shape from its seed: some large, half with two controllers, with slots; some hand over.

    Half of those that do have no room for it at times: by a ceiling on GPUs, or a limit of Slurm's on jobs.
    """
    large, lanes = seed % 10 == 0, seed // 4 % 4 == 0
    ceiling, limit = seed % 30 == 0, 0
    if lanes and not large:
        ceiling, limit = seed // 16 % 4 == 0, (0, 2, 0, 0)[seed // 16 % 4]
    return Plan(
        seed=seed,
        services=3 if large else 1,
        controllers=1 + seed % 2,
        faults=14 if large else 6,
        user_actions=6 if large or lanes else 3,
        steps=1200 if lanes else 600 if large else 250,
        gpus=2 if ceiling else 0,
        jobs=limit,
        no_room="shrink" if seed // 64 % 4 else "gap",
        slots=seed // 2 % 2 == 0,
        lanes=lanes,
        surge=(1, 1, 2, 0)[seed // 7 % 4],
        pauses=seed % 8 == 2,
    )


def run(count: int, first: int = 0, *, stop_at_first: bool = False, sqlite: bool = False) -> Outcome:
    """Run schedules by their seeds."""
    logging.disable(logging.CRITICAL)
    outcome, began = Outcome(database="sqlite " if sqlite else ""), time.process_time()
    for seed in range(first, first + count):
        world = World(plan_of(seed), database=SqlDatabase() if sqlite else None)
        try:
            world.run()
            outcome.slowest = max(outcome.slowest, world.settled_after or 0.0)
        except ViolationError as violation:
            outcome.failures[seed] = str(violation)
        finally:
            world.close()
        outcome.schedules += 1
        outcome.reached += world.reached
        if outcome.failures and stop_at_first:
            break
    logging.disable(logging.NOTSET)
    outcome.seconds = time.process_time() - began
    return outcome


def play(scenario: Callable[[], None]) -> Outcome:
    """Play one world that was laid out by hand."""
    logging.disable(logging.CRITICAL)
    outcome = Outcome(schedules=1)
    try:
        scenario()
    except ViolationError as violation:
        outcome.failures[0] = str(violation)
    finally:
        logging.disable(logging.NOTSET)
    return outcome


def replay(seed: int, *, sqlite: bool = False) -> None:
    """Run one schedule again and print what happened, last things last."""
    logging.disable(logging.CRITICAL)
    world = World(plan_of(seed), trace=True, database=SqlDatabase() if sqlite else None)
    try:
        world.run()
        print("\n".join(world.trace), "\nit settled")
    except ViolationError as violation:
        print("\n".join(world.trace[-120:]), f"\n{violation}", sep="")
    finally:
        world.close()


def main(arguments: list[str]) -> int:
    """Run from the command line; the exit code is 1 if an invariant was violated."""
    sqlite = arguments[:1] == ["sqlite"]
    arguments = arguments[sqlite:]
    if arguments and arguments[0] == "replay":
        replay(int(arguments[1]), sqlite=sqlite)
        return 0
    numbers = [int(argument) for argument in arguments]
    outcome = run(*(numbers or [1000]), sqlite=sqlite)
    for what, count in sorted(outcome.reached.items(), key=lambda item: -item[1]):
        print(f"{count:10,}  {what}")
    print(f"{outcome.schedules:,} schedules, {len(outcome.failures)} violations, {outcome.seconds:.0f} s of CPU")
    print(f"the slowest was as wanted {outcome.slowest:.0f} s of its time after the last fault")
    print(outcome.tell())
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
