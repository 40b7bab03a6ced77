"""Dispatch while anything happens to workers, their owner and the clock, at any moment: every row is done, those of a
lane in order, and soon after all is well again nothing waits. Time passes between any two readings of it.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import virtual_time
from fleetfn.position import At
from fleetfn_gateway.dispatch import Dispatch
from fleetfn_gateway.owner import NoWorkerError
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_triggers.inbox import Offer, Row
from fleetfn_triggers.push import Pushed, Told
from gateway_doubles import arrival
from hypothesis import Phase, given, settings
from push_worker import PushWorker
from virtual_time import VirtualLoop

TRIGGERS = frozenset({"t", "u"})
KEYS = [*"abcdef", None]
BAD = 60.0
"""Seconds of bad luck."""

WELL = 200.0
"""Seconds after which nothing may wait any more: a row that was refused waits a minute, twice where others did not go
through meanwhile.
"""


@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter")  # of a worker that vanished as it was let in
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # workers that vanish close nothing
@settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 2**32), luck=st.sampled_from([0.05, 0.3, 0.7]), workers=st.integers(1, 3))
def test_every_row_is_done_in_order_and_none_is_forgotten(seed: int, luck: float, workers: int) -> None:
    chance = random.Random(seed)

    async def main(loop: VirtualLoop) -> None:
        with tempfile.TemporaryDirectory(prefix="fn-") as folder:
            await World(loop, chance, luck, Path(folder)).run(workers)

    virtual_time.run(main, lambda: chance.choice([0.0, 0.0, 0.0, 1e-4, 0.01]))


class Lanes(MemoryInbox):
    """Tells of news, as the queue does."""

    dispatch: Dispatch | None = None

    def tell(self) -> None:
        if self.dispatch is not None:
            self.dispatch.ready()

    async def take(self, *args: Any) -> list[Row]:
        await asyncio.sleep(0)
        return await super().take(*args)

    async def done(self, sequences: Sequence[int]) -> None:
        await asyncio.sleep(0)
        await super().done(sequences)
        self.tell()

    async def bury(self, letters: Sequence[Any]) -> list[int]:
        buried = await super().bury(letters)
        self.tell()
        return buried

    def release(self, sequence: int, after: float = 0.0) -> None:
        super().release(sequence, after)
        self.tell()


class World:
    def __init__(self, loop: VirtualLoop, chance: random.Random, luck: float, folder: Path) -> None:
        self.loop = loop
        self.chance = chance
        self.luck = luck
        self.folder = folder
        self.moved = 0.0
        self.lanes = Lanes(lambda: 1_800_000_000.0 + loop.time() + self.moved)
        self.workers: list[Worker] = []
        self.count = 0
        self.put: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        self.handled: dict[tuple[str, str | None], list[int]] = defaultdict(list)
        self.marks: dict[tuple[str, str | None], int] = defaultdict(int)
        self.running: set[tuple[str, str | None, int]] = set()

    def strikes(self) -> bool:
        return self.chance.random() < self.luck

    # As an owner

    async def wake(self, function: str, waiting: int) -> list[str]:
        assert function == "f"
        assert waiting > 0
        if self.strikes():
            await asyncio.sleep(self.chance.choice([0.0, 0.5, 10.0]))
        if self.strikes():
            raise NoWorkerError("none now", after=self.chance.choice([None, 0.0, 3.0]))
        if self.strikes() and self.luck:
            raise RuntimeError("a defect of the owner")
        return [each.path for each in self.workers]

    async def close(self) -> None: ...

    # What happens

    async def run(self, workers: int) -> None:
        for _ in range(workers):
            await self.hire()
        dispatch = Dispatch("f", self.lanes, self, triggers=TRIGGERS, concurrency=2, jitter=self.chance.random)
        self.lanes.dispatch = dispatch
        end = self.loop.time() + BAD
        while self.loop.time() < end:
            await self.happen(dispatch)
            await asyncio.sleep(self.chance.choice([0.0, 0.001, 0.5, 3.0]))
        self.luck = 0.0
        dispatch.change(TRIGGERS, 2)
        if not self.workers:
            await self.hire()
        await self.all_done(WELL)
        for _ in range(5):  # alone: nothing else makes dispatch look again
            await self.come(self.chance.choice([0.01, 0.3, 7.0]))
            await self.all_done(20.0)
        await dispatch.close()
        for each in self.workers:
            await each.vanish()
        assert all(row.reason == "unreadable" for row in self.lanes.rows)
        dead = {int(row.event.id) for row in self.lanes.rows}
        for lane, numbers in self.put.items():
            expected = [each for each in numbers if each not in dead or each in self.handled[lane]]
            found = self.handled[lane] if lane[1] is not None else sorted(set(self.handled[lane]))
            assert found == expected, lane

    async def all_done(self, limit: float) -> None:
        end = self.loop.time() + limit
        while self.waiting():
            assert self.loop.time() < end, f"{self.waiting()} rows are forgotten"
            await asyncio.sleep(0.5)

    def waiting(self) -> int:
        return sum(row.status == "waiting" for row in self.lanes.rows)

    async def happen(self, dispatch: Dispatch) -> None:
        chance = self.chance
        what = chance.random()
        if what < 0.6:
            await self.come()
        elif what < 0.7 and self.strikes():
            await self.hire()
        elif what < 0.8 and self.strikes() and self.workers:
            await self.workers.pop(chance.randrange(len(self.workers))).vanish()
        elif what < 0.9 and self.strikes():
            self.moved += chance.choice([-5.0, 5.0, 3600.0])  # put back, what is due waits as much longer
        elif self.strikes():
            dispatch.change(chance.choice([TRIGGERS, frozenset({"t"}), frozenset()]), chance.choice([1, 2, 64]))
            await asyncio.sleep(1.0)
            dispatch.change(TRIGGERS, 2)

    async def come(self, later: float | None = None) -> None:
        if later is None and self.strikes():
            later = self.chance.choice([0.001, 0.7, 20.0])
        trigger, key = self.chance.choice(sorted(TRIGGERS)), self.chance.choice(KEYS)
        self.count += 1
        self.put[trigger, key].append(self.count)
        if later is not None:
            event = arrival(self.count).event
            due = self.lanes._clock() + later
            at = At("kafka:x", 0, self.count)
            offer = Offer(function="f", trigger=trigger, key=key, event=event, position=at, attempts=1, due=due)
            await self.lanes.offer([offer])
        else:
            await self.lanes.put([arrival(self.count, key, trigger=trigger)])
        self.lanes.tell()

    async def hire(self) -> None:
        worker = Worker(self, self.folder / f"{self.count}-{len(self.workers)}.sock")
        await worker.__aenter__()
        self.workers.append(worker)

    async def handle(self, row: Pushed) -> str:
        lane = row.trigger, row.key
        number = int(row.event.id)
        assert number > self.marks[lane] or row.key is None or number in self.handled[lane]
        await asyncio.sleep(self.chance.choice([0.0, 0.01, 1.0]))
        if self.strikes():
            return "lost"
        if row.key is None or number > self.marks[lane]:
            self.marks[lane] = max(number, self.marks[lane])
            self.handled[lane].append(number)
        return "done"


class Worker(PushWorker):
    """Rows of a lane one after the other; what it has handled counts, though nobody may hear of it."""

    def __init__(self, world: World, path: Path) -> None:
        super().__init__(path, self._in_turn)
        self._world = world
        self._turns: dict[int, Turn] = {}

    async def _serve(self, reader: Any, writer: Any) -> Any:
        busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"
        bad = b"HTTP/1.1 400 What\r\ncontent-length: 0\r\n\r\n"
        cut = b"HTTP/1.1 200 OK\r\n"
        self.instead = self._world.chance.choice([busy, bad, cut, None]) if self._world.strikes() else None
        return await super()._serve(reader, writer)

    async def _tell(self, pushed: list[Pushed], writer: Any) -> None:
        for row in pushed:
            self._lane(row, pushed)
        await super()._tell(pushed, writer)

    def _lane(self, row: Pushed, pushed: list[Pushed]) -> None:
        lane = [each for each in pushed if each is row or (row.key, row.trigger) == (each.key, each.trigger)]
        lane = [row] if row.key is None else lane
        before = self._turns[lane[lane.index(row) - 1].sequence] if lane[0] is not row else None
        self._turns[row.sequence] = Turn(before)

    async def _in_turn(self, row: Pushed) -> Told | None:
        turn = self._turns[row.sequence]
        try:
            if turn.before is not None:
                await turn.before.over.wait()
                if turn.before.stopped:
                    turn.stopped = True
                    return Told(row.sequence, "behind")
            outcome = await self._world.handle(row)
            if outcome == "lost":
                turn.stopped = True
                return Told(row.sequence, "lost", self._world.chance.choice([0.0, 0.0, 2.0]))
            return None if self._world.strikes() and self._world.strikes() else Told(row.sequence, "done")
        finally:
            turn.over.set()


class Turn:
    """Of a row in its lane. `stopped`: it is not done, and nothing behind it is to run."""

    def __init__(self, before: Turn | None) -> None:
        self.before = before
        self.over = asyncio.Event()
        self.stopped = False
