"""How many examples a property is tried on: some in `make test`, twenty times as many in `make proof`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SOME = 25
"""Where a property says nothing else."""
TIMES = 20


def register() -> None:
    """Make the profiles. In none of them does it matter how long a busy machine takes."""
    patient = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("test", max_examples=SOME, **patient)
    settings.register_profile("proof", max_examples=TIMES * SOME, derandomize=False, print_blob=True, **patient)
    settings.load_profile("test")


def examples(usual: int) -> int:
    """Return how many a property gets that gets so many in `make test`."""
    return usual * TIMES if settings.get_current_profile_name() == "proof" else usual
