"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("ai-factory-server")
    except PackageNotFoundError:
        return "(not installed)"
