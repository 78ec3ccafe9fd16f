"""The doctor on a real Slurm: all is well there, and what is taken away is found."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.cluster.system import System


def doctor(system: System, *flags: str) -> dict[str, Any]:
    """Return the checks by name."""
    command = [sys.executable, "-m", "api.cli", "--config", str(system.config), "doctor", "-o", "json", *flags]
    ended = subprocess.run(command, check=False, timeout=120, capture_output=True, text=True, cwd=system.folder)
    return {result["name"]: result for result in json.loads(ended.stdout)}


def test_all_is_well_on_a_real_cluster(system: System) -> None:
    found = doctor(system)
    assert {name: result["message"] for name, result in found.items() if result["state"] == "failed"} == {}
    for name in ("Slurm's version", "partition is open", "run_dir seen by jobs", "clock of the node", "Python in jobs",
                 "Apptainer in jobs", "user namespaces in jobs", "room for temporary files", "ports of the nodes",
                 "API", "controller"):  # fmt: skip
        assert found[name]["state"] == "ok", found[name]


def test_a_partition_that_is_down_is_found(system: System) -> None:
    partition = doctor(system, "--no-job")["partition"]["message"].rpartition(" ")[2]
    system.cluster.run("scontrol", "update", f"PartitionName={partition}", "State=DOWN")
    try:
        assert "is DOWN" in doctor(system, "--no-job")["partition is open"]["message"]
    finally:
        system.cluster.run("scontrol", "update", f"PartitionName={partition}", "State=UP")
