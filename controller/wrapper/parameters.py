"""`params.json`, read and checked."""

from __future__ import annotations

import json
from pathlib import Path

from api.contract.job import typed
from api.contract.job.parameters import VERSION, Parameters
from controller.wrapper.report import FailedError


def read(path: Path) -> Parameters:
    """Read the file; raises `FailedError` (`ParametersBad`, `ParametersTooNew`)."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FailedError("ParametersBad", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FailedError("ParametersBad", f"{path} is not JSON") from error
    version = raw.get("version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise FailedError("ParametersBad", f"{path}: no version")
    if version > VERSION:
        raise FailedError("ParametersTooNew", f"{path.name} has version {version}; this wrapper knows {VERSION}")
    try:
        parameters: Parameters = typed.read(Parameters, raw)
    except ValueError as error:
        raise FailedError("ParametersBad", f"{path}: {error}") from error
    return parameters
