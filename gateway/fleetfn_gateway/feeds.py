"""The feeds of a gateway's triggers: made, started again where their trigger or connection changed, ended.

A feed that cannot be made or started is a problem of its trigger, told and tried again, and never more than that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from fleetfn.errors import FleetError
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.feed import Feed, Firing
from fleetfn_gateway.mqtt_room import Room
from fleetfn_gateway.pulse import Pulse
from fleetfn_gateway.queue import Queue

log = logging.getLogger("fleetfn.gateway")

CLOSE = 10.0
"""Seconds that a feed may take to let go of its source."""

EARLY = 0.1
"""Seconds before a clock's instant at which a worker is woken for it: a node starts one in about 10 ms, several at once
in more.
"""

Factory = Callable[[GatewayFunction, Trigger, Queue], Feed]


def _mqtt(room: Room, function: GatewayFunction, trigger: Trigger, queue: Queue) -> Feed:
    from fleetfn_gateway.mqtt_bridge import MqttBridge  # noqa: PLC0415 - its client is there with the extra alone

    return MqttBridge(function, trigger, queue, queue, room)


def _cron(pulse: Pulse, early: float, function: GatewayFunction, trigger: Trigger, queue: Queue) -> Feed:
    from fleetfn_gateway.clock import Clock  # noqa: PLC0415 - likewise

    return Clock(function, trigger, queue, queue, sleep=pulse.sleep, early=early)


def factories(early: float = EARLY) -> Mapping[str, Factory]:
    """By kind, those of one gateway. Triggers of other kinds have no feed: workers consume or are called."""
    return {"mqtt": partial(_mqtt, Room()), "cron": partial(_cron, Pulse(), early)}


@dataclass(slots=True)
class Fed:
    """One trigger's feed; None: it could not be made, or not be started."""

    function: GatewayFunction
    trigger: Trigger
    feed: Feed | None = None
    failure: str = ""

    @property
    def problem(self) -> str:
        return self.failure if self.feed is None else self.feed.problem


class Feeds:
    """Use on one loop, one change of a function at a time."""

    def __init__(self, queue: Queue, made_by: Mapping[str, Factory]) -> None:
        self._queue = queue
        self._factories = made_by
        self._feeds: dict[tuple[str, str], Fed] = {}

    def get(self, function: str, trigger: str) -> Feed | None:
        fed = self._feeds.get((function, trigger))
        return None if fed is None else fed.feed

    def problem(self, function: str, trigger: str) -> str:
        fed = self._feeds.get((function, trigger))
        return "" if fed is None else fed.problem

    def left_out(self) -> Iterator[tuple[str, str, int]]:
        """(function, trigger, fires that overlapped) of each clock."""
        for (function, trigger), fed in self._feeds.items():
            if isinstance(fed.feed, Firing):
                yield function, trigger, fed.feed.left_out

    async def change(self, function: GatewayFunction) -> None:
        """The function is like this from now on; what sources keep for triggers that it has no more is let go."""
        triggers = {each.name: each for each in function.function.spec.triggers}
        for fed in self._of(function.name):
            trigger = triggers.get(fed.trigger.name)
            if trigger is None or trigger.kind.name != fed.trigger.kind.name:
                await self._end(fed, forget=True)
            elif _basis(fed.function, fed.trigger) != _basis(function, trigger):
                await self._end(fed, forget=False)
        new = [each for each in self.fed(function) if (function.name, each.name) not in self._feeds]
        await asyncio.gather(*(self._open(Fed(function, each)) for each in new))

    def fed(self, function: GatewayFunction) -> list[Trigger]:
        """Its triggers whose kind has feeds."""
        return [each for each in function.function.spec.triggers if each.kind.name in self._factories]

    async def end(self, name: str) -> None:
        """The function is none of ours any more. What sources keep for it stays."""
        await asyncio.gather(*(self._end(each, forget=False) for each in self._of(name)))

    async def forget(self, function: GatewayFunction, trigger: Trigger) -> str:
        """Leave nothing of a trigger that has no feed any more, neither at its source nor in notes. Why it could not be
        done; '' where it was.
        """
        try:
            feed = self._factories[trigger.kind.name](function, trigger, self._queue)
            async with asyncio.timeout(CLOSE):
                await feed.close(forget=True)
        except TimeoutError:
            return f"its source did not answer in {CLOSE:g} s"
        except Exception as error:
            if not isinstance(error, FleetError | ImportError):
                log.exception("%s/%s: what it keeps could not be let go", function.name, trigger.name)
            return _why(error)
        return ""

    async def mend(self) -> None:
        """Try again what could not be made or started."""
        idle = [each for each in self._feeds.values() if each.feed is None]
        await asyncio.gather(*map(self._open, idle))

    async def close(self, limit: float = CLOSE) -> None:
        """All at once; what their sources keep for them stays. `limit`: seconds that they have."""
        feeds, self._feeds = list(self._feeds.values()), {}
        await asyncio.gather(*(self._close(each, forget=False, limit=limit) for each in feeds))

    def _of(self, function: str) -> list[Fed]:
        return [fed for fed in self._feeds.values() if fed.function.name == function]

    async def _end(self, fed: Fed, *, forget: bool) -> None:
        del self._feeds[fed.function.name, fed.trigger.name]
        await self._close(fed, forget=forget)

    async def _open(self, fed: Fed) -> None:
        name, trigger = fed.function.name, fed.trigger
        self._feeds[name, trigger.name] = fed
        try:
            feed = self._factories[trigger.kind.name](fed.function, trigger, self._queue)
            fed.feed = feed
            await feed.start()
        except Exception as error:
            failure = _why(error)
            if failure != fed.failure:
                foreseen = isinstance(error, FleetError | ImportError)
                log.warning("%s/%s is not fed: %s", name, trigger.name, failure, exc_info=not foreseen)
            await self._close(fed, forget=False)
            fed.failure, fed.feed = failure, None

    async def _close(self, fed: Fed, *, forget: bool, limit: float = CLOSE) -> None:
        if fed.feed is None:
            return
        try:
            async with asyncio.timeout(limit):
                await fed.feed.close(forget=forget)
        except TimeoutError:
            log.warning("%s/%s: its source did not answer in %g s", fed.function.name, fed.trigger.name, limit)
        except FleetError as error:
            log.warning("%s/%s: %s", fed.function.name, fed.trigger.name, _why(error))
        except Exception:
            log.exception("%s/%s: its feed did not end well", fed.function.name, fed.trigger.name)


def _why(error: Exception) -> str:
    match error:
        case FleetError():
            return error.message + (f" ({error.hint})" if error.hint else "")
        case ImportError():
            return f"its client is not installed: {error} (pip install 'fleetfn[gateway]')"
        case _:
            return f"its feed failed: {type(error).__name__}: {error}"


def _basis(function: GatewayFunction, trigger: Trigger) -> tuple[Any, ...]:
    """All that a feed is made of: as long as it is the same, a new revision leaves the feed alone."""
    connection = function.mqtt.get(trigger.connection or trigger.kind.name) if trigger.mqtt is not None else None
    source = function.source if _relative(msgspec.to_builtins(connection)) else None
    return trigger, connection, source, function.environment, function.place


def _relative(value: Any) -> bool:
    """Whether a connection names files in the function's folder, which each revision has its own copies of."""
    if not isinstance(value, dict):
        return False
    paths = (value.get(name) for name in ("file", "ca", "certificate", "key"))
    return any(isinstance(each, str) and not Path(each).is_absolute() for each in paths) or any(
        _relative(each) for each in value.values()
    )
