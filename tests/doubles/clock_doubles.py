"""A machine whose clocks a test moves, and an inbox in memory, for clocks of cron triggers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleetfn.errors import StoreError
from fleetfn.position import At
from fleetfn_gateway.clock import Clock
from fleetfn_gateway.feeds import EARLY
from fleetfn_gateway.pulse import STEP
from fleetfn_spec.function import Function, Metadata, Spec, Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.cron import Cron
from fleetfn_triggers.inbox import Arrival, Row


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def shown(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Machine:
    """Time passes only while everybody sleeps. `until` ends it; `then` says what happens at a moment."""

    def __init__(self, now: str) -> None:
        self.wall = at(now)
        self.even = 0.0
        self._stop = 0.0
        self._stopped: asyncio.Future[None] | None = None

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.even

    async def sleep(self, seconds: float) -> None:
        """As Pulse.sleep: sooner than that, so that a moved clock is noticed."""
        seconds = min(seconds, STEP)
        if self.even + seconds > self._stop:
            if self._stopped is not None and not self._stopped.done():
                self._stopped.set_result(None)
            await asyncio.Event().wait()
        self.wall += seconds
        self.even += seconds
        await asyncio.sleep(0)

    async def run(self, clock: Clock, seconds: float) -> None:
        """Let the clock live for so long, from its start to its end."""
        self._stop = self.even + seconds
        self._stopped = asyncio.get_running_loop().create_future()
        await clock.start()
        async with asyncio.timeout(120):
            await self._stopped
        await clock.close()
        self.wall += self._stop - self.even
        self.even = self._stop

    def off(self, seconds: float) -> None:
        """Nothing runs for so long."""
        self.wall += seconds
        self.even += seconds


class MemoryQueue:
    """As much of the gateway's queue as a clock sees. Rows end when the test says `done`."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}
        self.rows: dict[int, Row] = {}
        self.known: dict[str, int] = {}
        self.refuses = False
        self.announced: list[tuple[str, str, int]] = []
        """Function, trigger, and how many rows there were."""
        self.by_itself = True
        """Each row is done as soon as it is there."""

    async def put(self, arrivals: Sequence[Arrival], *, notes: Mapping[str, bytes] | None = None) -> list[int]:
        await asyncio.sleep(0)
        if self.refuses:
            raise StoreError("the disk is full")
        self.notes.update(notes or {})
        return [self._row(arrival) for arrival in arrivals]

    def _row(self, arrival: Arrival) -> int:
        if arrival.source is not None and arrival.source in self.known:
            return self.known[arrival.source]
        sequence = len(self.rows) + 1
        self.known[arrival.source or ""] = sequence
        self.rows[sequence] = Row(
            sequence=sequence, function=arrival.function, trigger=arrival.trigger, key=arrival.key,
            event=arrival.event, position=At("inbox:test", 0, sequence), attempts=0, due=None,
            status="dead" if self.by_itself else "waiting", created=0.0,
        )  # fmt: skip
        return sequence

    def announce(self, function: str, trigger: str) -> None:
        self.announced.append((function, trigger, len(self.rows)))

    async def get(self, sequence: int) -> Row | None:
        row = self.rows[sequence]
        return row if row.status == "waiting" else None

    def done(self, sequence: int) -> None:
        from msgspec.structs import replace  # noqa: PLC0415 - used here alone

        self.rows[sequence] = replace(self.rows[sequence], status="dead")

    def note(self, name: str) -> bytes | None:
        return self.notes.get(name)

    async def forget(self, prefix: str) -> None:
        self.notes = {name: value for name, value in self.notes.items() if not name.startswith(prefix)}

    @property
    def fires(self) -> list[str]:
        """The instants, in order; `+n` for those that stand for others."""
        found = []
        for row in self.rows.values():
            data = self.data(row.sequence)
            instant = data["scheduled"].replace("T", " ").removesuffix("Z")
            found.append(instant + (f" +{data['missed']}" if data["missed"] else ""))
        return found

    def data(self, sequence: int) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.rows[sequence].event.data or b"")
        return data


def clock(queue: Any, machine: Machine, **cron: Any) -> Clock:
    trigger = Trigger(name="daily", cron=Cron(**cron))
    function = Function(
        apiVersion="fleetfn.dev/v1alpha1",
        kind="Function",
        metadata=Metadata(name="report"),
        spec=Spec(handler="handler:daily", triggers=[trigger]),
    )
    told = GatewayFunction(function=function, revision="r1", environment="local", place="node", source=Path("/tmp"))
    return Clock(
        told, trigger, queue, queue, now=machine.now, monotonic=machine.monotonic, sleep=machine.sleep, early=EARLY
    )
