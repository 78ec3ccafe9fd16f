"""The grammars of memory, time limits, whole numbers and GPUs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.contract.recipes.units import gpus, memory_mb, minutes, whole_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (16384, 16384),
        ("16384", 16384),
        ("16G", 16384),
        ("16g", 16384),
        ("16GB", 16384),
        ("16Gi", 16384),
        ("16 GiB", 16384),
        (" 512 MB ", 512),
        ("512M", 512),
        ("1T", 1024**2),
        (2048.0, 2048),
    ],
)
def test_memory(text: Any, expected: int) -> None:
    assert memory_mb(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "0",
        0,
        -1,
        "-1G",
        "1.5G",
        1.5,
        "16K",
        "16X",
        "G",
        "16G16",
        "1e3",
        "16\nG\n--x",
        "9" * 40,
        "99999999999T",
        None,
        True,
        [],
        {},
        "16G;reboot",
        "١٦G\u202e",
        float("nan"),
        float("inf"),
        pytest.param(10**5000, id="huge"),
    ],
)
def test_no_memory(text: Any) -> None:
    with pytest.raises(ValueError):
        memory_mb(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (90, 90),
        ("90", 90),
        (" 90 ", 90),
        (90.0, 90),
        ("30:00", 30),
        ("90:00", 90),
        ("0:30", 1),
        ("00:01", 1),
        ("59:59", 60),
        ("01:30:00", 90),
        ("12:00:00", 720),
        ("100:00:00", 6000),
        ("1-00:00:00", 1440),
        ("7-12:30:30", 7 * 1440 + 12 * 60 + 31),
        ("366-00:00:00", 366 * 1440),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("4h", 240),
        ("90m", 90),
        ("2d", 2880),
        ("1d12h", 2160),
        ("1d12h30m", 2190),
        ("1H30M", 90),
        ("90s", 2),
    ],
)
def test_a_time_limit(text: Any, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        0,
        -5,
        "-5",
        "0:00",
        "1:60",
        "1:60:00",
        "1-24:00:00",
        "1-24",
        "1-12:60",
        "1:2:3:4",
        "1.5",
        1.5,
        "1.5h",
        "4 h",
        "4h4h",
        "30m1h",
        "h",
        "4x",
        "367d",
        "0h",
        "٤h",
        "UNLIMITED",
        "INFINITE",
        "367-00:00:00",
        "9" * 30,
        ":30",
        "30:",
        "1:00\n--x",
        None,
        True,
        [],
        float("nan"),
    ],
)
def test_no_time_limit(text: Any) -> None:
    with pytest.raises(ValueError):
        minutes(text)


@given(days=st.integers(0, 300), hours=st.integers(0, 23), mins=st.integers(0, 59), seconds=st.integers(0, 59))
def test_seconds_round_up_and_spellings_agree(days: int, hours: int, mins: int, seconds: int) -> None:
    total = days * 86400 + hours * 3600 + mins * 60 + seconds
    if total == 0:
        return
    expected = -(-total // 60)
    assert minutes(f"{days}-{hours}:{mins:02}:{seconds:02}") == expected
    assert minutes(f"{days * 24 + hours}:{mins:02}:{seconds:02}") == expected
    assert minutes(f"{days}d{hours}h{mins}m{seconds}s") == expected
    assert minutes(expected) == minutes(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [(0, (0, None)), ("2", (2, None)), ("a100:2", (2, "a100")), ("nvidia_h100:1", (1, "nvidia_h100"))],
)
def test_gpus(text: Any, expected: tuple[int, str | None]) -> None:
    assert gpus(text) == expected


@pytest.mark.parametrize(
    "text", [-1, 1025, "a100", "a100:", ":2", "a:b:2", "a100:x", "-a:1", "a b:1", "a,b:1", True, None, 1.5]
)
def test_no_gpus(text: Any) -> None:
    with pytest.raises(ValueError):
        gpus(text)


@pytest.mark.parametrize(
    "value", ["x", "", "1.0", "+1", " 1", "1_000", "0x10", True, None, [], 1.5, float("inf"), float("nan"), -1, 11]
)
def test_no_whole_number(value: Any) -> None:
    with pytest.raises(ValueError):
        whole_number(value, least=0, most=10)


@given(st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.text()), st.binary()))
def test_whatever_is_given_it_is_read_or_refused_in_a_short_sentence(value: Any) -> None:
    for read in (whole_number, memory_mb, minutes, gpus):
        try:
            read(value)
        except ValueError as error:
            assert len(str(error)) < 250
