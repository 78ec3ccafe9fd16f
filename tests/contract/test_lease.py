"""The lease: one holder at a time, taken over only when it is free, its holder is dead, or its renewals stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from backends import Backend

import controller.lease
from api.contract.database import Database
from controller.lease import Lease, SqlLeaseRecords, fence, is_dead, process_identity
from controller.ports import DeposedError, Term

LEASE = 15.0
ELSEWHERE = "other-host|boot|pid:[1]/1/1"


class Times:
    """A monotonic clock of one candidate's own, and a wall clock that means nothing."""

    def __init__(self, start: float = 100.0) -> None:
        self.monotonic = start

    def now(self) -> float:
        return 5e9 - self.monotonic * 1000

    def __call__(self) -> float:
        return self.monotonic


class Candidate:
    """A controller on a host of its own."""

    def __init__(self, database: Database, name: str, start: float = 100.0) -> None:
        self.times = Times(start)
        records = SqlLeaseRecords(database)
        self.lease = Lease(records, self.times, LEASE, holder=name, monotonic=self.times)


@pytest.fixture
async def databases(backend: Backend) -> AsyncIterator[tuple[Database, Database]]:
    both = Database(backend.url), Database(backend.url)
    yield both
    for database in both:
        await database.close()


@pytest.fixture
def first(databases: tuple[Database, Database]) -> Candidate:
    return Candidate(databases[0], "one|boot|pid:[1]/1/1")


@pytest.fixture
def second(databases: tuple[Database, Database]) -> Candidate:
    return Candidate(databases[1], "two|boot|pid:[1]/1/1", 70_000.0)


async def taken(candidate: Candidate) -> Term:
    term = await candidate.lease.acquire()
    assert term is not None
    return term


class TestTakingOver:
    async def test_the_first_gets_it(self, first: Candidate, second: Candidate) -> None:
        assert (await taken(first)).epoch == 1
        assert await second.lease.acquire() is None

    async def test_a_released_one_is_free_at_once(self, first: Candidate, second: Candidate) -> None:
        assert not first.lease.holds()
        term = await taken(first)
        assert first.lease.holds()
        await first.lease.release(term)
        assert not first.lease.holds()
        assert (await taken(second)).epoch == 2
        assert await first.lease.acquire() is None

    async def test_a_holder_that_stopped_renewing_is_replaced(self, first: Candidate, second: Candidate) -> None:
        """Counted from when the candidate saw the last renewal, on its own clock."""
        term = await taken(first)
        assert await second.lease.acquire() is None
        second.times.monotonic += LEASE - 0.1
        assert await second.lease.acquire() is None
        await first.lease.renew(term)
        second.times.monotonic += 1
        assert await second.lease.acquire() is None
        second.times.monotonic += LEASE
        assert await second.lease.acquire() is None
        second.times.monotonic += 0.1
        assert (await taken(second)).epoch == 2

    async def test_not_while_it_renews(self, first: Candidate, second: Candidate) -> None:
        term = await taken(first)
        for _ in range(20):
            second.times.monotonic += LEASE * 0.9
            await first.lease.renew(term)
            assert await second.lease.acquire() is None

    async def test_whoever_looks_for_the_first_time_waits_for_a_whole_lease(
        self, first: Candidate, second: Candidate
    ) -> None:
        await taken(first)
        second.times.monotonic += 10 * LEASE
        assert await second.lease.acquire() is None

    async def test_a_holder_has_stopped_before_another_may_begin(self, first: Candidate, second: Candidate) -> None:
        term = await taken(first)
        await first.lease.renew(term)
        await second.lease.acquire()
        for _ in range(int(LEASE * 4) + 8):
            first.times.monotonic += 0.25
            second.times.monotonic += 0.25
            if await second.lease.acquire() is not None:
                break
            last = first.lease.holds()
        assert last is False
        assert first.lease.holds() is False
        assert second.lease.holds() is True

    async def test_a_renewal_counts_from_before_it_was_written(
        self, first: Candidate, databases: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A write that took long to come through has lived a part of its time already."""
        term = await taken(first)
        write = databases[0].write

        def slow() -> object:
            first.times.monotonic += LEASE - 1
            return write()

        monkeypatch.setattr(databases[0], "write", slow)
        await first.lease.renew(term)
        assert first.lease.holds()
        first.times.monotonic += 1
        assert not first.lease.holds()

    async def test_exactly_one_of_two_wins_each_race(self, databases: tuple[Database, Database]) -> None:
        candidates = [Candidate(databases[n % 2], f"host{n}|boot|pid:[1]/1/1") for n in range(4)]
        epochs = []
        for _ in range(20):
            terms = await asyncio.gather(*(candidate.lease.acquire() for candidate in candidates))
            (winner,) = (n for n, term in enumerate(terms) if term is not None)
            won = terms[winner]
            assert won is not None
            epochs.append(won.epoch)
            await candidates[winner].lease.release(won)
        assert epochs == list(range(1, 21))


class TestDeposed:
    @pytest.fixture
    async def old(self, first: Candidate, second: Candidate) -> Term:
        """The term of `first`, which `second` has ended."""
        term = await taken(first)
        await second.lease.acquire()
        second.times.monotonic += LEASE + 1
        await taken(second)
        return term

    async def test_it_can_not_renew_and_stops_acting(self, first: Candidate, old: Term) -> None:
        assert first.lease.holds(), "by its own clock"
        with pytest.raises(DeposedError):
            await first.lease.renew(old)
        assert not first.lease.holds()

    async def test_it_can_not_release_anothers(self, first: Candidate, backend: Backend, old: Term) -> None:
        with pytest.raises(DeposedError):
            await first.lease.release(old)
        assert await backend.one("SELECT epoch, holder FROM leases") == (2, "two|boot|pid:[1]/1/1")

    async def test_it_can_not_write(self, old: Term, databases: tuple[Database, Database]) -> None:
        with pytest.raises(DeposedError, match="term 1 is over"):
            async with databases[0].write() as connection:
                await fence(connection, old)

    async def test_re_elected_it_can_not_write_under_its_old_term(
        self, first: Candidate, second: Candidate, old: Term, databases: tuple[Database, Database]
    ) -> None:
        await second.lease.release(Term(epoch=2, began_at=0))
        new = await taken(first)
        assert new.epoch == 3
        with pytest.raises(DeposedError):
            async with databases[0].write() as connection:
                await fence(connection, old)
        async with databases[0].write() as connection:
            await fence(connection, new)


class TestDeadHolders:
    @pytest.fixture
    def process(self) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            yield process
            process.kill()

    async def test_one_that_was_killed_is_replaced_at_once(
        self, first: Candidate, second: Candidate, process: subprocess.Popen[bytes]
    ) -> None:
        first.lease.holder = process_identity(process.pid)
        await taken(first)
        assert await second.lease.acquire() is None
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
        assert (await taken(second)).epoch == 2

    async def test_one_that_was_killed_and_reaped_too(
        self, first: Candidate, second: Candidate, process: subprocess.Popen[bytes]
    ) -> None:
        first.lease.holder = process_identity(process.pid)
        await taken(first)
        process.kill()
        process.wait()
        assert (await taken(second)).epoch == 2

    def test_a_stopped_process_lives(self, process: subprocess.Popen[bytes]) -> None:
        holder = process_identity(process.pid)
        process.send_signal(signal.SIGSTOP)
        assert not is_dead(holder)

    def test_another_process_under_its_number_is_not_it(self, process: subprocess.Popen[bytes]) -> None:
        machine, pid, started = process_identity(process.pid).split("/")
        assert is_dead(f"{machine}/{pid}/{int(started) - 1}")

    def test_we_live(self) -> None:
        assert not is_dead(process_identity(os.getpid()))

    @pytest.mark.parametrize("part", range(3))
    def test_of_another_machine_boot_or_namespace_nothing_is_known(self, part: int) -> None:
        machine, _, rest = process_identity(os.getpid()).partition("/")
        parts = machine.split("|")
        parts[part] += "0"
        dead = rest.replace("/", "/9")
        assert is_dead(f"{machine}/{dead}")
        assert not is_dead(f"{'|'.join(parts)}/{dead}")

    @pytest.mark.parametrize("holder", ["", "x", "/", "//", ELSEWHERE])
    def test_of_a_strange_holder_nothing_is_known(self, holder: str) -> None:
        assert not is_dead(holder)

    @pytest.mark.parametrize("rest", ["", "/", "x/1", "²/1", "-1/1", "1", "1/"])
    def test_of_a_strange_process_nothing_is_known(self, rest: str) -> None:
        machine = process_identity(os.getpid()).partition("/")[0]
        assert not is_dead(f"{machine}/{rest}")

    @pytest.mark.parametrize("error", [PermissionError(), FileNotFoundError(), OSError(24, "Too many open files")])
    def test_a_process_that_can_not_be_looked_at_lives(
        self, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, error: OSError
    ) -> None:
        """/proc may hide the processes of other users (hidepid), or we may be out of file descriptors."""
        holder = process_identity(process.pid)
        read_text = Path.read_text

        def refuse(path: Path) -> str:
            if path == Path(f"/proc/{process.pid}/stat"):
                raise error
            return read_text(path)

        monkeypatch.setattr(Path, "read_text", refuse)
        assert not is_dead(holder)
        process.kill()
        process.wait()
        assert is_dead(holder)

    def test_one_whose_start_was_never_known_is_not_called_dead(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(controller.lease, "_start_time", lambda _: None)
        holder = process_identity(os.getpid())
        monkeypatch.undo()
        assert not is_dead(holder)
