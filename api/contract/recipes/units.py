"""Readers for the quantities that recipes and configs write: memory, time limits, whole numbers, GPUs."""

from __future__ import annotations

import re

_SIZES = {"": 1, "M": 1, "MB": 1, "MI": 1, "MIB": 1, "G": 1024, "GB": 1024, "GI": 1024, "GIB": 1024}
_SIZES |= {"T": 1024**2, "TB": 1024**2, "TI": 1024**2, "TIB": 1024**2}


def whole_number(value: object, *, least: int = 0, most: int = 1_000_000) -> int:
    """Read a whole number, given as one or in digits; raises `ValueError`."""
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"must be a whole number, not {_shown(value)}")
    if not least <= number <= most:
        raise ValueError(f"must lie between {least} and {most}, not {_shown(value)}")
    return number


def memory_mb(value: object) -> int:
    """Read an amount of memory in megabytes: `16384`, `"16G"`, `"512 MB"`; raises `ValueError`."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*([A-Za-z]*)\s*", value)
        if match is None or match[2].upper() not in _SIZES:
            raise ValueError(f"must be an amount of memory such as 16G or 512M, not {_shown(value)}")
        value = int(match[1]) * _SIZES[match[2].upper()]
    return whole_number(value, least=1, most=1 << 40)


def minutes(value: object) -> int:
    """Read a time limit in minutes; seconds round up. Raises `ValueError`.

    Whole minutes, Slurm's own spellings (`MM:SS`, `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`; sbatch(1), --time), or
    days, hours, minutes and seconds by their letters: `90m`, `4h`, `1d12h`.
    """
    if isinstance(value, str):
        seconds = _seconds(value.strip())
        value = -(-seconds // 60)
    return whole_number(value, least=1, most=366 * 1440)


def gpus(value: object) -> tuple[int, str | None]:
    """Read a number of GPUs, with or without their type: `2`, `"a100:2"`; raises `ValueError`."""
    if isinstance(value, str) and ":" in value:
        kind, _, count = value.rpartition(":")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", kind):
            raise ValueError(f"must be a number of GPUs such as 2 or a100:2, not {_shown(value)}")
        return whole_number(count, most=1024), kind
    return whole_number(value, most=1024), None


_TIMES: tuple[tuple[re.Pattern[str], tuple[int, ...]], ...] = tuple(
    (re.compile(pattern, re.ASCII), seconds)
    for pattern, seconds in (
        (r"(\d{1,7})", (60,)),
        (r"(\d{1,7}):([0-5]?\d)", (60, 1)),
        (r"(\d{1,5}):([0-5]?\d):([0-5]?\d)", (3600, 60, 1)),
        (r"(\d{1,4})-([01]?\d|2[0-3])(?::([0-5]?\d)(?::([0-5]?\d))?)?", (86400, 3600, 60, 1)),
        (r"(?=.)(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,7})m)?(?:(\d{1,8})s)?", (86400, 3600, 60, 1)),
    )
)
"""What a time limit may look like, and the seconds of what each of its groups counts."""


def _seconds(text: str) -> int:
    for pattern, units in _TIMES:
        match = pattern.fullmatch(text.lower())
        if match is not None:
            return sum(int(number or 0) * unit for number, unit in zip(match.groups(), units, strict=True))
    raise ValueError(f"must be minutes, or such as 4h, 90m, 1d12h, HH:MM:SS or D-HH:MM:SS, not {_shown(text)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
