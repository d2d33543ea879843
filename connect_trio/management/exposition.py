"""Readings as text for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from connect_trio.metrics import Family, Reading

CONTENT_TYPE = CONTENT_TYPE_LATEST


class _Readings(Collector):
    def __init__(self, families: Sequence[Family], read: Callable[[], Iterable[Reading]]) -> None:
        self._families = families
        self._read = read

    def collect(self) -> Iterator[Metric]:
        made: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for family in self._families:
            kind = CounterMetricFamily if family.counter else GaugeMetricFamily
            made[family.name] = kind(family.name, family.help, labels=family.labels)
        for reading in self._read():
            made[reading.name].add_metric(reading.labels, reading.value)
        yield from made.values()


class Exposition:
    """The metrics of one process: `read` is called when somebody asks, and answers with readings of `families`."""

    def __init__(self, families: Sequence[Family], read: Callable[[], Iterable[Reading]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Readings(families, read))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        return generate_latest(self._registry)
