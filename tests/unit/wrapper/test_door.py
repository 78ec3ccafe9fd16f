"""The door of a job, as Slurm starts the job and as clients come to it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import os
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.contract.job.tls import WATCH, server_name
from controller.wrapper import ports
from tests.descriptors import opened_by

from .doors import (
    AUTHORITY,
    ENGINE,
    OTHER,
    PORT,
    SOCKET,
    Start,
    context,
    door,
    door_of,
    ends_within,
    kill_at_one_blow,
    knock,
    refused,
    watch,
)
from .jobs import ENGINE as DUMMY
from .jobs import Job, alive, until


def engine_of(job: Job) -> int:
    return int(until(lambda: job.stdout).split()[0])


class TestWhoComesIn:
    def test_a_client_of_the_installation(self, job: Job, start: Start, python: str) -> None:
        start(command=[python, str(DUMMY), "--uds", [SOCKET], "--model", "m"])
        serving = job.until_step("serving")
        assert serving["door"] == AUTHORITY.id
        assert serving["port"] < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        for _ in range(2):
            with knock(job) as line:
                connection = http.client.HTTPConnection("engine")
                connection.sock = line.socket
                connection.request("GET", "/health")
                assert connection.getresponse().status == 200
        job.send(signal.SIGTERM)
        assert job.wait() == 0, job.stderr
        assert (job.exit["code"], job.exit["reason"]) == (0, "Terminated")
        assert job.stderr == ""
        assert list(job.temporary.iterdir()) == []

    def test_nobody_else(self, served: Job) -> None:
        """No certificate; one that proves an attempt; one of another installation; no TLS."""
        before = until(lambda: served.stdout.count("called"))  # by the wrapper
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        bare.load_verify_locations(cadata=AUTHORITY.certificate)
        for by in (
            bare,
            context(AUTHORITY.door(served.parameters["token"])),
            context(AUTHORITY.door("af-i-other-0-1")),
            context(OTHER.client("api")),
        ):
            assert refused(lambda by=by: knock(served, by))  # type: ignore[misc]
        with socket.create_connection(("127.0.0.1", served.state["port"]), timeout=30) as plain:
            plain.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            assert not plain.recv(1000).startswith(b"HTTP")
        assert served.stdout.count("called") == before
        assert not refused(lambda: knock(served)), "and it is still open to those who may"

    def test_who_looks_for_another_attempt_notices(self, served: Job) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
            knock(served, name=server_name("af-i-other-0-1"))

    def test_as_long_as_strangers_sit_there(self, served: Job) -> None:
        """More than may prove who they are at a time, and not one of them does."""
        address = ("127.0.0.1", served.state["port"])
        with contextlib.ExitStack() as sitting:
            strangers = [sitting.enter_context(socket.create_connection(address, timeout=60)) for _ in range(300)]
            began = time.monotonic()
            assert not refused(lambda: knock(served))
            assert time.monotonic() - began < 9.0
            assert strangers[0].recv(1) == b"", "the first to come are the first to go"
            assert strangers[-1].recv(1) == b"", "and the others in 10 s"

    def test_as_long_as_another_kind_of_client_holds_all_it_can_get(self, job: Job, python: str) -> None:
        """A gateway that is used against us, or an API full of prompts, does not keep the controller out."""
        job.write(command=[python, "-c", ENGINE, [SOCKET]], listens=True, door=door(job.parameters["token"]))
        job.start(argv=["prlimit", "--nofile=200:200", sys.executable, "-I", str(job.wrapper), str(job.folder)])
        job.until_step("serving")
        gateway, controller = (AUTHORITY.client(kind) for kind in ("gateway", "controller"))
        with contextlib.ExitStack() as held:
            watchers = (held.enter_context(knock(job, context(gateway, protocol=WATCH))) for _ in range(200))
            taken = list(itertools.takewhile(lambda watcher: watcher.receive(1) == b"1", watchers))
            assert 10 < len(taken) < 40
            assert not refused(lambda: knock(job, context(controller)))
            assert not refused(lambda: knock(job))
            assert refused(lambda: knock(job, context(gateway)))
        until(lambda: not refused(lambda: knock(job, context(gateway))))

    def test_the_engines_socket_is_for_its_owner_alone(self, served: Job) -> None:
        place = Path(served.stdout.split()[1])
        assert place.parent.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in place.parent.iterdir()) == ["socket"]

    def test_a_long_path_of_temporary_files_is_no_obstacle(self, job: Job, start: Start) -> None:
        """A socket's path has 107 bytes at most."""
        job.temporary = job.temporary / ("x" * 90)
        job.temporary.mkdir()
        start()
        job.until_step("serving")
        assert not refused(lambda: knock(job))
        place = Path(job.stdout.split()[1])
        assert (place.parent.parent, place.parent.stat().st_mode & 0o777) == (Path("/tmp"), 0o700)
        job.send(signal.SIGTERM)
        job.wait()
        assert not place.parent.exists()


class TestWhatPasses:
    def test_each_piece_as_it_comes(self, served: Job) -> None:
        with knock(served) as line:
            line.send(b"echo\n")
            for number in range(300):
                line.send(b"%d\n" % number)
                assert line.receive(len(b"%d\n" % number)) == b"%d\n" % number

    def test_what_is_said_after_the_caller_has_finished(self, served: Job) -> None:
        """Half-closed, by TLS's own goodbye; 20 MB beforehand."""
        body = os.urandom(1_000_000) * 20
        raw = socket.create_connection(("127.0.0.1", served.state["port"]), timeout=30)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context().wrap_bio(incoming, outgoing, server_hostname=server_name(served.parameters["token"]))

        def until_done(act: Callable[[], Any]) -> Any:
            while True:
                try:
                    return act()
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    got = raw.recv(65536)
                    incoming.write(got) if got else incoming.write_eof()
                finally:
                    raw.sendall(outgoing.read())

        with raw:
            until_done(tls.do_handshake)
            for data in (b"digest\n", body):
                view = memoryview(data)
                while view:
                    view = view[tls.write(view[:65536]) :]
                    raw.sendall(outgoing.read())
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.unwrap()
            assert until_done(lambda: tls.read(100)) == hashlib.sha256(body).hexdigest().encode()
            with pytest.raises(ssl.SSLZeroReturnError):
                until_done(lambda: tls.read(100))

    def test_a_caller_who_reads_slowly_loses_nothing_and_holds_only_itself_up(self, served: Job) -> None:
        with knock(served) as slow, knock(served) as quick:
            slow.send(b"send 50\n")
            quick.send(b"send 50\n")
            time.sleep(0.5)
            assert len(quick.rest()) == 50_000_000
            status = Path(f"/proc/{door_of(served)}/status").read_text()
            assert int(status.partition("VmRSS:")[2].split()[0]) < 100_000, "kB: the rest waits in the engine"
            assert len(slow.rest()) == 50_000_000

    def test_a_caller_who_is_cut_off_frees_the_engine(self, served: Job) -> None:
        line = knock(served)
        line.send(b"send 1000000\n")
        line.receive(10)
        engine = engine_of(served)
        assert sum("socket" in name for name in opened_by(engine)) == 2
        line.__exit__()
        until(lambda: sum("socket" in name for name in opened_by(engine)) == 1)

    def test_the_last_bytes_of_an_engine_that_ends(self, served: Job) -> None:
        """They are still in the door when it has ended."""
        doorman, engine = door_of(served), engine_of(served)
        with knock(served) as line:
            line.send(b"die\n")
            until(lambda: "dies" in served.stdout)
            os.kill(doorman, signal.SIGSTOP)
            until(lambda: not alive(engine))
            time.sleep(0.1)
            os.kill(doorman, signal.SIGCONT)
            assert len(line.rest()) == 100_000
        assert served.wait() == 3

    def test_an_answer_that_is_under_way_when_the_job_is_told_to_end(self, job: Job, start: Start, python: str) -> None:
        start(command=[python, str(DUMMY), "--uds", [SOCKET], "--model", "m", "--token-delay", "0.1"])
        job.until_step("serving")
        with knock(job) as line:
            connection = http.client.HTTPConnection("engine")
            connection.sock = line.socket
            body = '{"model": "m", "stream": true, "max_tokens": 20, "prompt": "' + "word " * 20 + '"}'
            connection.request("POST", "/v1/completions", body)
            answer = connection.getresponse()
            answer.readline()
            job.send(signal.SIGTERM)
            assert answer.read().endswith(b"data: [DONE]\n\n")
        assert job.wait() == 0
        assert job.exit["reason"] == "Terminated"


class TestWatching:
    def test_it_is_told_when_the_engine_serves_and_by_its_closing_when_it_does_not(self, start: Start) -> None:
        job = start("3.0")
        with watch(job) as early:
            early.socket.settimeout(0.3)
            with pytest.raises(TimeoutError):
                early.receive(1)
            early.socket.settimeout(30)
            assert early.receive(1) == b"1"
            assert job.until_step("serving")
            with watch(job) as late:
                assert late.receive(1) == b"1"
                assert not ends_within(late, 1.0)
                began = time.monotonic()
                os.kill(engine_of(job), signal.SIGKILL)
                assert ends_within(early, 5.0)
                assert ends_within(late, 5.0)
                assert time.monotonic() - began < 3.0  # the wrapper's next look by itself is later
        assert job.wait() == 137
        assert job.exit["reason"] == "EngineExited"
        assert job.stdout.count("called") == 1, "by the wrapper, which looks whether it accepts"

    @pytest.mark.parametrize("who", ["wrapper", "door"])
    def test_it_ends_with_whatever_stands_before_the_engine(self, served: Job, who: str) -> None:
        engine, doorman = engine_of(served), door_of(served)
        assert served.process is not None
        with watch(served) as line:
            assert line.receive(1) == b"1"
            os.kill(served.process.pid if who == "wrapper" else doorman, signal.SIGKILL)
            assert ends_within(line, 5.0)
        served.wait()
        until(lambda: not alive(engine) and not alive(doorman))
        if who == "door":
            assert (served.exit["code"], served.exit["reason"]) == (1, "DoorFailed")

    def test_what_slurm_sends_to_all_ends_no_watch_before_the_engine(self, served: Job) -> None:
        with watch(served) as line:
            assert line.receive(1) == b"1"
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
                os.kill(door_of(served), number)
            assert not ends_within(line, 0.5)


class TestLoopback:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
    def test_an_engine_that_knows_no_sockets(self, start: Start, host: str) -> None:
        script = ENGINE.replace('"127.0.0.1"', repr(host))
        if host == "::":
            script = script.replace("place = ", "socketserver.TCPServer.address_family = socket.AF_INET6\nplace = ")
        job = start(at=PORT, script=script)
        assert job.until_step("serving")["port"] != int(job.stdout.split()[1])
        assert not refused(lambda: knock(job))
        job.send(signal.SIGTERM)
        job.wait()
        assert job.exit["reason"] == "Terminated"

    def test_one_that_is_there_first_is_not_taken_for_it(self, start: Start) -> None:
        job = start("30", at=PORT)
        number = int(until(lambda: job.stdout.split()[1:2])[0])
        heard: list[bytes] = []
        with socket.create_server(("127.0.0.1", number)) as imposter:
            threading.Thread(target=_listen, args=(imposter, heard), daemon=True).start()
            assert refused(lambda: knock(job))
            with watch(job) as line:
                assert not ends_within(line, 2.0)
            assert job.state["step"] != "serving"
            assert b"".join(heard) == b""

    def test_one_that_takes_its_place_is_found_out(self, start: Start) -> None:
        job = start(at=PORT)
        job.until_step("serving")
        number = int(job.stdout.split()[1])
        assert not refused(lambda: knock(job))
        os.kill(engine_of(job), signal.SIGSTOP)
        assert job.process is not None
        job.process.send_signal(signal.SIGSTOP)
        os.kill(engine_of(job), signal.SIGKILL)
        heard: list[bytes] = []
        with _bound(number) as imposter:
            threading.Thread(target=_listen, args=(imposter, heard), daemon=True).start()
            assert refused(lambda: knock(job))
            assert b"".join(heard) == b""
        job.process.send_signal(signal.SIGCONT)
        job.wait()

    def test_a_port_that_was_taken_meanwhile_is_tried_again_behind_the_same_door(self, start: Start) -> None:
        marker = "if not os.path.exists('../tried'): open('../tried', 'w'); raise OSError(98, 'Address already in use')"
        job = start(at=PORT, script=ENGINE.replace("print(os.getpid()", f"{marker}\nprint(os.getpid()"))
        before = until(lambda: job.state.get("port"))
        assert job.until_step("serving")["port"] == before
        assert not refused(lambda: knock(job))


def _listen(server: socket.socket, heard: list[bytes]) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                connection.sendall(b"I am the engine\n")
                heard.append(connection.recv(1000))


def _bound(number: int) -> socket.socket:
    return until(lambda: _try(number))  # type: ignore[return-value]


def _try(number: int) -> socket.socket | None:
    try:
        return socket.create_server(("127.0.0.1", number))
    except OSError:
        return None


class TestEnds:
    def test_a_door_that_can_not_be_opened(self, job: Job, start: Start) -> None:
        start(door={**door(job.parameters["token"]), "key": "no key"})
        assert job.wait() == 1
        assert job.exit["reason"] == "DoorFailed"
        assert "SSLError" in job.stderr

    def test_no_port_for_the_door(self, job: Job, start: Start) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            number = server.getsockname()[1]
            start(port_range=[number, number])
            assert job.wait() == 1
        assert job.exit["reason"] == "NoFreePort"
        assert job.stdout == "", "no engine was started"

    def test_nobody_takes_the_doors_port(self, served: Job) -> None:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1")):
            with socket.socket(family) as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    thief.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                with pytest.raises(OSError, match="in use"):
                    thief.bind((address, served.state["port"]))
                    thief.listen()

    def test_its_port_is_in_the_sites_range(self, job: Job, start: Start) -> None:
        low = ports.pick("127.0.0.1", None, ())
        start(port_range=[low, low + 3])
        assert low <= job.until_step("serving")["port"] <= low + 3

    def test_what_has_left_the_engines_group_ends_with_the_wrapper(self, start: Start) -> None:
        """As what mounts a plain user's image for Apptainer."""
        apart = "import subprocess\nprint(subprocess.Popen(['sleep', '60'], process_group=0).pid, flush=True)\n"
        job = start(script=apart + ENGINE)
        job.until_step("serving")
        pids = [int(job.stdout.split()[index]) for index in (0, 1)]
        job.kill()
        until(lambda: not any(map(alive, pids)), 20.0)

    @pytest.mark.parametrize("at", [SOCKET, PORT])
    def test_killed_at_one_blow_nothing_is_left(self, start: Start, at: object) -> None:
        """Wrapper, guards and door: whatever might end the engine. What it started ends with it."""
        script = f"import subprocess\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\n{ENGINE}"
        job = start(at=at, script=script)
        job.until_step("serving")
        child, engine = (int(job.stdout.split()[index]) for index in (0, 1))
        doomed = kill_at_one_blow(job)
        assert len(doomed) == 4
        job.wait()
        until(lambda: not any(alive(pid) for pid in (child, engine, *doomed)), 20.0)
