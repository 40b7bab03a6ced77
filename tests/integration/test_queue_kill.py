"""The queue's process is killed in the middle of commits: what it had answered is as it said."""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import sys
from pathlib import Path

from fleetfn_gateway import queue_rows
from fleetfn_gateway.queue import Queue

CHILD = [sys.executable, str(Path(__file__).with_name("queue_child.py"))]


def run_and_kill(path: Path, seconds: float, after: bytes) -> list[tuple[str, int]]:
    """Kill -9 it `seconds` after it has printed this; its whole lines."""
    with subprocess.Popen([*CHILD, str(path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = b""
        while after not in first:
            assert select.select([child.stdout], [], [], 60)[0]
            block = os.read(child.stdout.fileno(), 65536)  # nothing of it in a buffer that communicate passes by
            assert block, "it ended by itself"
            first += block
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=seconds)
        child.kill()
        rest, _ = child.communicate()
    lines = [line.split() for line in (first + rest).decode().splitlines(keepends=True) if line.endswith("\n")]
    return [(word, int(number)) for word, number in lines]


async def test_every_answer_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    put, taken, done = set[int](), set[int](), set[int]()
    chance = random.Random(7)
    rounds = 0
    while rounds < 6 or (len(done) <= 20 and rounds < 60):  # on a slow machine little is done in each
        rounds += 1
        told = run_and_kill(path, chance.uniform(0.05, 0.3), b"done" if rounds % 2 else b"\n")
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
