"""When runs of many keys fail alike, something that they all need is down: a breaker says so, and when to probe.

It counts the failures of one trigger within a window. It opens when runs of enough different keys failed alike
(exception type and place; timeouts), and they are most of all runs that ended within the window: when one more fails,
or when what went well has left the window, since keys that all wait fail no more. While it is open, probes run 1 s
after, then 2 s, 4 s ... up to `LONGEST` apart; one that ends in any other way closes it.

It opens again a part of its window later at the soonest: what waited goes on all at once, and those that fail may be
the first of it, though most end well.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import msgspec
from fleetfn.invocation import Again

FIRST = 1.0
"""Seconds from opening to the first probe."""

LONGEST = 10.0
"""Seconds between probes at most: what waits goes on so soon after an outage's end."""

JITTER = 0.2

KEPT = 10_000
"""Failures that are counted at most: with more within its window, the window is shorter."""

SETTLE = 0.25
"""Of a window, after it closed."""

SAMPLES = 10
"""Of how many runs have ended, per window."""

R = TypeVar("R")


class Alike(NamedTuple):
    """How a run failed. A timeout has no type."""

    type: str
    place: str

    def __str__(self) -> str:
        if not self.type:
            return "did not end within their timeout"
        return f"failed with {self.type}" + (f" at {self.place}" if self.place else "")


def alike_of(outcome: Again) -> Alike | None:
    """How the handler failed; None: it did not, it asked to come again, or it was nobody's fault."""
    if not outcome.counted:
        return None
    if outcome.timed_out:
        return Alike("", "")
    return None if outcome.failure is None else Alike(outcome.failure.type, outcome.failure.place)


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """What a breaker opened for, as it is kept over restarts."""

    since: float
    """Unix seconds."""
    type: str
    place: str
    failed: int
    runs: int
    keys: int

    @property
    def alike(self) -> Alike:
        return Alike(self.type, self.place)

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.gmtime(self.since))
        return f"breaker open since {since} UTC: {self.failed} of {self.runs} runs of {self.keys} keys {self.alike}"


@dataclass(frozen=True, slots=True)
class Limits:
    keys: int = 5
    window: float = 5.0
    """Seconds."""


class _Failure(NamedTuple, Generic[R]):
    when: float
    alike: Alike
    key: Hashable
    run: R


class Breaker(Generic[R]):
    """Of one trigger. Times are monotonic seconds that the caller gives; `R` is what the caller calls a run."""

    def __init__(self, limits: Limits, *, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self.limits = limits
        self.opened: Opened | None = None
        self.probe_at = 0.0
        """When the next probe may run."""
        self._begin = 0.0
        """All failures since then are counted."""
        self.settled = 0.0
        """When it may open again."""
        self._delay = FIRST
        self._jitter = jitter
        self._failures: deque[_Failure[R]] = deque()
        self._keys: dict[Alike, Counter[Hashable]] = {}
        self._samples: deque[tuple[float, int]] = deque()

    def look(self, now: float, ended: int, clock: float) -> list[R] | None:
        """To be called `SAMPLES` times per window. So many runs have ended by now, ever; the answer is that of
        `failed`.
        """
        samples = self._samples
        start = now - self.limits.window
        while len(samples) > 1 and samples[1][0] <= start:
            samples.popleft()
        samples.append((now, ended))
        self._forget(start)
        found = (self._judge(now, ended, alike, clock) for alike in list(self._keys))
        return next((likewise for likewise in found if likewise is not None), None)

    def failed(self, now: float, ended: int, alike: Alike, key: Hashable, run: R, clock: float) -> list[R] | None:
        """A run failed. Where the breaker opens by it: the runs that failed likewise within the window, this one
        included, each as often as it did. `clock`: Unix seconds.
        """
        if self.opened is not None:
            return None
        self._forget(now - self.limits.window)
        if len(self._failures) >= KEPT:
            self._begin = self._failures[0].when
            self._drop()
        self._failures.append(_Failure(now, alike, key, run))
        self._keys.setdefault(alike, Counter())[key] += 1
        return self._judge(now, ended, alike, clock)

    def _judge(self, now: float, ended: int, alike: Alike, clock: float) -> list[R] | None:
        keys = self._keys[alike]
        if len(keys) < self.limits.keys or now < self.settled:
            return None
        count = keys.total()
        runs = ended - self._ended_at(max(now - self.limits.window, self._begin))
        if count * 2 <= runs:
            return None
        likewise = [each.run for each in self._failures if each.alike == alike]
        found = {"failed": count, "runs": max(runs, count), "keys": len(keys)}
        self.open(Opened(since=clock, type=alike.type, place=alike.place, **found), now)
        return likewise

    def open(self, opened: Opened, now: float, *, probe: bool = False) -> None:
        """`probe`: one may run at once."""
        self.opened = opened
        self._delay = FIRST
        self.probe_at = now if probe else now + FIRST * self._jitter(1 - JITTER, 1 + JITTER)
        self._failures.clear()
        self._keys.clear()

    def probe_failed(self, now: float) -> None:
        self._delay = min(self._delay * 2, LONGEST)
        self.probe_at = now + self._delay * self._jitter(1 - JITTER, 1 + JITTER)

    def close(self, now: float, ended: int) -> None:
        """Count anew."""
        self.opened = None
        self.settled = now + self.limits.window * SETTLE
        self._samples.clear()
        self._samples.append((now, ended))

    def _ended_at(self, when: float) -> int:
        """How many runs had ended by then, as far back as it is known."""
        found = self._samples[0][1] if self._samples else 0
        for time_, ended in self._samples:
            if time_ > when:
                break
            found = ended
        return found

    def _forget(self, before: float) -> None:
        while self._failures and self._failures[0].when < before:
            self._drop()

    def _drop(self) -> None:
        failure = self._failures.popleft()
        keys = self._keys[failure.alike]
        keys[failure.key] -= 1
        if not keys[failure.key]:
            del keys[failure.key]
        if not keys:
            del self._keys[failure.alike]
