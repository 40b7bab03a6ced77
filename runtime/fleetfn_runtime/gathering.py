"""Gathering: which events wait for others to make a batch with, and when a batch begins.

What gathers stays head of its lane, held until it has waited long enough, so that callers pass it. It goes on before,
once enough others are there. What was tried alone, or has to be, never waits: a batch is of events that may share
their fate. However little comes, a batch begins when its first event has waited for as long as its trigger says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetfn_runtime.lanes import Lanes
from fleetfn_runtime.runs import Batching, Route, Run

FULL = 10_000
"""Events that gather for one trigger at most, and the most that a batch may have. It is half of what a Kafka source
holds (see kafka_holding.py): beyond that it fetches nothing more, and waiting would be for nothing.
"""

FULL_BYTES = 32 * 1024 * 1024


class Gathering:
    """Use on one loop. `clock` is the loop's."""

    def __init__(self, routes: Sequence[Route], lanes: Lanes[Run], clock: Callable[[], float]) -> None:
        self._lanes = lanes
        self._clock = clock
        self._of = {route: _Gathered(route.batch) for route in routes if route.batch is not None}

    def __bool__(self) -> bool:
        """Some trigger has batches."""
        return bool(self._of)

    def came(self, run: Run) -> None:
        """It was put into its lane, maybe behind one that gathers."""
        own = self._of.get(run.route)
        if own is not None:
            run.came = self._clock()
        if run.key is None or run.waits:
            return
        for gathered in self._of.values():
            head = gathered.heads.get(run.key)
            if head is None:
                continue
            if gathered is own and run.chains:
                self._came_behind(gathered, head, run)
            else:
                self._lanes.let_go(head.run)  # it would only keep this one waiting

    def _came_behind(self, gathered: _Gathered, head: _Head, run: Run) -> None:
        gathered.add(head, 1, run.delivery.size)
        if gathered.full or (not gathered.batch.by_key and gathered.items >= gathered.batch.size):
            gathered.ripe = run.came
            self._let_go(gathered)
        elif gathered.batch.by_key and head.items >= gathered.batch.size:
            self._lanes.let_go(head.run)

    def take(self, route: Route, most: int) -> list[Run]:
        """Heads of up to `most` lanes, with what may come along, whose batches begin now."""
        gathered = self._of[route]
        runs = self._lanes.take(most, route.kind, gathered.batch.size)
        if not runs:
            return runs
        if gathered.heads:
            for run in runs:
                gathered.drop(run)
        now = self._clock()
        if gathered.batch.by_key:
            return [run for run in runs if self._begins(gathered, run, now)]
        return self._of_any_key(gathered, route, runs, most, now)

    def waiting(self, trigger: str) -> int:
        """Events of a trigger that gather now: they wait by intent."""
        return next((each.items for route, each in self._of.items() if route.trigger == trigger), 0)

    def forget(self, run: Run) -> None:
        """It was swept from its lane."""
        gathered = self._of.get(run.route)
        if gathered is not None:
            gathered.drop(run)

    def _begins(self, gathered: _Gathered, run: Run, now: float) -> bool:
        if (
            self._never_waits(run)
            or run.delivery.pushed
            or gathered.is_due(run, now)
            or len(run.links()) >= gathered.batch.size
        ):
            return True
        self._hold(gathered, run)
        return False

    def _of_any_key(self, gathered: _Gathered, route: Route, runs: list[Run], most: int, now: float) -> list[Run]:
        size = gathered.batch.size
        begin, joining = self._apart(runs)
        due = any(gathered.is_due(run, now) for run in joining)
        if joining and (due or gathered.items + _count(joining) >= size):
            if gathered.heads:
                self._let_go(gathered)
                alone, earlier = self._apart(self._lanes.take(most - len(runs), route.kind, size))
                begin += alone
                joining = sorted((*earlier, *joining), key=lambda run: run.came)
            *whole, rest = parties(joining, size)
            for party in whole:
                begin += party
            if due or _count(rest) >= size:
                return begin + rest
            joining = rest
        for run in joining:
            self._hold(gathered, run)
        return begin

    def _apart(self, runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
        """Those that wait for nothing, and those that may join others."""
        begin: list[Run] = []
        joining: list[Run] = []
        for run in runs:
            (begin if self._never_waits(run) else joining).append(run)
        return begin, joining

    def _never_waits(self, run: Run) -> bool:
        """It goes alone, or what is behind it could not come along, and would wait with it."""
        batch = run.route.batch
        blocks = batch is not None and len(run.links()) < batch.size and self._lanes.behind(run) > 0
        return blocks or _goes_alone(run) or run.key in run.route.held

    def _hold(self, gathered: _Gathered, run: Run) -> None:
        size = sum(link.delivery.size for link in run.links())
        if run.more:
            self._lanes.put_back(run, run.more)
            run.more = ()
        gathered.begin(run, 1 + self._lanes.behind(run), size)
        self._lanes.hold(run, run.came + gathered.batch.wait)

    def _let_go(self, gathered: _Gathered) -> None:
        heads = [head.run for head in gathered.heads.values()]
        gathered.clear()
        for run in heads:
            self._lanes.let_go(run)


def parties(runs: Sequence[Run], size: int) -> list[list[Run]]:
    """Those that make a batch together, each with what it took along: up to `size` events. Some are for themselves."""
    found: list[list[Run]] = []
    room = 0
    for run in runs:
        items = len(run.links())
        if _goes_alone(run):
            found.append([run])
            room = 0
        elif items <= room:
            found[-1].append(run)
            room -= items
        else:
            found.append([run])
            room = size - items
    return found


def _count(runs: Sequence[Run]) -> int:
    return sum(len(run.links()) for run in runs)


def _goes_alone(run: Run) -> bool:
    return run.odd or not run.chains


class _Head:
    """A head of a lane that gathers: how many events there are with it, and their bytes."""

    __slots__ = ("items", "run", "size")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.items = self.size = 0


class _Gathered:
    """What gathers for one trigger."""

    __slots__ = ("batch", "heads", "items", "ripe", "size")

    def __init__(self, batch: Batching) -> None:
        self.batch = batch
        self.heads: dict[str | Run, _Head] = {}
        """By key; those without one by themselves."""
        self.items = self.size = 0
        self.ripe = 0.0
        """What came up to then waits no longer."""

    @property
    def full(self) -> bool:
        return self.items >= FULL or self.size >= FULL_BYTES

    def is_due(self, run: Run, now: float) -> bool:
        return run.came + self.batch.wait <= now or run.came <= self.ripe

    def begin(self, run: Run, items: int, size: int) -> None:
        head = self.heads[run if run.key is None else run.key] = _Head(run)
        self.add(head, items, size)

    def add(self, head: _Head, items: int, size: int) -> None:
        head.items += items
        head.size += size
        self.items += items
        self.size += size

    def drop(self, run: Run) -> None:
        """It gathers no more, if it did."""
        name = run if run.key is None else run.key
        head = self.heads.get(name)
        if head is not None and head.run is run:
            del self.heads[name]
            self.items -= head.items
            self.size -= head.size

    def clear(self) -> None:
        self.heads.clear()
        self.items = self.size = 0
