"""The program itself killed under forty clients that follow and watch: `make bench-streams` in short."""

from __future__ import annotations

from pathlib import Path

from bench.streams import Trial, run

SHORT = Trial(
    services=8,
    followers=20,
    watchers=20,
    seconds=7,
    # All have to be back before they are cut off again: nearly 4 s from one restart to the next.
    events=((0.15, "rotated"), (0.29, "SIGKILL, rotated"), (0.85, "SIGTERM")),
)


def test_no_line_is_lost_nor_doubled_and_no_change_missed(tmp_path: Path) -> None:
    found = run(tmp_path / "streams", SHORT)
    told = found.clients
    assert told["broken"] == []
    assert (told["lost"], told["doubled"], told["torn"]) == (0, 0, 0)
    assert told["lines"] == found.to_be_received > 20 * 5
    assert (told["behind"], told["out_of_order"]) == (0, 0)
    assert told["reconnects"] >= 2 * 40
