"""An outage that comes and goes, at any time and beside anything: what a breaker promises, on a road whose time passes
as the loop's does. Traffic is dense enough for an outage to be seen, and all of it needs what is down: an event that
does not would tell that nothing is. It is pulled, or pushed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import virtual_time
from fleetfn.invocation import Again, Call, Done, Failure, Outcome, Result
from fleetfn.position import At
from fleetfn_runtime import gates, invoker
from fleetfn_runtime.breaker import FIRST, LONGEST, Limits
from fleetfn_triggers.delivery import Delivery
from hypothesis import HealthCheck, Phase, given, settings
from road_doubles import STREAM, AsyncHandler, Bench, event, route
from virtual_time import LoopTime, VirtualLoop

ATTEMPTS = 3
KEYS = 12
LIMITS = Limits(5, 5.0)

SEEN = 6.5
"""Seconds of an outage after which the breaker is open: its window, and until the next look and the next event."""

WORLDS = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # smaller ones explain no more, and take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

AFTER = LONGEST * 1.2 + 2.5
"""Seconds after an outage's end until its trigger goes on at the latest: the longest wait for a probe, one that was
lost with its partition, and the run itself.
"""

DOWN = Again(reason="down", failure=Failure("ConnectionError", "refused", "handler.py:31"))


@dataclass(frozen=True)
class Weather:
    outages: tuple[tuple[float, float], ...]
    """From when to when, in seconds from the beginning."""
    chaos: tuple[tuple[float, str], ...]
    """When partitions are lost (`lose`), or the worker is replaced (`restart`)."""
    pushed: bool
    seed: int

    def down(self, at: float) -> bool:
        return any(begin <= at < end for begin, end in self.outages)


@st.composite
def weathers(draw: st.DrawFn, *, chaos: bool = True) -> Weather:
    at, outages = 2.0, []
    for _ in range(draw(st.integers(1, 3))):
        begin = at + draw(st.floats(0, 20))
        at = begin + draw(st.sampled_from([1.0, SEEN + 0.5, 9.0, 30.0, 100.0]))
        outages.append((begin, at))
        at += AFTER + 6
    what = st.tuples(st.floats(0, at), st.sampled_from(["lose", "lose", "restart"]))
    events = draw(st.lists(what, max_size=6)) if chaos else []
    return Weather(tuple(outages), tuple(sorted(events)), draw(st.booleans()), draw(st.integers(0, 2**32)))


@settings(WORLDS, max_examples=8)
@given(weathers())
def test_an_outage_costs_no_event_its_attempts_and_ends_by_itself(monkeypatch: pytest.MonkeyPatch, it: Weather) -> None:
    _run(monkeypatch, it)


@settings(WORLDS, max_examples=8)
@given(weathers(chaos=False))
def test_probes_run_two_at_a_time_at_most_and_ever_later(monkeypatch: pytest.MonkeyPatch, it: Weather) -> None:
    world = _run(monkeypatch, it)
    assert world.together <= 2, "more than two probes at a time"
    for one, third in zip(world.probes, world.probes[2:], strict=False):
        if one in world.failed and third in world.failed:  # else those behind one in its lane may come along
            assert third - one >= FIRST * 0.8, "probes came too soon"
    for one, next_ in itertools.pairwise(world.probes):
        if one in world.failed:
            assert next_ - one <= LONGEST * 1.2 + 1.0, "a probe came too late"


def _run(monkeypatch: pytest.MonkeyPatch, weather: Weather) -> World:
    chance = random.Random(weather.seed)
    random.seed(weather.seed)  # what breakers and retries draw from

    async def main(loop: VirtualLoop) -> World:
        with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
            for module in (invoker, gates):
                patch.setattr(module, "time", LoopTime(loop))
            world = World(loop, weather, chance, Path(folder) / "breaker.json")
            await world.run()
            return world

    return virtual_time.run(main, lambda: chance.choice([0.0, 0.0, 1e-4, 1e-3]))


class World:
    def __init__(self, loop: VirtualLoop, weather: Weather, chance: random.Random, file: Path) -> None:
        self.loop = loop
        self.weather = weather
        self.chance = chance
        self.file = file
        self.begun = loop.time()
        self.end = weather.outages[-1][1] + AFTER + 2
        self.running = self.together = 0
        """How many run now, and ran at most while the breaker was open."""
        self.probes: list[float] = []
        """When pulled and pushed runs began while the breaker was open."""
        self.failed: set[float] = set()
        """When runs began that met the outage."""
        self.opened: list[float] = []
        self.closed: list[float] = []
        self.dead: dict[bytes, str] = {}
        self.done: dict[bytes, int] = {}
        """By event, the attempt that succeeded."""
        self.bench = self.hire()
        self.source = Source(self)

    def now(self) -> float:
        return self.loop.now - self.begun

    def hire(self) -> Bench:
        handler = AsyncHandler(self.handle)
        return Bench(
            route(handler, attempts=ATTEMPTS, initial=0.5, breaker=LIMITS), inbox=Letters(self), breakers=self.file
        )

    async def handle(self, call: Call) -> Result:
        open_, begun = bool(self.bench.road.problems()), self.now()
        if open_:
            self.probes.append(begun)
        self.running += 1
        if open_:
            self.together = max(self.together, self.running)
        await asyncio.sleep(self.chance.choice([0.0, 0.01, 0.1]))
        self.running -= 1
        if self.weather.down(self.now()):
            self.failed.add(begun)
            return Result(DOWN)
        if not self.weather.down(begun):  # else it was on its way when the breaker opened
            self.done[call.event.data or b""] = call.attempt
        return Result(Done())

    @property
    def calm(self) -> bool:
        """Nothing of what runs has been taken away lately."""
        return not self.weather.chaos

    async def run(self) -> None:
        watching = self.loop.create_task(self.watch())
        for at, what in self.weather.chaos:
            await self.until(at)
            await (self.source.lose() if what == "lose" else self.restart())
        await self.until(self.end)
        self.source.ending = True
        while not self.source.empty:
            await asyncio.sleep(0.1)
            assert self.now() < self.end + 60, "it does not end"
        if watching.done():
            watching.result()
        watching.cancel()
        await self.bench.road.quiet()
        await self.bench.road.close()
        assert not self.bench.replaced
        self.check()

    async def until(self, at: float) -> None:
        if at > self.now():
            await asyncio.sleep(at - self.now())

    async def restart(self) -> None:
        old = self.bench
        old.road.stop()
        await old.road.quiet()
        await old.road.close()
        assert not old.replaced
        was_open = self.file.exists()
        self.bench = self.hire()
        assert bool(self.bench.road.problems()) is was_open, "a restart forgot the outage, or made one up"
        self.source.begin_anew()

    async def watch(self) -> None:
        """Whether it is open, as often as anybody could look."""
        open_ = False
        while True:
            now_open = bool(self.bench.road.problems())
            assert self.file.exists() is now_open
            if now_open and not self.weather.pushed and "next probe in" in self.bench.road.problems()[0][1]:
                assert self.source.paused, "it is open, and what comes is taken"
            if now_open is not open_:
                (self.opened if now_open else self.closed).append(self.now())
            open_ = now_open
            self.check_open(open_)
            await asyncio.sleep(0.05)

    def check_open(self, open_: bool) -> None:  # noqa: FBT001 - the only thing it is about
        now = self.now()
        for begin, end in self.weather.outages:
            if open_:
                assert any(begin <= now <= end + AFTER for begin, end in self.weather.outages), "open without an outage"
            if self.calm and begin + SEEN < now < end:
                assert open_ or any(closed > now - SEEN for closed in self.closed), "an outage is not seen"

    def check(self) -> None:
        assert not self.dead, "an outage made a dead letter"
        late = {data: attempt for data, attempt in self.done.items() if attempt > 1}
        seen = (any(begin < at < begin + LIMITS.window for at in self.opened) for begin, _ in self.weather.outages)
        assert not late or not self.calm or not all(seen), "an attempt was not given back"


class Letters:
    """The inbox, as far as it takes dead letters."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def bury(self, letters: Any) -> list[int]:
        for letter in letters:
            self._world.dead[letter.event.data] = letter.reason
        return list(range(len(letters)))


class Source:
    """A partition and its pauses; or rows that are pushed unless the trigger refuses them."""

    trigger = "telemetry"

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance
        self.made: list[bytes] = []
        self._settled: set[int] = set()
        self._epoch = 0
        self._reasons: set[str] = set()
        self._next = 0
        self._away = False
        self.ending = False
        self._turn = asyncio.Event()
        world.bench.road.watch(self)
        self._tasks = [world.loop.create_task(self._deliver()), world.loop.create_task(self._make())]

    @property
    def paused(self) -> bool:
        return bool(self._reasons)

    @property
    def empty(self) -> bool:
        return len(self._settled) == len(self.made)

    def pause(self, why: str) -> None:
        assert why not in self._reasons
        self._reasons.add(why)

    def resume(self, why: str) -> None:
        self._reasons.remove(why)
        self._turn.set()

    async def lose(self) -> None:
        """Another worker has it for a moment, and does nothing."""
        self._epoch += 1
        self._away = True
        self._world.bench.road.forget_lost()
        await asyncio.sleep(self._chance.choice([0.0, 0.001, 0.3]))
        self._next, self._away = 0, False
        self._turn.set()

    def begin_anew(self) -> None:
        self._epoch += 1
        self._next = 0
        self._reasons.clear()
        self._world.bench.road.watch(self)
        self._turn.set()

    async def _make(self) -> None:
        for number in itertools.count():
            if self.ending:
                break
            self.made.append(b"needs %d" % number)
            self._turn.set()
            await asyncio.sleep(self._chance.choice([0.05, 0.1, 0.25]))

    async def _deliver(self) -> None:
        while True:
            self._turn.clear()
            paused = self._reasons and not self._world.weather.pushed
            if self._away or paused or self._next >= len(self.made):
                await self._turn.wait()
                continue
            if self._world.weather.pushed and (after := self._world.bench.road.refuses("telemetry")) is not None:
                await asyncio.sleep(after)
                continue
            number, self._next = self._next, self._next + 1
            if number not in self._settled:
                self._world.bench.road.take([self._delivery(number)])

    def _delivery(self, number: int) -> Delivery:
        data = self.made[number]
        at = At(STREAM, 0, number)
        return Delivery(
            "telemetry", f"car{number % KEYS}", event(data, name=str(number)), at, Owned(self, self._epoch, number)
        )

    def settle(self, number: int) -> None:
        assert number not in self._settled
        self._settled.add(number)

    @property
    def epoch(self) -> int:
        return self._epoch


class Owned:
    def __init__(self, source: Source, epoch: int, number: int) -> None:
        self._source = source
        self._epoch = epoch
        self._number = number

    def settle(self, delivery: Delivery, outcome: Outcome) -> None:  # noqa: ARG002 - the port's
        assert self.owns(delivery)
        self._source.settle(self._number)

    def owns(self, delivery: Delivery) -> bool:  # noqa: ARG002 - the port's
        return self._epoch == self._source.epoch
