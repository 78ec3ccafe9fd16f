"""The figures of a service's engines: however many there are and whatever they tell, together they are bounded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.gateway.engines import Answer, Engines
from api.http import exposition as module
from api.http.exposition import ServiceFigures, engine_texts, exposition
from api.web.replicas import ReadyReplica
from tests.evil_asking import ROW


class ManyEngines:
    """Answer with so many lines each, and count who is asked at a time."""

    def __init__(self, lines: int = 1, pause: float = 0.0) -> None:
        self.asked = self.now = self.most = 0
        self._text = "a 1\n" * lines
        self._pause = pause

    async def get(self, replicas: list[ReadyReplica], *_: object) -> Answer:
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self._pause)
        finally:
            self.now -= 1
        return Answer(replicas[0], 200, self._text)


def replicas(count: int) -> list[ReadyReplica]:
    return [
        ReadyReplica(token="t", name=f"x-{number}", models=(), host="h", port=1, door=None) for number in range(count)
    ]


def up(told: bytes) -> list[bool]:
    lines = [line for line in told.decode().splitlines() if line.startswith("ai_factory_service_engine_up{")]
    return [line.endswith(" 1.0") for line in lines]


async def test_some_are_asked_at_a_time() -> None:
    engines = ManyEngines()
    texts = await engine_texts(cast(Engines, engines), replicas(100))
    assert (engines.asked, engines.most) == (100, module.ENGINES_AT_ONCE)
    assert all(texts.values())


async def test_what_all_tell_together_is_bounded_and_the_rest_is_not_even_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_TEXT_OF_ALL", 40 * 30)  # bytes of ten
    engines = ManyEngines(lines=30)
    texts = await engine_texts(cast(Engines, engines), replicas(100))
    assert sum(text is not None for text in texts.values()) == 10
    assert engines.asked <= 10 + module.ENGINES_AT_ONCE


async def test_those_that_answer_late_take_no_more_time_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.05)
    engines = ManyEngines(pause=3600.0)
    texts = await engine_texts(cast(Engines, engines), replicas(100))
    assert set(texts.values()) == {None}
    assert (len(texts), engines.asked, engines.now) == (100, module.ENGINES_AT_ONCE, 0)


def test_lines_of_all_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LINES_OF_ALL", 100)
    text = "\n".join(f"a{number} 1" for number in range(30)) + "\n"
    assert up(exposition(ROW, {f"x-{number}": text for number in range(5)})) == [True] * 3 + [False] * 2


async def test_a_few_services_are_gathered_at_a_time() -> None:
    engines = ManyEngines(pause=0.01)
    figures = ServiceFigures(cast(Engines, engines))
    row: Any = SimpleNamespace(**vars(ROW))
    told = await asyncio.gather(*(figures.tell(row, replicas(1)) for _ in range(20)))
    assert (engines.asked, engines.most) == (20, module.SERVICES_AT_ONCE)
    assert all(up(each) == [True] for each in told)
