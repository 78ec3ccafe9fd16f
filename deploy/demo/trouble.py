"""How the demo says that it cannot go on."""

from __future__ import annotations

from pathlib import Path


class Trouble(Exception):  # noqa: N818
    """The demo cannot go on: what failed, why, where the log is and what to do."""

    def __init__(self, what: str, why: str = "", log: Path | None = None, advice: str = "") -> None:
        super().__init__(what)
        lines = [what]
        lines += [f"  why:  {why}"] if why else []
        lines += [f"  log:  {log}"] if log else []
        lines += [f"  do:   {advice}"] if advice else []
        self.text = "\n".join(lines)
