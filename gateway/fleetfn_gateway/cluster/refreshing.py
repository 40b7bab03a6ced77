"""Wakes functions with Kafka triggers that have slept for most of a day.

Brokers forget where a group stands that has had no member for their offsets.retention.minutes, 7 days by default; a
worker commits all its offsets anew a few seconds after it has joined (kafka_consuming.py). Who is paused is woken, too:
its worker joins, commits, and takes nothing.

When each was last awake for long enough is noted, so that a restart wakes nobody. They are woken one after the other,
also where many are due at once, after the gateway itself was away for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from fleetfn.errors import StoreError
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.notes import Notes

log = logging.getLogger("fleetfn.gateway")

HOUR = 3600.0

EVERY = 24 * HOUR
"""Seconds of sleep after which a function is woken, at most: its offsets outlive several days of failing at that."""

SPREAD = 6 * HOUR
"""Sooner by up to so many seconds, by its name: those deployed together are not woken together."""

AWAKE = 20.0
"""Seconds that a pod is ready until its worker has committed: 5 s after it began, and joining a group takes 3 s."""

LOOK = 60.0
"""Seconds between looks at who is due."""

RETRY = HOUR
"""Seconds until a function that did not wake is woken again."""

NOTE = HOUR
"""Seconds by which a note may be behind."""

WAKE_LIMIT = 120.0
"""Seconds for a pod."""


class Refreshing:
    """Use on one loop. `why`: why a function has no pod, for people; `clock`: Unix seconds, since it outlives us."""

    def __init__(
        self,
        notes: Notes,
        pods: Pods,
        demand: Demand,
        functions: Callable[[], Mapping[str, GatewayFunction]],
        why: Callable[[str], str],
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._notes = notes
        self._pods = pods
        self._demand = demand
        self._functions = functions
        self._why = why
        self._clock = clock
        self._sleep = sleep
        self._ready: dict[str, float] = {}
        """Since when a function has had a pod that is ready."""
        self._awake: dict[str, float] = {}
        """When it last had one for long enough."""
        self._noted: dict[str, float] = {}
        self._not_before: dict[str, float] = {}

    def changed(self, function: str) -> None:
        """Its ready pods are others now."""
        if self._pods.ready(function):
            self._ready.setdefault(function, self._clock())
        else:
            self._see(function)
            self._ready.pop(function, None)

    async def run(self) -> None:
        while True:
            with contextlib.suppress(StoreError):  # told by whoever else needs the queue
                await self.look()
            await self._sleep(LOOK)

    async def look(self) -> None:
        """Wake who is due. Raises StoreError."""
        for name in list(self._ready):
            self._see(name)
        await self._keep()
        while (late := self._due()) is not None:
            await self._wake(late)
            await self._keep()

    async def forget(self, function: str) -> None:
        """Raises StoreError."""
        for each in (self._awake, self._noted, self._not_before):
            each.pop(function, None)
        await self._notes.forget(_note(function))

    def _see(self, function: str) -> None:
        now = self._clock()
        if now - self._ready.get(function, now) >= AWAKE:
            self._awake[function] = now

    def _due(self) -> str | None:
        """Who has slept for the longest, of those who have slept for long enough."""
        now = self._clock()
        asleep = [(self._last(name), name) for name in self._sleepers()]
        due = [
            (last, name)
            for last, name in asleep
            if now - last >= EVERY - _sooner(name) and now >= self._not_before.get(name, now)
        ]
        return min(due)[1] if due else None

    def _sleepers(self) -> list[str]:
        found = self._functions().items()
        kafka = [name for name, each in found if any(trigger.kafka for trigger in each.function.spec.triggers)]
        return [name for name in kafka if name not in self._ready]

    def _last(self, name: str) -> float:
        """When it was last awake; now for one that is seen for the first time. A clock may have been put back."""
        now = self._clock()
        last = self._awake.get(name)
        if last is None:
            last = now
            with contextlib.suppress(msgspec.MsgspecError):
                last = self._noted[name] = msgspec.json.decode(self._notes.note(_note(name)) or b"", type=float)
        self._awake[name] = last = min(last, now)
        return last

    async def _wake(self, name: str) -> None:
        slept = self._clock() - self._last(name)
        self._not_before[name] = self._clock() + RETRY
        with self._demand.waiting(name):
            ready = await self._pods.first(name, WAKE_LIMIT)
            if ready:
                log.info("%s: woken after %.0f h, so that Kafka keeps its offsets", name, slept / HOUR)
                await self._sleep(AWAKE + 1)
        self._see(name)
        if not ready:
            log.warning(
                "%s has slept for %.0f h and does not wake: %s; Kafka forgets its offsets after 7 days, if not told "
                "otherwise; trying again in an hour",
                name,
                slept / HOUR,
                self._why(name),
            )

    async def _keep(self) -> None:
        """Raises StoreError."""
        behind = {
            name: last
            for name, last in self._awake.items()
            if name in self._functions() and abs(last - self._noted.get(name, 0.0)) >= NOTE
        }
        if behind:
            await self._notes.put([], notes={_note(name): msgspec.json.encode(last) for name, last in behind.items()})
            self._noted |= behind


def _note(function: str) -> str:
    return f"awake/{function}/"


def _sooner(name: str) -> float:
    """Seconds, the same after each start."""
    return SPREAD * hashlib.sha256(name.encode()).digest()[0] / 256
