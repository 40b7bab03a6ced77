"""The gateway itself: a queue, the functions it was told of, their feeds and dispatches, and what people ask of it."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
from fleetfn.errors import FleetError, StoreError, UsageError
from fleetfn_plumbing.http_client import HttpClient
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.function import Spec
from fleetfn_spec.gateway import Fired, FireRequest, GatewayFunction, GatewayStatus, TriggerRows
from fleetfn_triggers.inbox import Which

from fleetfn_gateway import feeds, metrics, removed
from fleetfn_gateway.ages import Ages
from fleetfn_gateway.dispatch import Dispatch, Load
from fleetfn_gateway.endings import Endings
from fleetfn_gateway.feed import Firing
from fleetfn_gateway.feeds import Factory, Feeds
from fleetfn_gateway.owner import Owner
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.redriving import Redriving
from fleetfn_gateway.registry import Registry
from fleetfn_gateway.removed import Removed

log = logging.getLogger("fleetfn.gateway")

GRACE = 3.0
"""Seconds that workers have at the end to tell of what they were pushed; what they do not is pushed again."""

_HOUSE = 30.0
"""Seconds between tries to start feeds that could not be, and looks for dead letters that are too old."""


def concurrency_of(spec: Spec) -> int:
    """Keys that one worker handles at the same time, as Dispatch is told: it has a worker hold four rows for each, and
    two batches of a handler's are to be there.
    """
    sizes = [each.batch.size // 2 for each in spec.triggers if each.batch is not None]
    return max(spec.scale.concurrency, *sizes, 1)


class UnknownError(FleetError):
    """There is no such function, trigger or row."""


class AwayError(FleetError):
    """It cannot be done now."""


class Gateway:
    """Use on one loop, from `open` to `close`. `retention`: seconds that dead letters are kept. `client_of`: who
    asks a function's (the first) worker at its delivery socket (the second).
    """

    def __init__(
        self,
        queue: Queue,
        owner: Owner,
        *,
        data: Path,
        retention: float,
        factories: Mapping[str, Factory] | None = None,
        client_of: Callable[[str, str], HttpClient] = lambda _function, socket: UnixClient(socket),
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.queue = queue
        self.redriving = Redriving(queue, check=self._check_home, clock=clock)
        self._owner = owner
        self._client_of = client_of
        self._data = data
        self._retention = retention
        self._ages = Ages(retention, clock, monotonic)
        self._registry = Registry(queue)
        self._feeds = Feeds(queue, feeds.factories() if factories is None else factories)
        self._endings = Endings(queue, self._registry, self._feeds, clock)
        self._removed = Removed(queue, clock, monotonic)
        self._dispatches: dict[str, Dispatch] = {}
        self._changing = asyncio.Lock()
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def functions(self) -> Mapping[str, GatewayFunction]:
        """Those that it was told of, by name."""
        return self._registry.functions

    def load(self, name: str) -> Load:
        """Raises StoreError."""
        dispatch = self._dispatches.get(name)
        return Load() if dispatch is None else dispatch.load

    async def open(self) -> None:
        """Go on with the functions of last time."""
        self.queue.on_ready = self._ready
        self.queue.on_coming = self._coming
        async with self._changing:
            try:
                self._registry.load()
            except StoreError as error:  # rows wait until the owner tells the functions anew
                log.error("%s; %s", error.message, error.hint)  # noqa: TRY400 - where it happened is in the message
            await asyncio.gather(*map(self._run, self._registry.functions.values()))
        self._housekeeping = asyncio.create_task(self._keep_house())

    async def close(self, grace: float = GRACE) -> None:
        """Take nothing more, let what is in flight end, let go of the sources. The queue stays its owner's."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            await asyncio.wait({self._housekeeping})
        async with self._changing:
            await self.redriving.close()
            await asyncio.gather(self._feeds.close(grace), *(each.close(grace) for each in self._dispatches.values()))
            self._dispatches.clear()
            await self._owner.close()

    # What there is to run. Durable before it is begun, so that a kill in between loses nothing.

    async def replace(self, functions: Iterable[GatewayFunction]) -> None:
        """These are all that run; of others, rows and what sources keep are kept: their owner may have lost sight of
        them for a while. Raises StoreError.
        """
        async with self._changing:
            told = {each.name: each for each in functions}
            await self._endings.yield_to(told.values())
            gone = self._registry.functions.keys() - told.keys()
            await self._registry.keep(told)
            await asyncio.gather(*(self._end(name) for name in gone))
            await asyncio.gather(*map(self._run, told.values()))

    async def put(self, function: GatewayFunction) -> None:
        """It is new, or like this from now on. Raises StoreError."""
        async with self._changing:
            await self._endings.yield_to([function])
            await self._registry.keep({**self._registry.functions, function.name: function})
            await self._run(function)

    async def delete(self, name: str, *, drop: bool) -> None:
        """`drop`: its rows and dead letters, too. One that is unknown may have rows yet. It is gone, whatever its
        sources say: one that is away is told later. Raises StoreError.
        """
        async with self._changing:
            left = dict(self._registry.functions)
            ending = self._endings.of(name, left.pop(name, None), drop=drop)
            await self._registry.keep(left, [*self._registry.endings, ending])
            await self._end(name)
            await self._endings.work(name)

    async def _run(self, function: GatewayFunction) -> None:
        await self._feeds.change(function)
        spec = function.function.spec
        triggers = frozenset(each.name for each in spec.triggers if each.name not in function.paused)
        dispatch = self._dispatches.get(function.name)
        concurrency = concurrency_of(spec)
        if dispatch is not None:
            dispatch.change(triggers, concurrency)
            return
        self._dispatches[function.name] = Dispatch(
            function.name,
            self.queue,
            self._owner,
            triggers=triggers,
            concurrency=concurrency,
            client_at=functools.partial(self._client_of, function.name),
        )

    async def _end(self, name: str) -> None:
        dispatch = self._dispatches.pop(name, None)
        if dispatch is not None:
            await dispatch.close()
        await self._feeds.end(name)

    def _ready(self, function: str) -> None:
        dispatch = self._dispatches.get(function)
        if dispatch is not None:
            dispatch.ready()

    def _coming(self, function: str, trigger: str) -> None:
        dispatch = self._dispatches.get(function)
        if dispatch is not None:
            dispatch.coming(trigger)

    async def _keep_house(self) -> None:
        while True:
            try:
                async with self._changing:
                    await self._feeds.mend()
                    await self._endings.work_due()
                    await self._removed.bury_due(self._registry.functions)
                expired = await self.queue.expire(self._retention) if self._ages.believed() else 0
            except StoreError as error:
                log.warning("what was deleted, or dead letters that are too old, cannot be dropped: %s", error.message)
            except Exception:
                log.exception("feeds could not be mended, deletes not ended, or dead letters not dropped; it goes on")
            else:
                if expired:
                    log.info("%d dead letters older than %.0f s were dropped", expired, self._retention)
            await asyncio.sleep(_HOUSE)

    # What people ask.

    async def _check_home(self, which: Which) -> None:
        """Raises UsageError where letters of these have no function or trigger any more: they would wait, seen by
        nobody.
        """
        for name, trigger in sorted(await self.queue.letters_of(which)):
            function = self._registry.functions.get(name)
            if function is None:
                raise UsageError(
                    f"nothing is redriven: function {name!r} is not deployed, so nobody would run its dead letters",
                    hint="deploy it first, or discard them, or choose those of another function",
                )
            if trigger not in {each.name for each in function.function.spec.triggers}:
                raise UsageError(
                    f"nothing is redriven: function {name!r} has no trigger {trigger!r} any more",
                    hint="deploy a revision that has it, or discard them, or choose those of another trigger",
                )

    async def fire(self, name: str, request: FireRequest) -> Fired:
        """Raises UnknownError, UsageError, AwayError, StoreError."""
        function = self._registry.functions.get(name)
        if function is None:
            raise UnknownError(f"there is no function {name!r}")
        trigger = next((each for each in function.function.spec.triggers if each.name == request.trigger), None)
        if trigger is None:
            raise UnknownError(f"function {name!r} has no trigger {request.trigger!r}")
        if trigger.cron is None:
            raise UsageError(f"trigger {trigger.name!r} is of kind {trigger.kind.name}: cron triggers alone are fired")
        feed = self._feeds.get(name, trigger.name)
        if not isinstance(feed, Firing):
            raise AwayError(
                f"the clock of {name}/{trigger.name} does not run: {self._feeds.problem(name, trigger.name)}"
            )
        return await feed.fire(request.at)

    def status(self) -> GatewayStatus:
        """Raises StoreError."""
        rows = self.queue.counts()
        names = sorted(self._registry.functions.keys() | rows.keys())
        return GatewayStatus(
            pid=os.getpid(),
            data=str(self._data),
            bytes=self.queue.bytes,
            quota=self.queue.quota,
            accepting=self.queue.accepting,
            problem=self.queue.problem,
            functions={name: self._triggers(name, rows.get(name, {})) for name in names},
        )

    def _triggers(self, name: str, rows: Mapping[str, TriggerRows]) -> dict[str, TriggerRows]:
        """Those with a feed or rows, and those that the function has no more while their rows are kept."""
        function = self._registry.functions.get(name)
        known = {} if function is None else {each.name: each for each in function.function.spec.triggers}
        return {
            trigger: self._told(name, trigger, rows.get(trigger, TriggerRows()), known=trigger in known)
            for trigger in [*known, *(each for each in rows if each not in known)]
        }

    def _told(self, name: str, trigger: str, rows: TriggerRows, *, known: bool) -> TriggerRows:
        feed = self._feeds.get(name, trigger)
        clock = feed if isinstance(feed, Firing) else None
        return msgspec.structs.replace(
            rows,
            problem=self._problem(name, trigger, rows, known=known),
            next_fire=None if clock is None else clock.next_fire,
            last_fire=None if clock is None else clock.last_fire,
        )

    def _problem(self, name: str, trigger: str, rows: TriggerRows, *, known: bool) -> str:
        """Of its feed, else why its rows wait."""
        if not known:
            return removed.TOLD if rows.waiting else ""
        dispatch = self._dispatches.get(name)
        waits = dispatch.problem if dispatch is not None and rows.waiting > 0 else ""
        return self._feeds.problem(name, trigger) or waits

    def metrics(self) -> bytes:
        """Prometheus' text. Raises StoreError."""
        delivered = {name: dispatch.delivered for name, dispatch in self._dispatches.items()}
        return metrics.text(self.queue, delivered, self._feeds.left_out())
