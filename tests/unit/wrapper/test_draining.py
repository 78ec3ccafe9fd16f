"""A door that drains, because a file says so or somebody told its job to end; and the end that follows."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.wrapper.door.pipe import REST, goes_on

from .doors import AUTHORITY, ENGINE, SOCKET, Line, Start, context, ends_within, knock, refused, watch
from .jobs import ENGINE as DUMMY
from .jobs import Job, until

CONTROLLER = AUTHORITY.client("controller")
BY_CONTROLLER = context(CONTROLLER)
PAUSE = REST + 2.0
"""Seconds after which a connection is closed on which nothing is open."""


@pytest.mark.parametrize(
    ("words", "open_"),
    [
        (b"", False),
        (b'"usage":null}', False),
        (b"content-length: 0\r\n\r\n", False),
        (b"data: [DONE]\n\n\r\n0\r\n\r\n", False),
        (b"transfer-encoding: chunked\r\n\r\n", True),
        (b"2c\r\ndata: {}\n\n\r\n", True),
        (b"2\r\n00\r\n", True),
    ],
)
def test_an_answer_in_chunks_is_known_to_go_on(words: bytes, open_: bool) -> None:
    assert goes_on(words) is goes_on(words[-6:]) is open_


def asked(line: Line, method: str, path: str, body: str | None = None) -> http.client.HTTPConnection:
    """Send a request, and do not wait for its answer."""
    connection = http.client.HTTPConnection("engine")
    connection.sock = line.socket
    connection.request(method, path, body)
    return connection


def is_well(job: Job, by: ssl.SSLContext | None = None) -> bool:
    """Whether the engine answers who comes now."""
    try:
        with knock(job, by) as line:
            return asked(line, "GET", "/health").getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


TWO_WORDS = {"model": "m", "max_tokens": 2, "prompt": "hello"}


class TestByFile:
    def test_who_is_answered_stays_who_rests_goes_and_nobody_comes(self, start: Start, python: str) -> None:
        """Of two answers one says nothing before its end, and one begins at once and pauses before each word."""
        job = start(command=[python, str(DUMMY), "--uds", [SOCKET], "--model", "m", "--token-delay", str(PAUSE)])
        job.until_step("serving")
        drain = job.folder / "drain"
        with contextlib.ExitStack() as lines:
            silent, slow, resting, unused = (lines.enter_context(knock(job)) for _ in range(4))
            asking, watching = (
                lines.enter_context(line) for line in (knock(job, BY_CONTROLLER), watch(job, CONTROLLER))
            )
            assert watching.receive(1) == b"1"
            whole = asked(silent, "POST", "/v1/completions", json.dumps(TWO_WORDS))
            stream = asked(slow, "POST", "/v1/completions", json.dumps({**TWO_WORDS, "stream": True})).getresponse()
            for line in (resting, asking):
                asked(line, "GET", "/health").getresponse().read()
            drain.touch()
            until(lambda: not is_well(job))
            assert is_well(job, BY_CONTROLLER)
            assert ends_within(resting, PAUSE + 5.0)
            assert ends_within(unused, PAUSE + 5.0)
            assert stream.read().endswith(b"data: [DONE]\n\n")
            assert b"echo" in whole.getresponse().read()
            assert "empty" not in job.state
            assert ends_within(slow, PAUSE + 5.0)
            assert asked(asking, "GET", "/health").getresponse().status == 200
            assert not ends_within(watching, 0.5)
            until(lambda: job.state.get("empty") is True)
            drain.unlink()
            until(lambda: is_well(job))
            until(lambda: "empty" not in job.state)
        assert "told_to_end_at" not in job.state
        assert job.state["step"] == "serving"

    def test_a_file_that_is_there_before_the_engine(self, job: Job, start: Start) -> None:
        (job.folder / "drain").touch()
        start()
        job.until_step("serving")
        until(lambda: refused(lambda: knock(job)))
        assert not refused(lambda: knock(job, BY_CONTROLLER))


class Talk:
    """A request that is being answered by an engine that a TERM would end: each line that is sent comes back."""

    def __init__(self, line: Line) -> None:
        self._line = line
        line.send(b"echo\n")
        assert self.goes_on()

    def goes_on(self) -> bool:
        try:
            self._line.send(b"more\n")
            return self._line.receive(5) == b"more\n"
        except OSError:
            return False

    def end(self) -> None:
        self._line.socket.close()


Begin = Callable[[Job], Talk]


@pytest.fixture
def talk() -> Iterator[Begin]:
    """Begin one."""
    with contextlib.ExitStack() as open_:
        yield lambda job: Talk(open_.enter_context(knock(job)))


class TestToldToEnd:
    def test_what_is_in_flight_goes_on_and_the_controller_is_told(self, served: Job, talk: Begin) -> None:
        talking = talk(served)
        with watch(served, CONTROLLER) as early:
            assert early.receive(1) == b"1"
            before = time.time()
            served.send(signal.SIGTERM)
            assert ends_within(early, 30.0)
        state = served.state
        assert before <= state["told_to_end_at"] <= time.time(), "it is written before who watches is woken"
        assert (state["step"], state["detail"]) == ("draining", "SIGTERM received")
        with watch(served, CONTROLLER) as again:
            assert again.receive(1) == b"1"
            assert refused(lambda: knock(served))
            assert not refused(lambda: knock(served, BY_CONTROLLER))
            for _ in range(8):
                assert talking.goes_on()
                assert not ends_within(again, 0.25)
            talking.end()
            assert ends_within(again, 30.0)
        assert served.wait(30.0) == 143
        assert served.exit["reason"] == "Terminated"

    def test_a_file_to_drain_that_goes_opens_it_no_more(self, served: Job, talk: Begin) -> None:
        drain, talking = served.folder / "drain", talk(served)
        drain.touch()
        until(lambda: refused(lambda: knock(served)))
        served.send(signal.SIGTERM)
        until(lambda: "told_to_end_at" in served.state)
        drain.unlink()
        deadline = time.monotonic() + 3.0
        while time.monotonic() < deadline:
            assert refused(lambda: knock(served))
            assert talking.goes_on()
        talking.end()
        assert served.wait(30.0) == 143

    def test_where_nothing_is_in_flight_it_ends_at_once(self, served: Job) -> None:
        """Who has been at rest for long does not hold it up, nor does the controller."""
        with knock(served), watch(served, CONTROLLER), knock(served, BY_CONTROLLER) as controller:
            time.sleep(PAUSE)
            controller.send(b"echo\nmore\n")
            assert controller.receive(5) == b"more\n"
            served.send(signal.SIGTERM)
            assert served.wait(REST - 0.5) == 143

    def test_one_that_was_never_asked_for_anything_ends_at_once(self, start: Start) -> None:
        job = start("60")
        until(lambda: job.stdout)
        job.send(signal.SIGTERM)
        assert job.wait(30.0) == 143
        assert job.exit["reason"] == "Terminated"
        assert "told_to_end_at" in job.state

    def test_what_is_in_flight_has_a_bound(self, start: Start, talk: Begin) -> None:
        job = start(drain_most=1.0)
        job.until_step("serving")
        talking = talk(job)
        began = time.monotonic()
        job.send(signal.SIGTERM)
        while talking.goes_on():
            assert time.monotonic() < began + 30.0
            time.sleep(0.05)
        assert time.monotonic() >= began + 0.9
        assert job.wait(30.0) == 143

    def test_who_writes_to_a_volume_is_told_at_once(self, start: Start, tmp_path: Path, talk: Begin) -> None:
        volume = {"source": str(tmp_path / "volume"), "target": "/data"}
        job = start(volumes=[volume], drain_most=60.0)
        job.until_step("serving")
        talking = talk(job)
        job.send(signal.SIGTERM)
        assert job.wait(30.0) == 143
        assert not talking.goes_on()
        assert "told_to_end_at" in job.state

    def test_an_engine_that_ends_by_itself_is_not_waited_for(self, served: Job, talk: Begin) -> None:
        talking = talk(served)
        served.send(signal.SIGTERM)
        until(lambda: "told_to_end_at" in served.state)
        assert talking.goes_on()
        os.kill(int(served.stdout.split()[0]), signal.SIGKILL)
        assert served.wait(30.0) == 137

    def test_by_the_controller_it_ends_at_once(self, served: Job, talk: Begin) -> None:
        talking = talk(served)
        (served.folder / "closed").touch()
        served.send(signal.SIGTERM)
        assert served.wait(30.0) == 143
        assert not talking.goes_on()
        assert "told_to_end_at" not in served.state

    def test_by_the_controller_in_the_end(self, served: Job, talk: Begin) -> None:
        """What was in flight had its time, or nobody wants the service any more."""
        talking = talk(served)
        served.send(signal.SIGTERM)
        until(lambda: "told_to_end_at" in served.state)
        assert talking.goes_on()
        (served.folder / "closed").touch()
        served.send(signal.SIGTERM)
        assert served.wait(30.0) == 143
        assert not talking.goes_on()

    def test_without_a_door_the_engine_is_told_at_once(self, job: Job, python: str) -> None:
        job.write(command=[python, "-c", "import time; print('up', flush=True); time.sleep(60)"])
        job.start()
        until(lambda: job.stdout)
        job.send(signal.SIGTERM)
        assert job.wait(30.0) == 143
        assert "told_to_end_at" in job.state


def test_the_engine_of_these_tests_ends_by_a_term() -> None:
    assert "SIGTERM" not in ENGINE
