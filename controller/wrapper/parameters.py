"""`params.json`, read and checked."""

from __future__ import annotations

import json
from pathlib import Path

from api.contract.job import typed
from api.contract.job.parameters import VERSION, Parameters
from api.contract.job.words import ExitReason
from controller.wrapper.report import FailedError


def read(path: Path) -> Parameters:
    """Read the file; raises `FailedError` (`ParametersBad`, `ParametersTooNew`)."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FailedError(ExitReason.PARAMETERS_BAD, f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise FailedError(ExitReason.PARAMETERS_BAD, f"{path} is not JSON") from error
    version = raw.get("version") if isinstance(raw, dict) else None
    if not isinstance(version, int):
        raise FailedError(ExitReason.PARAMETERS_BAD, f"{path}: no version")
    if version > VERSION:
        raise FailedError(
            ExitReason.PARAMETERS_TOO_NEW, f"{path.name} has version {version}; this wrapper knows {VERSION}"
        )
    try:
        parameters: Parameters = typed.read(Parameters, raw)
    except ValueError as error:
        raise FailedError(ExitReason.PARAMETERS_BAD, f"{path}: {error}") from error
    return parameters
