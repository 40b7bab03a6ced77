"""GET /metrics: the node's own figures, and those of every worker that runs, as one Prometheus text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as Count
from prometheus_client.core import GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric


class NodeMetrics:
    """`fleetfn_node_*`. Phases are read when somebody asks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.activations = Count(
            "fleetfn_node_activations", "Workers started because of an event.", ["function"], registry=self.registry
        )
        self.cold_start = Histogram(
            "fleetfn_node_cold_start_seconds",
            "From activation to ready.",
            ["function"],
            buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
            registry=self.registry,
        )

        self._refused = Count(
            "fleetfn_node_http_refused",
            "Callers that the front door had no room for, by what there was too much of.",
            ["what"],
            registry=self.registry,
        )

    def refused(self, what: str) -> None:
        self._refused.labels(what).inc()

    def woke(self, function: str) -> Callable[[float], None]:
        """What to call with the seconds of each cold start."""

        def measured(seconds: float) -> None:
            self.activations.labels(function).inc()
            self.cold_start.labels(function).observe(seconds)

        return measured

    def text(self, phases: Iterable[str]) -> bytes:
        return generate_latest(self.registry) + generate_latest(_Phases(phases).registry)


class _Phases:
    def __init__(self, phases: Iterable[str]) -> None:
        self._counts = Counter(phases)
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("fleetfn_node_functions", "Functions by phase.", labels=["phase"])
        for phase, count in sorted(self._counts.items()):
            family.add_metric([phase], count)
        yield family


class _Family:
    def __init__(self) -> None:
        self.heads: list[str] = []
        self.samples: dict[str, str] = {}
        """Series (name and labels) -> value, as written."""

    def add(self, series: str, value: str) -> None:
        """A series that another process has, too, is added up, but for a time: there the longer one is told."""
        known = self.samples.get(series)
        if known is not None:
            is_time = series.partition("{")[0].endswith("_seconds")
            both = float(known), float(value)
            value = repr(max(both) if is_time else sum(both))
        self.samples[series] = value

    def lines(self) -> Iterator[str]:
        yield from self.heads
        yield from (f"{series} {value}" for series, value in self.samples.items())


def merged(texts: Iterable[bytes]) -> bytes:
    """Expositions of several processes as one: a family's HELP and TYPE once, each series once."""
    families: dict[str, _Family] = {}
    for text in texts:
        name = ""
        for line in text.decode().splitlines():
            if line.startswith("# "):
                name = line.split(" ", 3)[2]
                heads = families.setdefault(name, _Family()).heads
                if line not in heads:
                    heads.append(line)
            elif line.strip():
                series, _, value = line.rpartition(" ")
                families.setdefault(name, _Family()).add(series, value)
    return "".join(line + "\n" for family in families.values() for line in family.lines()).encode()
