"""Gateways: who lives, and up to where all of those have heard."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from controller.cluster.gateways import FORGOTTEN_AFTER, LIVES, Gateways
from controller.ports import Gateway


class FakeStore:
    """Rows of gateways, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.rows: dict[str, Gateway] = {}

    def sign(self, id_: str, applied: int) -> None:
        signs = self.rows[id_].signs + 1 if id_ in self.rows else 1
        self.rows[id_] = Gateway(id=id_, applied=applied, signs=signs)

    async def gateways(self) -> tuple[Gateway, ...]:
        return tuple(self.rows.values())

    async def forget_gateways(self, ids: Collection[str]) -> None:
        for id_ in ids:
            del self.rows[id_]


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def gateways(store: FakeStore) -> Gateways:
    return Gateways(store, lambda: store.now)  # type: ignore[arg-type]


async def test_where_none_lives_none_is_waited_for(gateways: Gateways) -> None:
    assert await gateways.heard() is None


async def test_all_have_heard_what_the_last_of_them_has(store: FakeStore, gateways: Gateways) -> None:
    store.sign("a", 7)
    store.sign("b", 5)
    assert await gateways.heard() == 5
    store.sign("b", 8)
    assert await gateways.heard() == 7


async def test_one_that_gives_no_signs_is_not_waited_for_any_more(store: FakeStore, gateways: Gateways) -> None:
    store.sign("a", 7)
    store.sign("b", 5)
    await gateways.heard()
    store.now += LIVES
    store.sign("a", 9)
    assert await gateways.heard() == 5
    store.now += 0.1
    assert await gateways.heard() == 9
    store.sign("b", 5)
    assert await gateways.heard() == 5, "it has come back"


async def test_a_row_that_was_never_seen_may_be_of_one_that_lives(store: FakeStore) -> None:
    store.sign("dead for a year", 3)
    assert await Gateways(store, lambda: store.now).heard() == 3  # type: ignore[arg-type]


async def test_the_rows_of_the_dead_are_removed(store: FakeStore, gateways: Gateways) -> None:
    store.sign("a", 7)
    store.sign("b", 5)
    await gateways.heard()
    store.now += FORGOTTEN_AFTER + 1
    store.sign("a", 7)
    assert await gateways.heard() == 7
    assert list(store.rows) == ["a"]
