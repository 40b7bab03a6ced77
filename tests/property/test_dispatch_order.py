"""Whatever goes wrong with pushes: every row is done, and rows of a lane are done in order."""

import asyncio
import random
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest
from fleetfn_gateway.dispatch import Dispatch
from fleetfn_gateway.queue import Queue
from fleetfn_triggers.push import Told
from gateway_doubles import FakeOwner, arrival, until
from push_worker import PushWorker, done

KEYS, ROWS = 12, 240


class Unlucky(PushWorker):
    """Refuses, cuts short, forgets, loses, is slow: by `luck`. What it has begun it does, though nobody hears of it."""

    def __init__(self, path, luck, handled):
        super().__init__(path, self._run)
        self._luck = luck
        self._handled = handled

    async def _serve(self, reader, writer):
        self.instead = self._luck.choice(
            [*[None] * 12, b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n"]
        )
        return await super()._serve(reader, writer)

    async def _tell(self, pushed, writer):
        if self._luck.random() < 0.1:
            writer.transport.abort()
        await super()._tell(pushed, writer)

    async def _run(self, row):
        await asyncio.sleep(self._luck.choice([0, 0, 0.001, 0.01]))
        fate = self._luck.random()
        if fate < 0.1:
            return Told(row.sequence, "lost", self._luck.choice([0.0, 0.01]))
        self._handled(row)
        return None if fate < 0.15 else done(row)


@pytest.mark.parametrize("seed", range(4))
async def test_every_row_is_done_and_rows_of_a_lane_in_order(tmp_path, seed, monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.dispatch.ASK", 0.02)
    monkeypatch.setattr("fleetfn_gateway.dispatch._ALONE", 0.05)
    monkeypatch.setattr("fleetfn_gateway.dispatch._REFUSED", (0.005, 0.05))
    monkeypatch.setattr("fleetfn_gateway.dispatch._BACKOFF", (0.005, 0.05))
    monkeypatch.setattr("fleetfn_gateway.workers._BACKOFF", (0.005, 0.05))
    luck = random.Random(seed)
    marks = defaultdict(int)
    done_in_order = defaultdict(list)

    def handled(row):
        """As a record's marks do: what is not beyond them was taken before."""
        if row.position.offset > marks[row.key]:
            marks[row.key] = row.position.offset
            done_in_order[row.key].append(int(row.event.id))

    queue = await Queue.open(tmp_path / "inbox.db", quota=2**30)
    with tempfile.TemporaryDirectory(prefix="fn-") as run:
        workers = [Unlucky(Path(run) / f"{number}.sock", luck, handled) for number in range(3)]
        owner = FakeOwner(*(each.path for each in workers))
        dispatch = Dispatch("f", queue, owner, triggers=frozenset({"t"}), concurrency=4)
        queue.on_ready = lambda _: dispatch.ready()
        async with workers[0], workers[1], workers[2]:
            for number in range(ROWS):
                await queue.put([arrival(number, f"k{number % KEYS}")])
            await until(lambda: queue.counts()["f"]["t"].waiting < ROWS // 2 if queue.counts() else True)
            await workers[0].vanish()
            await until(lambda: not queue.counts().get("f"), f"the end of all rows with seed {seed}")
        await dispatch.close()
    await queue.close()
    assert done_in_order == {f"k{key}": list(range(key, ROWS, KEYS)) for key in range(KEYS)}
