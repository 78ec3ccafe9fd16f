"""OpenAI's client in JavaScript, where node is there: installed once, as its lock says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLIENTS = HERE / "clients"
INSTALLED = HERE.parent / ".local" / "test" / "javascript"
FILES = ("package.json", "package-lock.json", ".npmrc")


def asked(url: str, key: str, model: str) -> dict[str, Any]:
    """Have it ask a model; return what it tells."""
    environment = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
    command = ["node", str(_installed() / "ask.js"), model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _installed() -> Path:
    """Return the folder that it is installed in; skips the test where it can't be."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node with npm: apt install nodejs npm")
    said = b"".join((CLIENTS / name).read_bytes() for name in (*FILES, "ask.js"))
    folder = INSTALLED / hashlib.sha256(said).hexdigest()[:16]
    if not folder.exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=INSTALLED))
        for name in (*FILES, "ask.js"):
            shutil.copy(CLIENTS / name, made)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm can't install OpenAI's client: {done.stderr[-300:]}")
        try:
            made.rename(folder)
        except OSError:  # another worker was quicker
            shutil.rmtree(made)
    return folder
