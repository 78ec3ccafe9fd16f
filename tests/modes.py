"""Files' modes, which mean nothing to root."""

from __future__ import annotations

import os

RIGHTS = "-dac_override,-dac_read_search"


def bound_by_modes() -> tuple[str, ...]:
    """Return what to put before a command so that files' modes hold for it, even if we are root."""
    return ("setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}") if os.geteuid() == 0 else ()
