"""What a command that writes asks of the folders first, as the programs do."""

from __future__ import annotations

from api.cli.context import Context
from api.contract import trust


def require_trust(context: Context) -> None:
    """Say what others could read until now; raises `TrustError` where they may have put what they like."""
    for note in trust.require_trust(context.settings):
        context.console.note(note)
