"""Probes, against a small engine of our own that can be ill in many ways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import controller.cluster.probes
from api.contract.doorless import secret
from api.contract.doors import Doors
from api.contract.launch import Health, LaunchSpec, Resources
from controller.cluster.in_flight import in_flight
from controller.cluster.probes import MOST_AT_ONCE, HttpProbes, Target
from controller.core.attempt import Attempt, Probe, ProbeSpec
from controller.core.job_files import Verdict
from tests.descriptors import none_left
from tests.doors import KEY, NEWER_KEY, STRANGE_KEY, door_context, key_id, keyring_of, listening, write_keys
from tests.ports import free_port

TOKEN, OTHER_TOKEN = "af-x-one-0-1", "af-x-one-0-2"
HEALTH = Health(path="/health", interval=0.05, timeout=60.0, retries=3)
HASTY = replace(HEALTH, timeout=0.1)
"""For what never answers: what does may take long on a busy machine."""


@dataclass
class Engine:
    """Answers like vLLM, unless told otherwise."""

    secret: str = secret(KEY, TOKEN)
    model: str = "m"
    health: int = 200
    hangs: bool = False
    dribbles: bool = False
    """Sends its answers in pieces."""
    models: bytes | None = None
    """Its answer to /v1/models, where it is not the usual one."""
    in_flight: float = 0.0
    asked: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split(" ")[1]
        self.asked.append(path)
        self.heads.append(head)
        if self.hangs:
            await reader.read()
        authorized = f"Authorization: Bearer {self.secret}\r\n" in head
        body = self.models if self.models is not None else json.dumps({"data": [{"id": self.model}]}).encode()
        if path == "/health":
            await self.answer(writer, self.health, b"")
        elif path == "/v1/models":
            await self.answer(writer, 200 if authorized else 401, body if authorized else b"{}")
        elif path == "/metrics":
            counts = f'{self.in_flight}\nvllm:num_requests_waiting{{engine="0",model_name="m"}} 0.0\n'
            await self.answer(writer, 200, f'vllm:num_requests_running{{engine="0"}} {counts}'.encode())
        else:
            await self.answer(writer, 404, b"")

    async def unguarded(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer as an engine that asks for no secret; to what is no request, as web servers do."""
        first = await reader.read(1)
        if first != b"G":
            await self.answer(writer, 400, b"")
            return
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        self.heads.append(head)
        await self.answer(writer, 200, json.dumps({"data": [{"id": self.model}]}).encode())

    async def answer(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        location = "Location: /elsewhere\r\n" if status in (301, 302) else ""
        writer.write(f"HTTP/1.1 {status} Word\r\n{location}Content-Length: {len(body)}\r\n\r\n".encode())
        for piece in [body[i : i + 7] for i in range(0, len(body), 7)] if self.dribbles else [body]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)


class Clock:
    time = 0.0

    def now(self) -> float:
        self.time += 1
        return self.time


class Watch:
    """Probes of one controller, and whom they woke."""

    def __init__(self, folder: Path) -> None:
        self.woken: list[str] = []
        self.told: Verdict | None = None
        self.key_file = folder / "installation.key"
        self.doors = Doors(keyring_of(self.key_file), "controller")
        self.ends = 0
        self.probes = HttpProbes(Clock(), self.doors, self.woken.append, self, ended=self._count_end, watches=9)

    def _count_end(self) -> None:
        self.ends += 1

    async def verdict(self, service_id: str, token: str) -> Verdict | None:
        assert (service_id, token) == ("one", TOKEN)
        return self.told

    def begin(self, engine: Engine, *, kind: str = "vllm", health: Health | None = HEALTH, model: str = "m") -> None:
        self.probes.watch(attempt(engine.port), ProbeSpec.of(spec(kind, health, model)))

    async def until(self, *, ready: bool, failures: int = 0) -> Probe:
        async with asyncio.timeout(60):
            while (probe := self.probes.latest(TOKEN)) is None or probe.ready != ready or probe.failures < failures:
                await asyncio.sleep(0.005)
        return probe


def attempt(port: int | None) -> Attempt:
    return Attempt(token=TOKEN, service_id="one", replica=0, incarnation=1, generation=1, digest="d", intent_at=0.0,
                   host="127.0.0.1", port=port, serving_at=1.0)  # fmt: skip


def spec(kind: str = "vllm", health: Health | None = HEALTH, model: str | None = "m") -> LaunchSpec:
    return LaunchSpec(recipe="r", kind="service", engine="vllm" if kind == "vllm" else "generic", model=model,
                      image=None, command=("x",), resources=Resources(), health=health)  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller.cluster.probes, "STARTING_INTERVAL", 0.02)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    async with listening(engine.serve) as engine.port:
        yield engine


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    await watch.probes.close()


async def test_ready_is_the_models_name_under_the_secret(engine: Engine, watch: Watch) -> None:
    assert watch.probes.latest(TOKEN) is None
    watch.begin(engine)
    probe = await watch.until(ready=True)
    assert (probe.failures, probe.message) == (0, "")
    assert engine.asked[:2] == ["/health", "/v1/models"]
    assert watch.woken == ["one"]


async def test_an_answer_in_pieces_is_read_to_its_end(engine: Engine, watch: Watch) -> None:
    engine.dribbles = True
    watch.begin(engine)
    assert (await watch.until(ready=True)).failures == 0


async def test_other_engines_are_only_asked_for_their_health(engine: Engine, watch: Watch) -> None:
    engine.secret = "another"
    watch.begin(engine, kind="generic")
    await watch.until(ready=True)
    assert set(engine.asked) == {"/health"}


@pytest.mark.parametrize(
    ("illness", "message"),
    [
        ({"secret": "another"}, "/v1/models answered 401: another program may be listening there"),
        ({"model": "other"}, "the model 'm' is not served there"),
        ({"health": 503}, "/health answered 503"),
        ({"hangs": True}, r"does not answer \(no (answer|connection) within 0\.1 s\)"),
        ({"models": b"<html>"}, "the model 'm' is not served there"),
        ({"models": b"[]"}, "the model 'm' is not served there"),
        ({"models": b'{"data": null}'}, "the model 'm' is not served there"),
        ({"models": b'{"data": ["m"]}'}, "the model 'm' is not served there"),
        ({"models": b'{"data": [{"id": ["m"]}]}'}, "the model 'm' is not served there"),
        ({"models": b"[" * 200_000}, "the model 'm' is not served there"),
        ({"models": b"\xff\xfe"}, "the model 'm' is not served there"),
    ],
)
async def test_what_is_not_well_or_not_ours_fails_again_and_again(
    engine: Engine, watch: Watch, illness: dict[str, object], message: str
) -> None:
    for name, value in illness.items():
        setattr(engine, name, value)
    watch.begin(engine, health=HASTY if engine.hangs else HEALTH)
    probe = await watch.until(ready=False, failures=3)
    assert re.search(message, probe.message)
    assert watch.woken == ["one"], "a start that takes its time wakes nobody again"


async def test_nobody_there_is_a_failure(watch: Watch) -> None:
    async with listening(Engine().serve) as port:
        pass
    watch.begin(Engine(port=port))
    assert "does not answer" in (await watch.until(ready=False, failures=2)).message


async def test_what_speaks_no_http_is_a_failure(watch: Watch) -> None:
    async def other(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n" + b"\0" * 100)

    async with listening(other) as port:
        watch.begin(Engine(port=port))
        assert "does not answer" in (await watch.until(ready=False, failures=2)).message
        await watch.probes.close()


async def test_redirections_are_not_followed(engine: Engine, watch: Watch) -> None:
    engine.health = 302
    watch.begin(engine)
    await asyncio.sleep(0.1)
    assert "/elsewhere" not in engine.asked


async def test_each_change_wakes_and_clears_the_count(engine: Engine, watch: Watch) -> None:
    watch.begin(engine)
    await watch.until(ready=True)
    woken = len(watch.woken)
    engine.health = 503
    await watch.until(ready=False, failures=3)
    assert len(watch.woken) >= woken + 3, "each failure of one that was ready counts"
    engine.health = 200
    assert (await watch.until(ready=True)).failures == 0
    woken = len(watch.woken)
    await asyncio.sleep(0.2)
    assert len(watch.woken) == woken, "as long as it is well nobody is woken"


async def test_it_is_watched_once(engine: Engine, watch: Watch) -> None:
    watch.begin(engine)
    await watch.until(ready=True)
    before = watch.probes.latest(TOKEN)
    for _ in range(5):
        watch.begin(engine)
    assert watch.probes.latest(TOKEN) is before


async def test_a_changed_target_is_watched_anew(engine: Engine, watch: Watch) -> None:
    watch.begin(engine, model="other")
    await watch.until(ready=False)
    watch.begin(engine)
    assert watch.probes.latest(TOKEN) is None
    await watch.until(ready=True)


async def test_a_forgotten_one_is_not_probed(engine: Engine, watch: Watch) -> None:
    watch.begin(engine)
    await watch.until(ready=True)
    watch.probes.forget(TOKEN)
    assert watch.probes.latest(TOKEN) is None
    await asyncio.sleep(0.1)
    asked = len(engine.asked)
    await asyncio.sleep(0.2)
    assert len(engine.asked) == asked
    assert watch.probes.latest(TOKEN) is None
    watch.probes.forget("never heard of")


async def test_forgetting_in_the_middle_of_a_probe_leaves_nothing(engine: Engine, watch: Watch) -> None:
    engine.hangs = True
    watch.begin(engine, health=HASTY)
    async with asyncio.timeout(60):
        while not engine.asked:
            await asyncio.sleep(0.005)
    watch.probes.forget(TOKEN)
    await asyncio.sleep(0.5)
    assert watch.probes.latest(TOKEN) is None
    assert watch.woken == []


@pytest.mark.parametrize("missing", ["port", "health"])
async def test_what_does_not_listen_is_not_probed(watch: Watch, missing: str) -> None:
    watch.probes.watch(attempt(None if missing == "port" else 1), spec(health=None if missing == "health" else HEALTH))
    await asyncio.sleep(0.1)
    assert watch.probes.latest(TOKEN) is None


async def test_an_address_of_version_6_is_understood(watch: Watch) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    async with listening(Engine().serve, host="::1") as port:
        watch.probes.watch(replace(attempt(port), host="::1"), spec())
        await watch.until(ready=True)
        await watch.probes.close()


async def test_of_many_only_some_are_asked_at_once(
    engine: Engine, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller.cluster.probes, "MOST_PER_SECOND", 10_000)
    monkeypatch.setattr(controller.cluster.probes, "MOST_AT_ONCE", 3)
    watch.probes = HttpProbes(Clock(), watch.doors, watch.woken.append, watch)
    engine.hangs = True
    before = len(asyncio.all_tasks())
    for number in range(50):
        watch.probes.watch(replace(attempt(engine.port), token=f"af-x-one-{number}-1"), spec(health=HASTY))
    try:
        async with asyncio.timeout(60):
            while len(engine.asked) < 3:
                await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) - before <= 2 * 3 + 1  # each end of a connection, and the turns
            while len(engine.asked) < 50:  # each is given up in time, and the next has its turn
                engine.hangs = False
                await asyncio.sleep(0.01)
    finally:
        await watch.probes.close()


async def test_a_probe_that_breaks_is_made_again(
    engine: Engine, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask = HttpProbes._ask

    async def broken(self: HttpProbes, target: Target, *, served: bool) -> str | None:
        monkeypatch.setattr(HttpProbes, "_ask", ask)
        raise RuntimeError("never thought of")

    monkeypatch.setattr(HttpProbes, "_ask", broken)
    watch.begin(engine)
    await watch.until(ready=True)
    assert "a probe failed" in caplog.text


async def test_forgetting_before_the_first_step_keeps_no_turn(engine: Engine, watch: Watch) -> None:
    for _ in range(2 * MOST_AT_ONCE):
        watch.begin(engine)
        await asyncio.sleep(0)
        watch.probes.forget(TOKEN)
    watch.begin(engine)
    await watch.until(ready=True)


# Other kinds of checks


async def test_tcp_only_connects(engine: Engine, watch: Watch) -> None:
    engine.health = 503
    watch.begin(engine, kind="generic", health=replace(HEALTH, kind="tcp"))
    assert (await watch.until(ready=True)).failures == 0
    assert engine.asked == []
    assert watch.woken == ["one"]


async def test_tcp_over_ipv6(watch: Watch) -> None:
    async with listening(Engine().serve, host="::1") as port:
        watch.probes.watch(replace(attempt(port), host="::1"), spec("generic", replace(HEALTH, kind="tcp")))
        await watch.until(ready=True)


async def test_where_nothing_accepts_connections_tcp_fails_again_and_again(watch: Watch) -> None:
    port = free_port()
    watch.begin(Engine(port=port), kind="generic", health=replace(HEALTH, kind="tcp"))
    probe = await watch.until(ready=False, failures=3)
    assert probe.message == f"nothing accepts connections at 127.0.0.1:{port} (ConnectionRefusedError)"


async def test_tcp_gives_up_on_a_connection_that_does_not_come(watch: Watch) -> None:
    with socket.socket() as full, contextlib.ExitStack() as clients:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(8):  # more than its backlog holds: the next one's SYN is dropped
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        health = replace(HASTY, kind="tcp")
        watch.begin(Engine(port=full.getsockname()[1]), kind="generic", health=health)
        assert "TimeoutError" in (await watch.until(ready=False, failures=2)).message


async def test_the_jobs_own_verdict_is_believed_and_its_flips_wake(watch: Watch) -> None:
    watch.begin(Engine(port=1), kind="generic", health=replace(HEALTH, kind="command"))
    assert "no health check yet" in (await watch.until(ready=False, failures=1)).message
    watch.told = Verdict(ok=True, failures=0)
    await watch.until(ready=True)
    watch.told = Verdict(ok=False, failures=7, message="no room")
    probe = await watch.until(ready=False)
    assert (probe.failures, probe.message) == (7, "no room")
    assert len(watch.woken) >= 3


async def test_once_asks_the_same_way(watch: Watch) -> None:
    health = replace(HEALTH, kind="command")
    watch.told = Verdict(ok=False, failures=2, message="ill")
    probe = await watch.probes.once(attempt(1), spec("generic", health))
    assert probe is not None
    assert (probe.ready, probe.failures, probe.message) == (False, 2, "ill")


async def test_an_engine_whose_job_is_missed_is_asked_at_once_and_closely(engine: Engine, watch: Watch) -> None:
    """What it answers decides whether it is gone."""
    seldom = replace(HEALTH, interval=3600.0)
    watch.begin(engine, health=seldom)
    await watch.until(ready=True)
    missed = replace(attempt(engine.port), absent_since=0.5)
    asked = len(engine.asked)
    watch.probes.watch(missed, ProbeSpec.of(spec(health=seldom)))
    async with asyncio.timeout(60):
        while len(engine.asked) < asked + 6:  # each probe asks twice
            await asyncio.sleep(0.005)


async def test_a_draining_engine_is_asked_at_once_and_closely_what_is_in_flight(engine: Engine, watch: Watch) -> None:
    seldom, engine.in_flight = replace(HEALTH, interval=3600.0), 2.0
    watch.begin(engine, health=seldom)
    await watch.until(ready=True)
    watch.probes.watch(replace(attempt(engine.port), draining_since=0.5), ProbeSpec.of(spec(health=seldom)))

    seen: list[Probe | None] = []

    async def until_asked() -> Probe:
        asked = engine.asked.count("/metrics")
        async with asyncio.timeout(60):
            while engine.asked.count("/metrics") < asked + 2:
                seen.append(watch.probes.latest(TOKEN))
                await asyncio.sleep(0)
        return await watch.until(ready=True)

    assert (await until_asked()).quiet_since is None
    engine.in_flight = 0.0
    first = await until_asked()
    seen.clear()
    later = await until_asked()
    assert first.quiet_since is not None
    assert {probe.quiet_since for probe in seen if probe is not None} == {first.quiet_since}, "nor while it is asked"
    assert later.quiet_since == first.quiet_since < later.at
    engine.in_flight = 1.0
    assert (await until_asked()).quiet_since is None


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        (b"vllm:num_requests_running 1.0\nvllm:num_requests_waiting 2.0\n", 3),
        (b'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_running{engine="1"} 1e0\n', 1),
        (b"# vllm:num_requests_running 1.0\nvllm:num_requests_running_total 1.0\n", None),
        (b"", None),
    ],
)
def test_what_is_in_flight_is_what_runs_and_what_waits(metrics: bytes, found: float | None) -> None:
    assert in_flight(metrics) == found


@pytest.mark.parametrize("age", [30.0, None], ids=["signs", "gives none"])
async def test_a_verdict_is_no_younger_than_its_writers_last_sign(watch: Watch, age: float | None) -> None:
    """The file stays when its writer is gone; of a writer that gives no signs nobody knows how old it is."""
    watch.told = Verdict(ok=True, failures=0, age=age)
    found = await watch.probes.once(attempt(1), ProbeSpec.of(spec("generic", replace(HEALTH, kind="command"))))
    assert found is not None
    assert found.at == (1.0 - age if age is not None else 0.0)


@pytest.mark.parametrize(
    ("age", "listens", "found"),
    [(60.0, True, (True, False)), (60.0, False, (False, True)), (1.0, True, (False, True))],
    ids=["outlived", "gone", "checked just now"],
)
async def test_an_engine_that_outlives_its_own_checks_is_asked_for_a_connection(
    watch: Watch, age: float, listens: bool, found: tuple[bool, bool]
) -> None:
    """Once its job is missed. Whose it is no connection tells."""
    health = replace(HEALTH, kind="command")
    watch.told = Verdict(ok=False, failures=1, age=age)

    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(wait) as port:
        missed = replace(attempt(port if listens else 1), absent_since=0.5)
        watch.probes.watch(missed, ProbeSpec.of(spec("generic", health)))
        probe = await watch.until(ready=found[0])
    assert (probe.ready, probe.is_own) == found


async def not_asked(caplog: pytest.LogCaptureFixture, times: int) -> None:
    """Wait until this host could not ask so many times more."""

    def counted() -> int:
        return sum(record.message == "this host can't ask an engine" for record in caplog.records)

    before = counted()
    async with asyncio.timeout(60):
        while counted() < before + times:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["vllm", "tcp"])
async def test_what_this_host_lacks_is_no_failure_of_an_engine(
    engine: Engine, watch: Watch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """2,000 idle connections to the controller had it replace engines that were well."""
    watch.begin(engine, health=replace(HEALTH, kind="tcp") if kind == "tcp" else HEALTH)
    known = await watch.until(ready=True)
    woken = len(watch.woken)
    with none_left():
        await not_asked(caplog, 5)
        latest = watch.probes.latest(TOKEN)
        assert latest is not None
        assert (latest.ready, latest.failures) == (True, 0)
        assert latest.at >= known.at
        assert await watch.probes.once(attempt(engine.port), ProbeSpec.of(spec())) is None
    assert len(watch.woken) == woken
    asked_at = latest.at
    async with asyncio.timeout(60):
        while (latest := watch.probes.latest(TOKEN)) is None or latest.at <= asked_at:
            await asyncio.sleep(0.01)
    assert latest.ready, "it is asked again when that is possible"


async def test_failures_before_are_neither_forgotten_nor_counted_on(
    engine: Engine, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    engine.health = 503
    watch.begin(engine)
    await watch.until(ready=False, failures=2)
    with none_left():
        await not_asked(caplog, 1)
        before = watch.probes.latest(TOKEN)
        await not_asked(caplog, 3)
        assert watch.probes.latest(TOKEN) == before


@pytest.mark.parametrize("kind", ["vllm", "tcp"])
async def test_a_name_that_can_not_be_resolved_is_no_failure(
    watch: Watch, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    health = replace(HEALTH, kind="tcp") if kind == "tcp" else HEALTH
    watch.probes.watch(replace(attempt(1), host="node1"), ProbeSpec.of(spec(health=health)))
    await not_asked(caplog, 3)
    assert watch.probes.latest(TOKEN) is None


async def test_a_verdict_that_can_not_be_read_now_is_none(
    engine: Engine, watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(service_id: str, token: str) -> Verdict | None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch, "verdict", refuse)
    watch.begin(engine, health=replace(HEALTH, kind="command"))
    await not_asked(caplog, 1)
    assert watch.probes.latest(TOKEN) is None


# Through a door

BEHIND = {
    "vllm": spec(),
    "http": spec("generic"),
    "tcp": spec("generic", replace(HEALTH, kind="tcp")),
}
every_kind = pytest.mark.parametrize("launch", BEHIND.values(), ids=BEHIND)


def doored(port: int, key: bytes = KEY) -> Attempt:
    return replace(attempt(port), door=key_id(key))


@every_kind
async def test_what_answers_through_a_door_is_its_own(watch: Watch, launch: LaunchSpec) -> None:
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(launch))
        probe = await watch.until(ready=True)
    assert (probe.is_own, probe.failures) == (True, 0)
    assert not any("Authorization" in head for head in engine.heads)


@every_kind
@pytest.mark.parametrize(
    "door",
    [None, door_context(OTHER_TOKEN), door_context(TOKEN, STRANGE_KEY)],
    ids=["plain", "of another attempt", "of another key"],
)
async def test_another_program_in_a_doors_place_is_found_out_and_told_nothing(
    watch: Watch, launch: LaunchSpec, door: ssl.SSLContext | None
) -> None:
    engine = Engine()
    async with listening(engine.unguarded, door) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(launch))
        probe = await watch.until(ready=False, failures=2)
        words = f"another program listens at https://127.0.0.1:{port}: it can't prove that it is {TOKEN}"
        assert probe.message == words
    assert (engine.asked, probe.is_own) == ([], False)


async def test_who_has_no_certificate_of_the_installation_is_not_let_in(watch: Watch) -> None:
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET /health HTTP/1.1\r\n\r\n")
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
            writer.transport.abort()
    assert engine.asked == []


async def test_a_door_answers_before_its_engine_does(watch: Watch) -> None:
    """It takes connections from the beginning: what counts is that it says that its engine does."""

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    context = door_context(TOKEN)
    context.set_alpn_protocols(["http/1.1"])  # one that tells nobody who watches
    async with listening(silent, context) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(spec("generic", replace(HASTY, kind="tcp"))))
        probe = await watch.until(ready=False, failures=2)
    assert "nothing accepts connections" in probe.message


async def test_whose_an_engine_is_that_outlives_its_checks_its_door_tells(watch: Watch) -> None:
    watch.told = Verdict(ok=False, failures=1, age=60.0)
    async with listening(Engine().serve, door_context(TOKEN)) as port:
        missed = replace(doored(port), absent_since=0.5)
        watch.probes.watch(missed, ProbeSpec.of(spec("generic", replace(HEALTH, kind="command"))))
        probe = await watch.until(ready=True)
    assert probe.is_own


async def test_behind_a_door_of_an_unknown_key_nothing_is_asked_until_it_is_known(watch: Watch) -> None:
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN, NEWER_KEY)) as port:
        for _ in range(3):
            watch.probes.watch(doored(port, NEWER_KEY), ProbeSpec.of(spec()))
        probe = watch.probes.latest(TOKEN)
        assert probe is not None
        assert (probe.ready, probe.failures, probe.asked) == (False, 0, False)
        assert f"under the key {key_id(NEWER_KEY)}, which the key file does not hold" in probe.message
        assert watch.woken == ["one"]
        assert await watch.probes.once(doored(port, NEWER_KEY), ProbeSpec.of(spec())) == replace(probe, at=2.0)
        assert engine.asked == []

        write_keys(watch.key_file, NEWER_KEY, KEY)
        watch.probes.watch(doored(port, NEWER_KEY), ProbeSpec.of(spec()))
        assert watch.probes.latest(TOKEN) is None
        assert (await watch.until(ready=True)).asked

        write_keys(watch.key_file, KEY)
        watch.probes.watch(doored(port, NEWER_KEY), ProbeSpec.of(spec()))
        asked = len(engine.asked)
        probe = watch.probes.latest(TOKEN)
        assert probe is not None
        assert not probe.asked
        await asyncio.sleep(0.2)
        assert len(engine.asked) <= asked + 1, "one may have been under way"
        watch.probes.forget(TOKEN)
        assert watch.probes.latest(TOKEN) is None


async def test_the_end_of_an_engine_behind_a_door_is_known_at_once(watch: Watch) -> None:
    """Long before its next turn."""
    engine, slow = Engine(), replace(HEALTH, interval=3600.0)
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(spec(health=slow)))
        await watch.until(ready=True)
        async with asyncio.timeout(60):
            while not watch.probes.watches.held:
                await asyncio.sleep(0.01)
        assert watch.ends == 0
    await watch.until(ready=False)
    assert watch.ends >= 1


async def test_what_is_not_probed_any_more_is_not_watched_either(watch: Watch) -> None:
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(spec()))
        async with asyncio.timeout(60):
            while not watch.probes.watches.held:
                await asyncio.sleep(0.01)
        watch.probes.forget(TOKEN)
        assert watch.probes.watches.held == 0


async def test_through_a_door_the_model_is_asked_for_until_it_was_there(watch: Watch) -> None:
    """What answers there is one engine all the while, and each request costs a handshake."""
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(spec()))
        await watch.until(ready=True)
        asked = len([head for head in engine.heads if "/v1/models" in head])
        before = len(engine.heads)
        async with asyncio.timeout(60):
            while len(engine.heads) < before + 3:
                await asyncio.sleep(0.01)
        assert len([head for head in engine.heads if "/v1/models" in head]) == asked == 1


async def test_what_is_not_watched_yet_is_as_ready_as_its_engine_says(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("controller.cluster.watches._connect", never)
    engine = Engine()
    async with listening(engine.unguarded, door_context(TOKEN)) as port:
        watch.probes.watch(doored(port), ProbeSpec.of(spec()))
        probe = await watch.until(ready=True)
    assert (probe.failures, watch.probes.watches.held, watch.ends) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["http", "tcp"])
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("no-such-node.invalid", "this host knows no address of that name"),
        ("127.0.0.1", ""),
        ("::1", ""),
    ],
)
async def test_what_can_not_be_reached_is_told_with_its_address(watch: Watch, kind: Any, host: str, said: str) -> None:
    """Refused, or of a name that is not known: both count."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        asked = ProbeSpec(engine="generic", model=None, health=replace(HEALTH, kind=kind, timeout=5.0))
        found = await watch.probes.once(replace(attempt(port), host=host), asked)
    assert found is not None
    assert (found.ready, found.failures, found.unreached_since is not None) == (False, 1, True)
    assert f"{port}" in found.message
    assert host in found.message
    assert said in found.message
