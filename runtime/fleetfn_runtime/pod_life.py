"""What a worker does in a pod beside its road: nobody of this machine tells it which triggers are paused, nor that
another worker has ended.

Its gateway is told that it takes work, so that nobody waits for the cluster to find out. Its sources stand still until
that has said what is paused by hand; they need it anyway, to claim what they read.
What others saved and did not send is looked for now and then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import HttpClient, UnreachableError
from fleetfn_spec.cluster import Figures, Here
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Triggers

log = logging.getLogger("fleetfn.worker")

SWEEP = 60.0
"""Seconds between looks for what others left unsent, about: not all pods look at once."""

REACH = 30.0
"""Seconds that the gateway has to answer for the first time: it may just be starting."""

_LIMIT = 5.0
"""Seconds for an answer."""

_LAST = 1.0
"""Seconds for it when the worker ends."""

_AGAIN = 0.25
_LONGEST = 5.0
"""First and longest seconds before it is asked again."""

_FINE = 300
_UNTOLD = "its gateway has not said yet which triggers are paused"


class Source(Protocol):
    def pause(self, why: str) -> None: ...

    def resume(self, why: str) -> None: ...


class PodLife:
    """Use on one loop. `gateway` is its own. `here`: None where the cluster did not say. `pause`: triggers by name.
    `sweep`: None where nothing is kept.
    """

    def __init__(
        self,
        function: str,
        gateway: HttpClient,
        sources: Sequence[Source],
        *,
        here: Here | None = None,
        pause: Callable[[tuple[str, ...]], None],
        sweep: Callable[[], None] | None,
        figures: Callable[[], Figures],
    ) -> None:
        self._function = function
        self._gateway = gateway
        self._sources = sources
        self._here = here
        self._pause = pause
        self._sweep = sweep
        self._figures = figures
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        for source in self._sources:
            source.pause(_UNTOLD)
        self._spawn(self._learn())
        if self._sweep is not None:
            self._spawn(self._sweep_on(self._sweep))

    async def reach(self) -> None:
        """Its gateway answers, and knows who asks. Raises FleetError."""
        limit = time.monotonic() + REACH
        while True:
            try:
                await self._paused()
            except FleetError as error:
                if time.monotonic() > limit:
                    raise FleetError(
                        f"the gateway {self._gateway.place} does not serve this worker: {error.message}",
                        hint=error.hint or "look at the gateway's pod and its log",
                    ) from error
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tell_last()
        await self._gateway.close()

    async def _learn(self) -> None:
        wait = _AGAIN
        while True:
            try:
                self._pause(await self._paused(self._here))
                break
            except FleetError as error:
                say = log.warning if wait == _AGAIN else log.debug
                say("%s: %s; asking on", _UNTOLD, error.message)
                self._here = None  # an older gateway takes no word; any other finds out
                await asyncio.sleep(wait)
                wait = min(2 * wait, _LONGEST)
        for source in self._sources:
            source.resume(_UNTOLD)

    async def _tell_last(self) -> None:
        """What it did since its gateway has asked for the last time. Nothing hangs on it."""
        with contextlib.suppress(FleetError):
            path = f"/v1/functions/{self._function}/figures"
            await self._gateway.request("POST", path, msgspec.json.encode(self._figures()), limit=_LAST)

    async def _paused(self, here: Here | None = None) -> tuple[str, ...]:
        """Asked, or as the answer to `here`. Raises FleetError."""
        path = f"/v1/functions/{self._function}"
        if here is None:
            reply = await self._gateway.request("GET", f"{path}/paused", limit=_LIMIT)
        else:
            reply = await self._gateway.request("POST", f"{path}/ready", msgspec.json.encode(here), limit=_LIMIT)
        try:
            if reply.status >= _FINE:
                refusal = msgspec.json.decode(reply.body, type=Refusal)
                raise FleetError(refusal.message, hint=refusal.hint)
            return msgspec.json.decode(reply.body, type=Triggers).triggers
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnreachableError(f"its answer (status {reply.status}) cannot be read: {error}") from error

    async def _sweep_on(self, sweep: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(SWEEP * random.uniform(0.75, 1.25))
            sweep()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))
