"""A process that tests of the queue kill: python queue_child.py <inbox.db>. Each line it prints is durable before."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path

from fleetfn.event import Event
from fleetfn_gateway.queue import Queue
from fleetfn_triggers.inbox import Arrival


def say(word: str, number: int) -> None:
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


async def main(path: Path) -> None:
    queue = await Queue.open(path, quota=1 << 30)

    async def put(task: int) -> None:
        for number in itertools.count():
            event: Event[bytes | None] = Event(id=str(number), source="s", type="t", data=b"x" * 500)
            arrivals = [Arrival(function="f", trigger="t", key=f"{task}/{n}", event=event) for n in range(3)]
            for sequence in await queue.put(arrivals):
                say("put", sequence)

    async def deliver() -> None:
        while True:
            rows = await queue.take("f", ["t"], 2, 1 << 30)
            for row in rows:
                say("taken", row.sequence)
            await queue.done([row.sequence for row in rows])
            for row in rows:
                say("done", row.sequence)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(put(task) for task in range(4)), deliver())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
