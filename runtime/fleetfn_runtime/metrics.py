"""What a worker counts: plain numbers bumped on its loop, made into Prometheus text only when somebody asks.

Labels are few by nature: function, trigger, outcome, output. Never a key.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from fleetfn_spec.control import Counters

if TYPE_CHECKING:
    from prometheus_client.core import Metric

DURATIONS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds in seconds, for invocations."""

AGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400)
"""Upper bounds in seconds, from an event's time to its end: a fleet comes back from a tunnel hours later."""


class Distribution:
    """A histogram of one trigger: counts per bucket, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: Sequence[float]) -> None:
        """Those below 0 do not count."""
        bounds, counts, total = self.bounds, self.counts, 0.0
        for value in values:
            if value >= 0.0:
                counts[bisect_left(bounds, value)] += 1
                total += value
        self.sum += total

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        total = 0
        found = []
        for bound, count in zip((*(str(float(bound)) for bound in self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class _Trigger:
    """What is counted of one trigger."""

    __slots__ = ("ages", "batches", "dead", "done", "duplicates", "durations", "rejected", "retried")

    def __init__(self) -> None:
        self.done = self.duplicates = self.retried = self.rejected = self.dead = 0
        self.batches: Counter[str] = Counter()
        """Runs by outcome, where the handler takes batches."""
        self.durations = Distribution(DURATIONS)
        self.ages = Distribution(AGES)

    def events(self) -> Mapping[str, int]:
        return {"done": self.done, "retry": self.retried, "reject": self.rejected}


class Reading(NamedTuple):
    """A number that somebody else keeps, read at the scrape: its name (without prefix), what it means, where it is."""

    name: str
    help: str
    read: Callable[[], float]
    counts: bool = False
    """It only grows: a counter."""


class Metrics:
    """Implements Meter. `readings`: e.g. lane depth, in flight, commits of the store."""

    def __init__(self, function: str, *, readings: tuple[Reading, ...] = ()) -> None:
        self._function = function
        self._readings = readings
        self._triggers: dict[str, _Trigger] = {}
        self._outputs: dict[str, int] = {}
        self._told = Counters()
        self.cold_start: float | None = None
        """Seconds from this process' start to ready."""

    # The road calls these for each event, or each few.

    def done(self, trigger: str, seconds: Sequence[float], age: float | None = None) -> None:
        """`seconds` below 0: another event of its batch tells. `age`: seconds from the event's own time to now; None:
        it has no time.
        """
        counts = self._triggers.get(trigger) or self._trigger(trigger)
        counts.done += len(seconds)
        counts.durations.add_all(seconds)
        if age is not None:
            counts.ages.add(age)

    def duplicate(self, trigger: str) -> None:
        self._trigger(trigger).duplicates += 1

    def retried(self, trigger: str) -> None:
        self._trigger(trigger).retried += 1

    def rejected(self, trigger: str) -> None:
        self._trigger(trigger).rejected += 1

    def dead(self, trigger: str) -> None:
        self._trigger(trigger).dead += 1

    def batch(self, trigger: str, outcome: Literal["done", "retry", "reject"]) -> None:
        self._trigger(trigger).batches[outcome] += 1

    def emitted(self, output: str) -> None:
        self._outputs[output] = self._outputs.get(output, 0) + 1

    def ended(self, trigger: str) -> int:
        counts = self._triggers.get(trigger)
        return 0 if counts is None else counts.done + counts.retried + counts.rejected

    # For those who ask.

    def delta(self) -> Counters | None:
        """Increments since the last call; None: nothing changed."""
        now, told = self.totals(), self._told
        if now == told:
            return None
        self._told = now
        return Counters(
            done=now.done - told.done,
            retried=now.retried - told.retried,
            rejected=now.rejected - told.rejected,
            dead=now.dead - told.dead,
            emitted=now.emitted - told.emitted,
        )

    def text(self) -> bytes:
        """Prometheus' exposition."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415 - 20 ms that a start can spare

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus_client."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - see text

        yield self._counter(
            "fleetfn_invocations",
            "Runs of handlers, by how they ended.",
            "outcome",
            {
                (name, outcome): count
                for name, counts in self._triggers.items()
                for outcome, count in (counts.batches or counts.events()).items()
            },
        )
        yield self._counter(
            "fleetfn_events",
            "Runs of events, by how they ended: a run with a batch is one of each of its events.",
            "outcome",
            {
                (name, outcome): count
                for name, counts in self._triggers.items()
                for outcome, count in counts.events().items()
            },
        )
        yield self._counter("fleetfn_duplicates", "Events taken before.", None, self._by_trigger("duplicates"))
        yield self._counter("fleetfn_dead_letters", "Events given up on.", None, self._by_trigger("dead"))
        emits = CounterMetricFamily("fleetfn_emits", "Events published to outputs.", labels=["function", "output"])
        for output, count in self._outputs.items():
            emits.add_metric([self._function, output], count)
        yield emits
        yield self._histogram("fleetfn_invocation_duration_seconds", "How long handlers ran.", "durations")
        yield self._histogram("fleetfn_event_age_seconds", "From an event's own time to its end.", "ages")
        for reading in self._readings:
            family = CounterMetricFamily if reading.counts else GaugeMetricFamily
            metric = family(f"fleetfn_{reading.name}", reading.help, labels=["function"])
            metric.add_metric([self._function], reading.read())
            yield metric
        if self.cold_start is not None:
            cold = GaugeMetricFamily(
                "fleetfn_cold_start_seconds", "From the worker's start to ready.", labels=["function"]
            )
            cold.add_metric([self._function], self.cold_start)
            yield cold

    def _trigger(self, name: str) -> _Trigger:
        counts = self._triggers.get(name)
        if counts is None:
            counts = self._triggers[name] = _Trigger()
        return counts

    def totals(self) -> Counters:
        each = self._triggers.values()
        return Counters(
            done=sum(counts.done for counts in each),
            retried=sum(counts.retried for counts in each),
            rejected=sum(counts.rejected for counts in each),
            dead=sum(counts.dead for counts in each),
            emitted=sum(self._outputs.values()),
        )

    def _by_trigger(self, field: str) -> dict[tuple[str, ...], int]:
        return {(name,): getattr(counts, field) for name, counts in self._triggers.items()}

    def _counter(self, name: str, text: str, label: str | None, counts: Mapping[tuple[str, ...], int]) -> Metric:
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - see text

        labels = ["function", "trigger"] if label is None else ["function", "trigger", label]
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in counts.items():
            family.add_metric([self._function, *values], count)
        return family

    def _histogram(self, name: str, text: str, field: str) -> Metric:
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415 - see text

        family = HistogramMetricFamily(name, text, labels=["function", "trigger"])
        for trigger, counts in self._triggers.items():
            distribution: Distribution = getattr(counts, field)
            family.add_metric([self._function, trigger], distribution.buckets(), distribution.sum)
        return family
