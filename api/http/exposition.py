"""Figures of one service for Prometheus: our own, and those of its engines, each with the replica's number."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from sqlalchemy import Row

from api.gateway.engines import NO_ANSWER, Engines
from api.http.listing import WORDS
from api.http.wire import status_of
from api.web.replicas import ReadyReplica

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
log = logging.getLogger(__name__)

MOST_TEXT = 2 * 1024 * 1024
"""Bytes of what one engine tells."""
MOST_LINES = 20_000
MOST_TEXT_OF_ALL = 16 * 1024 * 1024
MOST_LINES_OF_ALL = 100_000
"""Of all engines of a service: some 140 of vLLM's."""
ENGINES_AT_ONCE = 16
SERVICES_AT_ONCE = 4
SECONDS = 10.0
"""For all engines: Prometheus, left to itself, waits no longer (scrape_timeout)."""
LONGEST_LINE = 4096
"""Characters. What parses a line takes time by the square of its length."""
OWN = "ai_factory_service_"


class Exposition(Collector):
    """A list of families, as the library wants them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give them."""
        yield from self._families

    def text(self) -> bytes:
        """Return them in Prometheus's text format."""
        return generate_latest(self)


class ServiceFigures:
    """Gathers the figures of some services at a time, and writes those of one."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._gathering = asyncio.Semaphore(SERVICES_AT_ONCE)
        self._writing = asyncio.Lock()

    async def tell(self, row: Row[Any], replicas: Sequence[ReadyReplica]) -> bytes:
        """Return what a service and its ready replicas have to tell."""
        async with self._gathering:
            texts = await engine_texts(self._engines, replicas)
            async with self._writing:
                return await asyncio.to_thread(exposition, row, texts)


async def engine_texts(engines: Engines, replicas: Sequence[ReadyReplica]) -> dict[str, str | None]:
    """Return what each replica's engine tells at /metrics; `None` of one that does not answer with figures in time.

    `None` too where those before it have told as much as there is room for.
    """
    texts: dict[str, str | None] = dict.fromkeys(replica.name for replica in replicas)
    left, free = MOST_TEXT_OF_ALL, asyncio.Semaphore(ENGINES_AT_ONCE)

    async def ask(replica: ReadyReplica) -> None:
        nonlocal left
        async with free:
            text = await _text(engines, replica) if left > 0 else None
            if text is not None and len(text) <= left:
                texts[replica.name] = text
            left -= len(text or "")

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*map(ask, replicas))
    return texts


async def _text(engines: Engines, replica: ReadyReplica) -> str | None:
    try:
        answer = await engines.get([replica], "/metrics", MOST_TEXT)
    except NO_ANSWER as error:
        log.warning("an engine's figures are left out", extra={"replica": replica.name, "reason": str(error)})
        return None
    return answer.body if answer.status == 200 and isinstance(answer.body, str) else None


def exposition(row: Row[Any], texts: Mapping[str, str | None]) -> bytes:
    """Write all figures of a service; `texts` are its ready replicas' own, by the replica's name. Not for the loop."""
    families = list(_own(row))
    up = GaugeMetricFamily(
        f"{OWN}engine_up",
        "Whether the engine of a ready replica told its figures; 0 also where they are too many to be read: "
        f"{MOST_TEXT >> 20} MiB or {MOST_LINES} lines, of all engines "
        f"{MOST_TEXT_OF_ALL >> 20} MiB or {MOST_LINES_OF_ALL} lines.",
        None,
        ["replica"],
    )
    merged: dict[str, Metric] = {}
    left = MOST_LINES_OF_ALL
    for name, text in texts.items():
        number = name.rpartition("-")[2]
        told = None if text is None else _families(text, number, min(MOST_LINES, left))
        left -= text.count("\n") if text is not None and told is not None else 0
        up.add_metric([number], float(told is not None))
        for family in told or ():
            known = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += family.samples
    return Exposition([*families, up, *(merged[name] for name in sorted(merged))]).text()


def _own(row: Row[Any]) -> Iterator[Metric]:
    about = {"service": row.id, "name": row.name}
    for name, text, value in (
        ("replicas_wanted", "How many replicas are wanted.", row.replicas or 0),
        ("replicas_ready", "How many replicas are ready.", row.ready_replicas or 0),
        ("generation", "How often what is wanted was changed.", row.generation),
        ("observed_generation", "Up to which generation the controller has looked.", row.observed_generation or 0),
        ("created_timestamp_seconds", "When it was created, in Unix seconds.", row.created_at),
    ):
        yield _gauge(name, text, [({}, float(value))], about)
    now = status_of(row)
    yield _gauge("status", "1 for the word of its status.", [({"status": w}, float(w == now)) for w in WORDS], about)


def _gauge(name: str, text: str, values: Sequence[tuple[dict[str, str], float]], about: dict[str, str]) -> Metric:
    family = Metric(OWN + name, text, "gauge")
    for labels, value in values:
        family.add_sample(OWN + name, {**about, **labels}, value)
    return family


def _families(text: str, replica: str, most: int) -> list[Metric] | None:
    """Read what an engine told; `None` if it is not Prometheus's format, or too much. Our own names are ours alone."""
    lines = text.split("\n", most)
    if len(lines) > most or max(map(len, lines)) > LONGEST_LINE:
        return None
    try:
        families = [family for family in text_string_to_metric_families(text) if not family.name.startswith(OWN)]
    except (ValueError, KeyError, IndexError):
        return None
    for family in families:
        family.samples = [
            Sample(sample.name, {**sample.labels, "replica": replica}, sample.value) for sample in family.samples
        ]
    return families
