"""Who waits for a service, and whose turn it is: keys take turns, of each the first come first, and never too many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.gateway.leaving import Leaving
from api.gateway.models import NotNowError
from api.gateway.queue import Queues
from api.gateway.refusals import GatewayError
from api.gateway.table import Destination, ServedModel
from api.web.belonging import Access, Belonging

LENGTH = 3
OPERATORS = Belonging(None, None, Access.EVERYONE)
SERVED = ServedModel(id="s", name="s", models=("m",), belonging=OPERATORS, created_at=0.0, status="running", message="")
WHERE = Destination(model="m", services=(SERVED,))


class Service:
    """Takes so many at a time."""

    def __init__(self) -> None:
        self.room = 0

    def look(self) -> Destination:
        if not self.room:
            raise NotNowError("s", "busy", code="model_busy", retry_after=1, is_load=True)
        return WHERE


class Client:
    """Asks, and may leave."""

    def __init__(self, queues: Queues, service: Service, served: list[Client], key: str = "") -> None:
        self.left = asyncio.Event()
        self.leaving = Leaving(self._receive)
        self.is_refused = False
        self._served = served
        self._key = key
        self.task = asyncio.create_task(self._ask(queues, service))

    async def _receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _ask(self, queues: Queues, service: Service) -> None:
        try:
            await queues.turn(service.look, self.leaving, self._key)
            service.room -= 1
            self._served.append(self)
        except GatewayError as error:
            assert error.status in (429, 499)
            self.is_refused = error.status == 429
        finally:
            self.leaving.close()


async def settled() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


@given(st.lists(st.tuples(st.sampled_from(["come", "leave", "free"]), st.integers(0, 5)), max_size=40))
def test_whatever_happens(steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        queues, service = Queues(LENGTH, 3600.0), Service()
        served: list[Client] = []
        clients: list[Client] = []
        waiting: list[Client] = []
        expected: list[Client] = []
        for what, which in steps:
            if what == "come":
                clients.append(client := Client(queues, service, served))
                await settled()
                assert client.is_refused == (len(waiting) == LENGTH)
                waiting += [] if client.is_refused else [client]
            elif what == "leave" and waiting:
                waiting.pop(which % len(waiting)).left.set()
            elif what == "free":
                service.room = which
                queues.ring()
                expected, waiting = expected + waiting[:which], waiting[which:]
                await settled()
                service.room = 0
            await settled()
            assert served == expected
            assert len(queues._waiting.get("s", ())) == len(waiting)
        for client in clients:
            client.left.set()
        await asyncio.gather(*(client.task for client in clients))
        assert not queues._waiting

    asyncio.run(run())


async def test_who_comes_last_overtakes_nobody_that_has_been_woken() -> None:
    queues, service = Queues(LENGTH, 3600.0), Service()
    served: list[Client] = []
    first = Client(queues, service, served)
    await settled()
    service.room = 1
    last = Client(queues, service, served)
    await settled()
    assert served == []
    queues.ring()
    async with asyncio.timeout(60):
        await first.task
    assert served == [first]
    last.left.set()
    await last.task


async def test_a_key_has_half_of_a_queue_at_most() -> None:
    queues, service = Queues(4, 3600.0), Service()
    served: list[Client] = []
    greedy = [Client(queues, service, served, "greedy") for _ in range(3)]
    await settled()
    assert [client.is_refused for client in greedy] == [False, False, True]
    others = [Client(queues, service, served, "other"), Client(queues, service, served)]
    await settled()
    assert not any(client.is_refused for client in others)
    service.room = 4
    queues.ring()
    async with asyncio.timeout(60):
        await asyncio.gather(*(client.task for client in greedy + others))
    assert served == [greedy[0], *others, greedy[1]]


@given(
    st.lists(st.tuples(st.sampled_from(["come", "leave", "free"]), st.sampled_from(["", "a", "b", "c"])), max_size=40)
)
def test_keys_take_turns(steps: list[tuple[str, str]]) -> None:
    """Against the plainest way to say it: of each key the first, in the order of who has waited longest for a turn."""

    async def run() -> None:
        queues, service = Queues(1000, 3600.0), Service()
        served: list[Client] = []
        clients: list[Client] = []
        waiting: dict[str, list[Client]] = {}
        order: list[str] = []
        for what, key in steps:
            if what == "come":
                clients.append(client := Client(queues, service, served, key))
                waiting.setdefault(key, []).append(client)
                order += [] if key in order else [key]
            elif what == "leave" and waiting.get(key):
                waiting[key].pop().left.set()
                if not waiting[key]:
                    order.remove(key)
            elif what == "free" and order:
                turn = order.pop(0)
                expected = waiting[turn].pop(0)
                order += [turn] if waiting[turn] else []
                service.room = 1
                queues.ring()
                await settled()
                assert served[-1] is expected
                service.room = 0
            await settled()
        for client in clients:
            client.left.set()
        await asyncio.gather(*(client.task for client in clients))
        assert not queues._waiting

    asyncio.run(run())


async def test_who_asks_little_does_not_wait_for_who_asks_much() -> None:
    queues, service = Queues(100, 3600.0), Service()
    served: list[Client] = []
    greedy = [Client(queues, service, served, "greedy") for _ in range(20)]
    await settled()
    other = Client(queues, service, served, "other")
    await settled()
    service.room = 2
    queues.ring()
    async with asyncio.timeout(60):
        await other.task
    assert served == [greedy[0], other]
    for client in greedy:
        client.left.set()
    await asyncio.gather(*(client.task for client in greedy))


async def test_a_queue_of_one_has_room_for_a_key() -> None:
    queues, service = Queues(1, 3600.0), Service()
    client = Client(queues, service, [], "only")
    await settled()
    assert not client.is_refused
    client.left.set()
    await client.task


async def test_without_a_ring_the_first_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.gateway.queue.LOOK_SECONDS", 0.01)
    queues, service = Queues(LENGTH, 3600.0), Service()
    client = Client(queues, service, [])
    await settled()
    service.room = 1
    async with asyncio.timeout(60):
        await client.task


async def test_nobody_waits_where_there_is_no_queue() -> None:
    queues, service = Queues(0, 3600.0), Service()
    client = Client(queues, service, [])
    await settled()
    assert client.is_refused
    with pytest.raises(NotNowError):
        await Queues(LENGTH, 0.0).turn(service.look, client.leaving)
