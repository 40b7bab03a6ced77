"""What each function has to do, as KEDA is told: whether it is wanted at all, and by how much.

Wanted is who has rows to run or requests that wait, whose pods have something in flight, or had a moment ago. When a
function begins to be wanted, whoever listens (the scaler's streams) hears it at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fleetfn_gateway.cluster.pods import Pods, Seen
from fleetfn_gateway.dispatch import Load

LINGER = 2.5
"""Seconds that a function stays wanted after the last reason for it: longer than it takes to ask its pods anew."""


class Demand:
    """Use on one loop. `load`: rows of a function."""

    def __init__(self, pods: Pods, load: Callable[[str], Load]) -> None:
        self.held: Counter[str] = Counter()
        """Who waits for a pod, by function: requests, and questions where rows may go."""
        self.requests: Counter[str] = Counter()
        """HTTP requests that wait for a pod, by function."""
        self._pods = pods
        self._load = load
        self._until: dict[str, float] = {}
        self._news: dict[str, set[asyncio.Event]] = {}

    @contextmanager
    def waiting(self, function: str) -> Iterator[None]:
        """Somebody waits for a pod of it."""
        if not self._expected(function) or self.starting(function):
            self.tell(function)
        self.held[function] += 1
        try:
            yield
        finally:
            self.held[function] -= 1
            self._until[function] = self._now() + LINGER

    @contextmanager
    def listening(self, function: str) -> Iterator[asyncio.Event]:
        """The event is set when the function is wanted anew."""
        event = asyncio.Event()
        self._news.setdefault(function, set()).add(event)
        try:
            yield event
        finally:
            self._news[function].discard(event)

    def listeners(self, function: str) -> int:
        return len(self._news.get(function, ()))

    def tell(self, function: str) -> None:
        """There is something to do for it."""
        for event in self._news.get(function, ()):
            event.set()

    def tell_all(self) -> None:
        for function in self._news:
            self.tell(function)

    def wanted(self, function: str) -> bool:
        """Raises StoreError."""
        if self._expected(function):
            return True
        if any(_busy(each) for each in self._pods.of(function)):
            return True
        return sum(self._load(function)) > 0

    def amount(self, function: str) -> float:
        """What it has to do at once, in the measure of scale.concurrency. Raises StoreError."""
        at_pods = sum(each.in_flight for each in self._pods.of(function) if not each.ending)
        return float(sum(self._load(function)) + self.requests[function] + at_pods)

    def starting(self, function: str) -> bool:
        """It has no pod yet, not even one that starts."""
        return all(each.ending for each in self._pods.of(function))

    def _expected(self, function: str) -> bool:
        """Somebody waits for it, or did a moment ago."""
        return self.held[function] > 0 or self._until.get(function, 0.0) > self._now()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _busy(pod: Seen) -> bool:
    """By its last answer; one that is gone is not busy for ever, and what one ends that goes needs no other."""
    return not pod.missed and not pod.ending and (pod.in_flight > 0 or (pod.idle is not None and pod.idle < LINGER))
