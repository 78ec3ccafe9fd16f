"""Figures of one service for Prometheus: our own, and those of its engines, each with the replica's number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from sqlalchemy import Row

from api.http.listing import WORDS
from api.http.wire import status_of
from api.web.engines import Engines, ReadyReplica, UnreachableError

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
log = logging.getLogger(__name__)

MOST_TEXT = 2 * 1024 * 1024
"""Bytes of what one engine tells."""
MOST_LINES = 20_000
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


async def engine_texts(engines: Engines, replicas: Sequence[ReadyReplica]) -> dict[str, str | None]:
    """Return what each replica's engine tells at /metrics; `None` of one that does not answer with figures."""

    async def ask(replica: ReadyReplica) -> tuple[str, str | None]:
        try:
            answer = await engines.get([replica], "/metrics", MOST_TEXT)
        except UnreachableError as error:
            log.warning("an engine's figures are left out", extra={"replica": replica.name, "reason": str(error)})
            return replica.name, None
        return replica.name, answer.body if answer.status == 200 and isinstance(answer.body, str) else None

    return dict(await asyncio.gather(*map(ask, replicas)))


def exposition(row: Row[Any], texts: Mapping[str, str | None]) -> bytes:
    """Write all figures of a service; `texts` are its ready replicas' own, by the replica's name. Not for the loop."""
    families = list(_own(row))
    up = GaugeMetricFamily(
        f"{OWN}engine_up",
        "Whether the engine of a ready replica told its figures; 0 also where they are too many to be read: "
        f"{MOST_TEXT >> 20} MiB or {MOST_LINES} lines.",
        None,
        ["replica"],
    )
    merged: dict[str, Metric] = {}
    for name, text in texts.items():
        number = name.rpartition("-")[2]
        told = None if text is None else _families(text, number)
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


def _families(text: str, replica: str) -> list[Metric] | None:
    """Read what an engine told; `None` if it is not Prometheus's format, or too much. Our own names are ours alone."""
    lines = text.split("\n", MOST_LINES)
    if len(lines) > MOST_LINES or max(map(len, lines)) > LONGEST_LINE:
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
