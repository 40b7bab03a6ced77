"""What each function's pods did since its first deploy, past ones included: they tell totals, which are summed up.

Kept in notes now and then: after a kill the last seconds of pods that are gone, too, may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec.cluster import Figures
from fleetfn_spec.control import Counters
from fleetfn_spec.gateway import Sums, WorkerFigures

from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.notes import Notes

log = logging.getLogger("fleetfn.gateway")

EVERY = 5.0
"""Seconds between writes."""

RUNS = 1000
"""Processes of a function whose totals are remembered: far more than there are at a time."""


class _Kept(msgspec.Struct):
    sums: Sums = Sums(counters=Counters())
    runs: dict[str, Counters] = {}
    """What each process said last, the oldest first."""


class Tallies:
    """Use on one loop."""

    def __init__(self, notes: Notes, pods: Pods, *, clock: Callable[[], float] = time.time) -> None:
        self._notes = notes
        self._pods = pods
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._changed: set[str] = set()

    def told(self, function: str, figures: Figures, *, woken: bool = False) -> None:
        """`woken`: it is the function's only pod. Raises StoreError."""
        kept = self._of(function)
        before = kept.runs.pop(figures.run, None)
        kept.runs[figures.run] = figures.counters
        while len(kept.runs) > RUNS:
            del kept.runs[next(iter(kept.runs))]
        sums = msgspec.structs.replace(
            kept.sums, counters=_plus(kept.sums.counters, _minus(figures.counters, before or Counters()))
        )
        if figures.last_error and (figures.last_error_time or 0.0) > (sums.last_error_time or 0.0):
            sums = msgspec.structs.replace(sums, last_error=figures.last_error, last_error_time=figures.last_error_time)
        if before is None and woken:
            counters = _plus(sums.counters, Counters(cold_starts=1))
            sums = msgspec.structs.replace(sums, counters=counters, last_activation=self._clock())
        if sums != kept.sums:
            kept.sums = sums
            self._changed.add(function)

    def all(self, functions: Iterable[str]) -> dict[str, Sums]:
        """Raises StoreError."""
        found: dict[str, dict[str, WorkerFigures]] = {}
        for pod in self._pods.all():
            if (said := pod.figures) is not None:
                found.setdefault(pod.function, {})[pod.name] = WorkerFigures(in_flight=said.in_flight, rss=said.rss)
        return {name: msgspec.structs.replace(self._of(name).sums, workers=found.get(name, {})) for name in functions}

    async def forget(self, function: str) -> None:
        """Raises StoreError."""
        self._kept.pop(function, None)
        self._changed.discard(function)
        await self._notes.forget(_note(function))

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            await self.save()

    async def save(self) -> None:
        changed, self._changed = self._changed, set()
        notes = {_note(name): msgspec.json.encode(self._kept[name]) for name in changed}
        try:
            await self._notes.put([], notes=notes)
        except FleetError as error:
            self._changed |= changed & self._kept.keys()
            log.debug("the counters are not written: %s", error.message)

    def _of(self, function: str) -> _Kept:
        kept = self._kept.get(function)
        if kept is None:
            kept = self._kept[function] = _Kept()
            written = self._notes.note(_note(function))
            with contextlib.suppress(msgspec.MsgspecError):
                kept = self._kept[function] = msgspec.json.decode(written or b"", type=_Kept)
        return kept


def _note(function: str) -> str:
    return f"sums/{function}/"


def _plus(one: Counters, other: Counters) -> Counters:
    return _each(lambda a, b: a + b, one, other)


def _minus(one: Counters, other: Counters) -> Counters:
    return _each(lambda a, b: a - b, one, other)


def _each(work: Callable[[int, int], int], one: Counters, other: Counters) -> Counters:
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return Counters(**dict(zip(Counters.__struct_fields__, (work(*each) for each in pairs), strict=True)))
