"""A consumer to be killed: kafka_child.py BOOTSTRAP TOPIC GROUP FILE. Settles a little after it wrote down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fleetfn_triggers.delivery import Delivery
from fleetfn_triggers.inbox import Claimed
from kafka_doubles import granted, settle, source


class SlowRoad:
    def __init__(self, file: Path) -> None:
        self._file = file.open("a")
        self._loop = asyncio.get_running_loop()

    def take(self, deliveries: Sequence[Delivery]) -> None:
        for number, delivery in enumerate(deliveries):
            self._loop.call_later(0.001 * (number % 100), self._handle, delivery)

    def forget_lost(self) -> None: ...

    async def claim(self, trigger: str, stream: str, partitions: dict[int, int | None]) -> Claimed:  # noqa: ARG002 - the port's
        return await granted(partitions)

    async def passed(self, trigger: str, stream: str, offsets: dict[int, int]) -> None: ...

    def _handle(self, delivery: Delivery) -> None:
        self._file.write((delivery.event.data or b"").decode() + "\n")
        self._file.flush()
        self._loop.call_later(0.002, settle, delivery)


async def main() -> None:
    bootstrap, topic, group, file = sys.argv[1:]
    made = source(bootstrap, topic, group, SlowRoad(Path(file)))
    await made.start()
    await asyncio.Event().wait()


asyncio.run(main())
