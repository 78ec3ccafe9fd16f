"""The wrapper as one file that any Python can run: what the controller ships to the shared folder."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from api.contract.job.folder import name_of
from api.contract.job_shell import complete

ROOT = Path(__file__).parents[1]
WRAPPER = ROOT / "controller" / "wrapper"
SHARED = ROOT / "api" / "contract" / "job"
ABOVE = ("api", "api/contract", "controller")
"""The packages that these two lie in; nothing of them travels but their names."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can hold."""

MAIN = """\
import sys

from controller.wrapper.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


def bundle() -> bytes:
    """Return a zip file with a `__main__.py`; the same source gives the same bytes."""
    files = {"__main__.py": MAIN, **{f"{package}/__init__.py": "" for package in ABOVE}}
    for path in (*SHARED.rglob("*.py"), *WRAPPER.rglob("*.py")):
        files[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            archive.writestr(_entry(name), files[name])
    return packed.getvalue()


def file_name(content: bytes) -> str:
    """Return the name that a bundle lies under."""
    return name_of(content, "wrapper", ".pyz")


def launch_script() -> str:
    """Return the batch script: fixed text, called with JOB_FOLDER, the bundle's path and the Python to run it."""
    return complete((WRAPPER / "launch.sh").read_text(encoding="utf-8"))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    return entry
