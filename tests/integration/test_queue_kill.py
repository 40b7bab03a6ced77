"""The queue's process is killed in the middle of commits: what it had answered is as it said."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue import Queue
from killed_child import lines_until_killed

CHILD = [sys.executable, str(Path(__file__).with_name("queue_child.py"))]


async def test_every_answer_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    put, taken, done = set[int](), set[int](), set[int]()
    chance = random.Random(7)
    rounds = 0
    while rounds < 6 or (len(done) <= 20 and rounds < 60):  # on a slow machine little is done in each
        rounds += 1
        first = b"done" if rounds % 2 else b"\n"
        lines = lines_until_killed([*CHILD, path], chance.uniform(0.05, 0.3), lambda told, first=first: first in told)
        told = [(word, int(number)) for word, number in map(str.split, lines)]
        fresh = [number for word, number in told if word == "put"]
        assert not put & set(fresh), "a sequence was given twice"
        put |= set(fresh)
        taken |= {number for word, number in told if word == "taken"}
        done |= {number for word, number in told if word == "done"}
        queue = await Queue.open(path, quota=1 << 30)
        there = {
            row.sequence for row in queue_rows.read(queue._reader, queue._names, range(1, max(put, default=0) + 1000))
        }
        counts = queue.counts()["f"]["t"]
        assert (counts.waiting, counts.in_flight) == (len(there), 0)
        await queue.close()
        assert not done & there, "what was done is back"
        assert put - taken <= there, "what nobody took is gone"
    assert len(done) > 20
    assert len(put) > len(done)
