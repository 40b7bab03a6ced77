"""What is left to do for functions that were deleted: their rows go, and their sources keep nothing for them.

Each is noted in the commit that takes the function away, so that a kill in between does not leave an MQTT session
behind that gathers messages, or rows that a later function of that name would run. A source that is away is tried
again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable

import msgspec
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.feeds import Feeds
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.registry import Ending, Registry

log = logging.getLogger("fleetfn.gateway")

FIRST, LONGEST = 30.0, 600.0
"""Seconds between tries while a source is away."""

GIVE_UP = 7 * 24 * 3600.0
"""Seconds after which a source is tried no more: as long as an MQTT session is kept (mqtt_bridge.EXPIRY)."""


class Endings:
    """Use on one loop, one call at a time. A function has no feeds when its ending is worked off."""

    def __init__(self, queue: Queue, registry: Registry, feeds: Feeds, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._registry = registry
        self._feeds = feeds
        self._clock = clock
        self._backoff = Backoff(FIRST, LONGEST)
        self._next = 0.0
        self._told: set[tuple[str, str, str]] = set()

    def of(self, name: str, function: GatewayFunction | None, *, drop: bool) -> Ending:
        """To be kept with the function's removal. `function` None: nobody knows it, it may have rows yet."""
        triggers = () if function is None else tuple(each.name for each in self._feeds.fed(function))
        return Ending(name=name, function=function, triggers=triggers, drop=drop, since=self._clock())

    async def work(self, name: str) -> None:
        """Do what can be done for it now. Raises StoreError: its rows are there yet."""
        await self._work([each for each in self._registry.endings if each.name == name])

    async def work_due(self) -> None:
        """All, unless a source was away just now. Raises StoreError."""
        if self._registry.endings and time.monotonic() >= self._next:
            await self._work(self._registry.endings)

    async def yield_to(self, functions: Iterable[GatewayFunction]) -> None:
        """These come, maybe under the name of one that ends: its rows go first, and a source that is still away is not
        told any more to forget a trigger that is there again: it would lose what it keeps for the new one.

        Raises StoreError.
        """
        told = {each.name: each for each in functions}
        meet = [each for each in self._registry.endings if each.name in told and _meets(each, told[each.name])]
        if not meet:
            return
        await self._work(meet)
        await self._keep({id(each): _without(each, told.get(each.name)) for each in self._registry.endings})

    async def _work(self, endings: Collection[Ending]) -> None:
        done = await asyncio.gather(*map(self._one, endings), return_exceptions=True)
        await self._keep({id(old): new for old, new in zip(endings, done, strict=True) if isinstance(new, Ending)})
        for each in done:
            if isinstance(each, BaseException):
                raise each
        if self._registry.endings:
            self._next = time.monotonic() + self._backoff.failed()
        else:
            self._backoff.reset()
            self._told.clear()

    async def _keep(self, changed: dict[int, Ending]) -> None:
        now = [changed.get(id(each), each) for each in self._registry.endings]
        await self._registry.keep(self._registry.functions, [each for each in now if each.drop or each.triggers])

    async def _one(self, ending: Ending) -> Ending:
        """What is left of it. Raises StoreError."""
        if ending.drop:
            await self._queue.drop(ending.name)
        triggers = _left(ending)
        failures = await asyncio.gather(*(self._forget(ending, each) for each in triggers))
        left = tuple(each.name for each, failed in zip(triggers, failures, strict=True) if failed)
        return msgspec.structs.replace(ending, drop=False, triggers=left)

    async def _forget(self, ending: Ending, trigger: Trigger) -> bool:
        """Whether it has to be tried again."""
        if ending.function is None:
            return False
        failure = await self._feeds.forget(ending.function, trigger)
        if not failure:
            log.info("%s/%s is deleted, and its source keeps nothing for it", ending.name, trigger.name)
            return False
        if self._clock() - ending.since >= GIVE_UP:
            said = "is deleted, and what its source keeps for it may still be there; it is tried no more"
            log.warning("%s/%s %s: %s", ending.name, trigger.name, said, failure)
            return False
        if (told := (ending.name, trigger.name, failure)) not in self._told:
            self._told.add(told)
            said = "is deleted, and its source could not be told; it is tried again"
            log.warning("%s/%s %s: %s", ending.name, trigger.name, said, failure)
        return True


def _left(ending: Ending) -> list[Trigger]:
    known = [] if ending.function is None else ending.function.function.spec.triggers
    return [each for each in known if each.name in ending.triggers]


def _again(ending: Ending, function: GatewayFunction) -> set[str]:
    """Triggers whose sources are to forget them, and that the function has again."""
    there = {(each.name, each.kind.name) for each in function.function.spec.triggers}
    return {each.name for each in _left(ending) if (each.name, each.kind.name) in there}


def _meets(ending: Ending, function: GatewayFunction) -> bool:
    return ending.drop or bool(_again(ending, function))


def _without(ending: Ending, function: GatewayFunction | None) -> Ending:
    again = set() if function is None else _again(ending, function)
    for each in sorted(again):
        log.warning("%s/%s is there again: what its source keeps for it is the new one's", ending.name, each)
    return msgspec.structs.replace(ending, triggers=tuple(each for each in ending.triggers if each not in again))
