"""Any order of calls, crashes and times leaves a queue as it leaves the inbox in memory: per-lane order, nothing lost,
nothing in flight twice, repeats taken for what they are.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from fleetfn.event import Event
from fleetfn.position import At, Position
from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue import Queue
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_triggers.inbox import Arrival, Claim, Letter, Offer, Row, Which
from hypothesis import given, settings
from hypothesis import strategies as st

FUNCTION = "f"
TRIGGERS = ("t", "u")
STREAM = "kafka:topic:id"
EVENT: Event[bytes | None] = Event(id="1", source="s", type="t", data=b"x")

triggers = st.sampled_from(TRIGGERS)
keys = st.sampled_from(["a", "b", None])
dues = st.sampled_from([None, None, 3.0, 30.0])
places = st.tuples(st.integers(0, 1), st.integers(0, 5))
which = st.builds(
    Which,
    trigger=st.none() | triggers,
    key=st.none() | st.sampled_from(["a", "b"]),
    sequences=st.lists(st.integers(1, 12), max_size=2).map(tuple),
)

puts = st.lists(st.tuples(triggers, keys, st.sampled_from([None, "1", "2"]), st.booleans()), min_size=1, max_size=3)
offers = st.lists(st.tuples(triggers, keys, places, dues, st.integers(0, 2)), min_size=1, max_size=3)
burials = st.lists(st.tuples(triggers, keys, places | st.none(), st.booleans()), min_size=1, max_size=2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), puts),
        st.tuples(st.just("put"), puts),
        st.tuples(st.just("offer"), offers),
        st.tuples(st.just("offer"), offers),
        st.tuples(st.just("bury"), burials),
        st.tuples(st.just("take"), st.tuples(st.integers(1, 4), st.integers(0, 6))),
        st.tuples(st.just("take"), st.tuples(st.integers(1, 4), st.integers(0, 6))),
        st.tuples(st.just("done"), st.integers(0, 9)),
        st.tuples(st.just("done"), st.integers(0, 9)),
        st.tuples(st.just("back"), st.tuples(st.integers(0, 9), dues)),
        st.tuples(st.just("dead"), st.tuples(st.integers(0, 9), st.booleans(), st.booleans())),
        st.tuples(st.just("release"), st.tuples(st.integers(0, 9), st.sampled_from([0.0, 2.0]))),
        st.tuples(st.just("redrive"), st.tuples(which, st.none() | st.integers(1, 2))),
        st.tuples(st.just("discard"), which),
        st.tuples(st.just("claim"), st.tuples(triggers, st.integers(0, 1), st.none() | st.integers(0, 6))),
        st.tuples(st.just("passed"), st.tuples(triggers, places)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0, 50_000.0])),
        st.tuples(st.just("crash"), st.none()),
    ),
    max_size=30,
)


class Pair:
    """The queue and its model; every answer is compared."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 1000.0
        self.queue: Queue
        self.model: MemoryInbox
        self.flying: dict[int, Row] = {}

    async def open(self) -> None:
        self.queue = await Queue.open(self.path, quota=1 << 30, clock=lambda: self.now)
        self.model = MemoryInbox(lambda: self.now, file=self.queue.file)

    def due(self, wait: float | None) -> float | None:
        return None if wait is None else self.now + wait

    async def same(self, call: str, *arguments: Any, **named: Any) -> Any:
        told = await getattr(self.queue, call)(*arguments, **named)
        expected = await getattr(self.model, call)(*arguments, **named)
        assert told == expected, (call, arguments, named)
        return told

    async def put(self, asked: list[tuple[str, str | None, str | None, bool]]) -> None:
        arrivals = [
            Arrival(
                function=FUNCTION,
                trigger=trigger,
                key=key,
                event=EVENT,
                source=source,
                problem="no key" if problem and key is None else "",
            )
            for trigger, key, source, problem in asked
        ]
        await self.same("put", arrivals)

    async def offer(self, asked: list[tuple[str, str | None, tuple[int, int], float | None, int]]) -> None:
        offers = [
            self._offer(trigger, key, At(STREAM, *place), self.due(wait), epoch)
            for trigger, key, place, wait, epoch in asked
        ]
        await self.same("offer", offers)

    def _offer(self, trigger: str, key: str | None, position: Position, due: float | None, epoch: int) -> Offer:
        return Offer(
            function=FUNCTION,
            trigger=trigger,
            key=key,
            event=EVENT,
            position=position,
            attempts=1,
            due=due,
            epoch=epoch,
        )

    async def bury(self, asked: list[tuple[str, str | None, tuple[int, int] | None, bool]]) -> None:
        letters = [
            self._letter(trigger, key, None if place is None else At(STREAM, *place), park)
            for trigger, key, place, park in asked
        ]
        await self.same("bury", letters)

    def _letter(self, trigger: str, key: str | None, position: Position, park: bool) -> Letter:  # noqa: FBT001
        return Letter(
            function=FUNCTION,
            trigger=trigger,
            key=key,
            event=EVENT,
            position=position,
            attempts=2,
            revision="r",
            reason="attempts",
            detail="d",
            failure=None,
            created=self.now,
            park=park,
        )

    async def take(self, asked: tuple[int, int]) -> None:
        """Which of those that are ready come first is the queue's choice: the model then takes the same."""
        rows, behind = asked
        heads = self.queue.ready(FUNCTION, TRIGGERS)
        taken = await self.queue.take(FUNCTION, TRIGGERS, rows, 1 << 30, behind)
        each = behind // min(rows, heads) if heads else 0
        lanes: list[list[Row]] = []
        for row in await self.model.take(FUNCTION, TRIGGERS, 10_000, 1 << 30, each * heads):
            if lanes and row.key is not None and (row.trigger, row.key) == (lanes[-1][0].trigger, lanes[-1][0].key):
                lanes[-1].append(row)
            else:
                lanes.append([row])
        ready = {lane[0].sequence: lane for lane in lanes}
        assert heads == len(ready)
        assert sum(row.sequence in ready for row in taken) == min(rows, heads)
        assert taken == [row for head in taken if head.sequence in ready for row in ready[head.sequence]]
        assert self.flying.keys().isdisjoint(row.sequence for row in taken)
        self.flying.update({row.sequence: row for row in taken})
        for row in [row for lane in lanes for row in lane if row.sequence not in self.flying]:
            self.model.release(row.sequence)

    def _flying(self, number: int) -> Row | None:
        rows = list(self.flying.values())
        return rows[number % len(rows)] if rows else None

    async def done(self, number: int) -> None:
        row = self._flying(number)
        if row is not None:
            del self.flying[row.sequence]
            await self.same("done", [row.sequence])

    async def back(self, asked: tuple[int, float | None]) -> None:
        row = self._flying(asked[0])
        if row is not None:
            await self.same("offer", [self._offer(row.trigger, row.key, row.position, self.due(asked[1]), 0)])
            self._release(row.sequence)

    async def dead(self, asked: tuple[int, bool, bool]) -> None:
        """Its lane does not go on before the worker has told, too."""
        row = self._flying(asked[0])
        if row is not None:
            await self.same("bury", [self._letter(row.trigger, row.key, row.position, asked[1])])
            if asked[2]:
                self._release(row.sequence)

    async def release(self, asked: tuple[int, float]) -> None:
        row = self._flying(asked[0])
        if row is not None:
            self._release(row.sequence, asked[1])

    def _release(self, sequence: int, after: float = 0.0) -> None:
        del self.flying[sequence]
        self.queue.release(sequence, after)
        self.model.release(sequence, after)

    async def redrive(self, asked: tuple[Which, int | None]) -> None:
        await self.same("redrive", asked[0], limit=asked[1])

    async def discard(self, asked: Which) -> None:
        await self.same("discard", asked)

    async def claim(self, asked: tuple[str, int, int | None]) -> None:
        trigger, partition, committed = asked
        await self.same(
            "claim", Claim(function=FUNCTION, trigger=trigger, stream=STREAM, partitions={partition: committed})
        )

    async def passed(self, asked: tuple[str, tuple[int, int]]) -> None:
        trigger, (partition, offset) = asked
        await self.same("passed", FUNCTION, trigger, STREAM, {partition: offset})

    async def wait(self, seconds: float) -> None:
        self.now += seconds

    async def crash(self, _: None) -> None:
        """Killed: the files as they are at this moment. Whatever was answered is in them; what is in flight, and for
        how long it was put off, is not.
        """
        copy = self.path.with_name(f"{self.path.stem}+.db")
        for end in ("", "-wal"):
            shutil.copyfile(f"{self.path}{end}", f"{copy}{end}")
        await self.queue.close()
        self.path = copy
        self.queue = await Queue.open(self.path, quota=1 << 30, clock=lambda: self.now)
        self.flying.clear()
        self.model.restart()

    def compare(self) -> None:
        rows = {row.sequence: row for row in self.model.rows}
        found = queue_rows.read(self.queue._reader, self.queue._names, range(self.model.last + 2))
        assert {row.sequence: row for row in found} == rows
        self._compare_counts(list(rows.values()))
        told, expected = (each.next_due(FUNCTION, TRIGGERS) for each in (self.queue, self.model))
        # It may look once too often, for a row that was put off and is dead by now; never too late.
        assert expected is None or (told is not None and told <= expected)

    def _compare_counts(self, rows: list[Row]) -> None:
        counts = self.queue.counts().get(FUNCTION, {})
        for trigger in TRIGGERS:
            mine = [row for row in rows if row.trigger == trigger]
            waiting = [row for row in mine if row.status == "waiting"]
            told = counts.get(trigger)
            if told is None:
                assert not mine
                continue
            assert (told.waiting, told.dead) == (len(waiting), len(mine) - len(waiting))
            assert told.oldest == min((row.created for row in waiting), default=None)
            assert told.in_flight == sum(row.trigger == trigger for row in self.flying.values())


@settings(max_examples=60, deadline=None)
@given(steps)
def test_it_agrees_with_the_inbox_in_memory(steps: list[tuple[str, Any]]) -> None:
    async def check(path: Path) -> None:
        pair = Pair(path)
        await pair.open()
        for call, asked in steps:
            await getattr(pair, call)(asked)
            pair.compare()
        await _drain(pair)
        await pair.queue.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(check(Path(folder) / "inbox.db"))


async def _drain(pair: Pair) -> None:
    """All that waits is delivered in the end, each lane in order."""
    await pair.crash(None)
    pair.now += 100_000.0
    await pair.same("redrive", Which())
    expected = list(pair.model.rows)
    assert all(row.status == "waiting" for row in expected)
    handled: list[Row] = []
    while rows := await pair.queue.take(FUNCTION, TRIGGERS, 3, 1 << 30, 2):
        handled += rows
        await pair.queue.done([row.sequence for row in rows])
    assert sorted(row.sequence for row in handled) == [row.sequence for row in expected]
    for lane in {(row.trigger, row.key) for row in handled if row.key is not None}:
        sequences = [row.sequence for row in handled if (row.trigger, row.key) == lane]
        assert sequences == sorted(sequences)
    assert pair.queue.counts() == {}
