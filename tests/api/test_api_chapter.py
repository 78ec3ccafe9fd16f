"""docs/rest.md: every command in it is run, one after the other, and does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from api_servers import ROOT, start_server

CHAPTER = (ROOT / "docs/rest.md").read_text()
PRELUDE = """
set -o pipefail
curl() {
  if [ "$1" = -sN ]; then command curl -f --max-time 1 "$@" || [ $? = 28 ]; else command curl -f "$@"; fi
}
"""


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_every_command_of_the_chapter(folder: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", CHAPTER, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 8
    server = start_server(folder, recipes=str(ROOT / "recipes"))
    try:
        for block in blocks[1:]:
            for command in re.split(r"\n(?=curl)", block):
                script = f"{PRELUDE}\nAPI={server.url}\n{command}"
                done = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, timeout=30)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
                assert done.stdout, command
    finally:
        server.process.terminate()
        assert server.process.wait(60) == 0
