from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from controller.wrapper.logs import telling

LOGS = Path(__file__).parent / "logs"


def lines(name: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", (LOGS / f"{name}.log").read_text()) if line.strip()]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("badflag", "vllm: error: unrecognized arguments: --no-such-flag"),
        ("badpath", "HFValidationError: Repo id must be in the form"),
        ("toolong", "User-specified max_model_len (100000) is greater than the derived max_model_len"),
        ("portinuse", "OSError: [Errno 98] Address already in use"),
        ("kvtoobig", "ValueError: Available memory on node 0 (8.86/10.09 GiB) on kv cache allocation is less"),
        ("engine-kill", "engine core exited unexpectedly"),
    ],
)
def test_tells_why_vllm_ended(name: str, told: str) -> None:
    reason = telling.reason(lines(name))
    assert told in reason
    assert "ulimit" not in reason
    assert "Traceback" not in reason
    assert len(reason.splitlines()) <= 8


def test_a_cause_in_the_middle_beats_its_consequence_at_the_end() -> None:
    assert lines("kvtoobig")[-1].startswith("RuntimeError: Engine core initialization failed")
    assert "initialization failed" not in telling.reason(lines("kvtoobig"))
    assert telling.reason(lines("kvtoobig")).count("ValueError") == 1


def test_a_consequence_is_better_than_nothing() -> None:
    assert telling.reason(lines("kvtoobig")[-1:]).startswith("RuntimeError: Engine core initialization failed")


def test_without_any_error_the_last_lines_stand() -> None:
    assert telling.reason([f"line {number}" for number in range(20)]).splitlines()[-1] == "line 19"
    assert telling.reason([]) == ""


@pytest.mark.parametrize(
    "line",
    [
        "FATAL:   container creation failed: mount /nonexist->/x error: mount source /nonexist doesn't exist",
        "OSError: [Errno 28] No space left on device",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "sh: 1: nosuch: command not found",
        "java.lang.panic: no",
    ],
)
def test_known_symptoms_are_telling(line: str) -> None:
    assert telling.reason([line, "bye", *["chatter"] * 50]) == line


def test_what_a_symptom_names_in_its_next_line_stays_with_it() -> None:
    """Lmod 8.6 without a terminal."""
    error = "Lmod has detected the following error: The following module(s) are unknown:"
    lines = [error, '"aptainer"', "", 'Please check the spelling or version number. Also try "module spider ..."']
    assert telling.reason(lines) == f'{error}\n"aptainer"'


def test_progress_in_the_order_of_a_real_start() -> None:
    seen = [sign for line in lines("healthy-start") if (sign := telling.progress([line]))]
    assert seen == [
        "Initializing a V1 LLM engine",
        "Starting to load model",
        "Loading safetensors checkpoint shards: 0%",
        "Loading safetensors checkpoint shards: 100%",
        "Loading weights took 0.02 seconds",
        "KV cache size: 2,097,152 tokens",
        "init engine (profile, create kv cache, warmup model) took 0.76 s",
        "Starting vLLM server",
        "Application startup complete",
    ]
    assert telling.progress(lines("healthy-start")) == "Application startup complete"


def test_a_taken_port_is_recognised_only_where_it_is_told() -> None:
    assert telling.port_was_taken(lines("portinuse"))
    assert telling.port_was_taken(["Error: listen EADDRINUSE: address already in use :::80"])
    assert not telling.port_was_taken(lines("kvtoobig"))


@pytest.mark.parametrize(
    "line",
    [
        "(" + "a" * 250_000,
        "init engine (" * 20_000,
        "Loading " * 30_000,
        "Loading " + "a" * 250_000,
        "A." * 125_000,
        "A" * 250_000,
        "(a) ERROR " + "1" * 250_000,
        "AError: " * 30_000,
    ],
    ids=lambda line: line[:12],
)
def test_no_line_takes_long_to_read(line: str) -> None:
    begun = time.thread_time()
    telling.progress([line])
    telling.reason([line])
    assert time.thread_time() - begun < 1.0


def test_many_lines_take_no_longer_each() -> None:
    begun = time.thread_time()
    telling.reason(["AError", "  more"] * 30_000)
    assert time.thread_time() - begun < 2.0
