"""Faults, users and time drawn by Hypothesis, which also shrinks what it finds to the fewest steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.examples import examples
from tests.simulation.adapters import BOUNDARIES
from tests.simulation.faults import FAULTS
from tests.simulation.world import Plan, ViolationError, World

EXAMPLES = examples(10)
STEPS = 30
MOST_MOVES = 60
"""Until a controller comes to a boundary; some are rarely come to."""


class Violated(AssertionError):
    """An invariant does not hold, in words that Hypothesis can report."""


class Schedule(RuleBasedStateMachine):
    """One world. Its invariants are checked after each of its moves; at the end everything must be as wanted."""

    world: World

    @initialize(
        seed=st.integers(0, 2**32),
        services=st.integers(1, 3),
        controllers=st.integers(1, 2),
        has_accounting=st.booleans(),
    )
    def begin(self, seed: int, services: int, controllers: int, has_accounting: bool) -> None:
        self.world = World(Plan(seed=seed, services=services, controllers=controllers))
        self.world.slurm.has_accounting = has_accounting
        self.world.user_action()
        self.go(40)

    @rule(fault=st.sampled_from(FAULTS), moves=st.integers(0, 20))
    def something_goes_wrong(self, fault: Callable[[World], None], moves: int) -> None:
        self.world.fault(fault)
        self.go(moves)

    @rule(moves=st.integers(0, 20))
    def somebody_changes_something(self, moves: int) -> None:
        self.world.user_action()
        self.go(moves)

    @rule(moves=st.integers(1, 60))
    def time_goes_on(self, moves: int) -> None:
        self.go(moves)

    @rule(
        boundary=st.sampled_from(BOUNDARIES),
        how=st.sampled_from(("crash", "pause")),
        which=st.integers(0, 1),
    )
    def a_controller_is_stopped_at_a_boundary(self, boundary: str, how: str, which: int) -> None:
        controller = self.world.controllers[which % len(self.world.controllers)]
        controller.trap = boundary, how
        for _ in range(MOST_MOVES):
            if controller.trap is None:
                return
            self.go(1)

    def go(self, moves: int) -> None:
        try:
            for _ in range(moves):
                self.world.move()
        except ViolationError as violation:
            raise Violated(str(violation)) from None

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.world.settle()
        except ViolationError as violation:
            raise Violated(str(violation)) from None
        finally:
            self.world.close()


def search(examples: int = EXAMPLES, phases: Collection[Phase] = tuple(Phase)) -> None:
    """Let Hypothesis search; raises what it found."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Schedule,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """What controllers would log of all these troubles helps nobody."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.hypothesis
def test_drawn_schedules() -> None:
    search()
