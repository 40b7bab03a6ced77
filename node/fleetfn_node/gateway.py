"""The node's gateway: kept running, and told which functions there are.

When it dies by itself it is started again, and told all functions anew; until then workers and feeds wait, and the node
goes on. The process itself: gateway_process.py; what it is asked: gateway_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from fleetfn.errors import FleetError
from fleetfn_spec.gateway import GatewayFunction, GatewayStatus

from fleetfn_node import gateway_process
from fleetfn_node.activation import Unavailable
from fleetfn_node.backoff import Backoff
from fleetfn_node.gateway_client import GatewayClient
from fleetfn_node.gateway_process import GatewayOptions
from fleetfn_node.links import how_it_ended
from fleetfn_node.processes import Process

log = logging.getLogger("fleetfn.node")

START = 60.0
"""Seconds that it may take to serve: it may have to mend a large file after a power failure."""

PATIENCE = 5.0
"""Seconds that a call waits for a gateway which is just starting."""

STATUS = 2.0
"""Seconds for its answer where a status is asked for, which is better told without the gateway than late."""

AGAIN = 5.0
"""Seconds until it is told again what it could not write down: its disk is full, say."""

END = 15.0
"""Seconds to end after its standard input has."""

_LOOK = 0.02
"""Seconds between looks whether it serves."""


class Known(NamedTuple):
    """`complete` False: there are more, which cannot be read now. The gateway goes on with what it knows of those: to
    forget them would end their MQTT sessions, and with them what brokers keep.
    """

    functions: list[GatewayFunction]
    complete: bool


class Gateway:
    """Use on one loop."""

    def __init__(
        self,
        options: GatewayOptions,
        known: Callable[[], Known],
        first: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """`known`: the functions there are now. `first`: a process that was started ahead."""
        self._options = options
        self._known_now = known
        self._client = GatewayClient(options.folders.gateway_socket)
        self._first = first
        self._child: subprocess.Popen[bytes] | None = None
        self._process: Process | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._telling = asyncio.Lock()
        """What it is told comes in order, each time as things are then."""
        self._up = asyncio.Event()
        self._known = asyncio.Event()
        """Set once the node knows its own functions."""
        self._tried = asyncio.Event()
        """Set once it serves, or has failed to."""
        self._problem = "the gateway starts: what waits and dead letters are known in a moment"
        self._untold = ""
        """Why it does not know of the functions that there are now."""
        self._behind = asyncio.Event()
        """Set where it could not be told of a change."""
        self._backoff = Backoff()

    def open(self) -> None:
        """Start it; it is told of functions after `tell_all`."""
        self._supervising = asyncio.create_task(self._supervise(), name="gateway")

    async def tell_all(self) -> None:
        """The node knows its functions now. Returns when the gateway does, too; or is away, and will be told later."""
        self._known.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._tried.wait(), PATIENCE)

    async def close(self) -> None:
        if self._supervising is not None:
            self._supervising.cancel()
            await asyncio.wait({self._supervising})
        self._up.clear()
        await self._client.close()
        await self._end()

    @property
    def problem(self) -> str:
        """Why it cannot be asked now, or does not know all functions, for people; '' where all is well."""
        return self._untold if self._up.is_set() else self._problem

    @property
    def is_away(self) -> bool:
        return not self._up.is_set()

    async def client(self) -> GatewayClient:
        """Waits for one that is just starting. Raises Unavailable."""
        try:
            await asyncio.wait_for(self._up.wait(), PATIENCE)
        except TimeoutError:
            raise Unavailable(self._problem, hint="it is started again by itself; the node's log says more") from None
        return self._client

    async def status(self) -> GatewayStatus | None:
        """None while it is away: see `problem`."""
        if not self._up.is_set():
            return None
        try:
            return await self._client.status(limit=STATUS)
        except FleetError as error:
            log.warning("the gateway does not tell its status: %s", error.message)
            return None

    async def metrics(self) -> bytes:
        """None of its figures while it is away. Raises FleetError."""
        return await self._client.metrics() if self._up.is_set() else b""

    async def tell(self, function: Callable[[], GatewayFunction]) -> None:
        """It is new, or has changed. Raises FleetError; it is told again then, until it knows."""
        try:
            client = await self.client()
        except FleetError:
            self._behind.set()  # what it is being told just now may be from before the change
            raise
        async with self._telling:
            try:
                await client.put(function())
            except FleetError as error:
                self._fall_behind(error)
                self._behind.set()
                raise

    def tell_again(self) -> None:
        """Of all functions, soon: it may have lost one."""
        self._behind.set()

    async def forget(self, name: str, *, keep_rows: bool) -> None:
        """Raises FleetError; it may have forgotten it then, or do so yet."""
        client = await self.client()
        async with self._telling:
            await client.delete(name, keep_rows=keep_rows)

    # The process

    async def _supervise(self) -> None:
        while True:
            began = time.monotonic()
            try:
                process = self._start()
                if await self._until_it_serves(process):
                    log.info("the gateway serves, pid %d", process.pid)
                    await self._keep_told(process)
                how = how_it_ended(await asyncio.shield(process.exited))
                if self._child is not None and (why := gateway_process.last_words(self._child)):
                    how = f"{how} ({why})"
                await self._end()
            except (OSError, FleetError) as error:
                how = f"does not work: {getattr(error, 'message', error)}"
                await self._end()
            self._up.clear()
            self._tried.set()
            wait = self._backoff.died(lived=time.monotonic() - began, worked=False)
            when = time.strftime("%H:%M:%S", time.gmtime())
            self._problem = (
                f"the gateway {how} at {when} UTC and is started again: until then nothing comes from MQTT and clocks, "
                "workers take no new Kafka partitions, retries wait, and dead letters cannot be seen"
            )
            log.error("the gateway %s; next start in %.1f s", how, wait)
            await asyncio.sleep(wait)

    def _start(self) -> Process:
        child = self._first if self._first is not None else gateway_process.spawn(self._options)
        self._first, self._child = None, child
        self._process = Process(child.pid, child.poll)
        return self._process

    async def _until_it_serves(self, process: Process) -> bool:
        """False: it has ended. Raises FleetError where it does neither within START."""
        limit = time.monotonic() + START
        while not process.exited.done():
            with contextlib.suppress(FleetError):
                if (
                    await self._client.status()
                ).pid == process.pid:  # else one that a node left behind and that is just ending
                    return True
            if time.monotonic() > limit:
                raise FleetError(f"it did not serve within {START:.0f} s")
            await asyncio.sleep(_LOOK)
        return False

    async def _keep_told(self, process: Process) -> None:
        """Of all that there are, now and whenever it missed a change; it goes on with what it knows meanwhile."""
        await self._known.wait()
        while not process.exited.done():
            self._behind.clear()
            async with self._telling:
                try:
                    await self._tell(self._known_now())
                    self._untold = ""
                except FleetError as error:
                    log.warning("the gateway is not told of functions: %s", error.message)
                    self._fall_behind(error)
                self._up.set()
                self._tried.set()
            if self._untold:
                await asyncio.wait({process.exited}, timeout=AGAIN)
            else:
                await self._until_behind(process)

    async def _until_behind(self, process: Process) -> None:
        """Or until it has ended."""
        behind = asyncio.create_task(self._behind.wait())
        waits: set[asyncio.Future[Any]] = {process.exited, behind}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            behind.cancel()

    def _fall_behind(self, error: FleetError) -> None:
        self._untold = f"the gateway does not know of the functions that there are now: {error.message}"

    async def _tell(self, known: Known) -> None:
        if known.complete:
            await self._client.replace(known.functions)
            return
        for each in known.functions:
            await self._client.put(each)

    async def _end(self) -> None:
        process, self._process = self._process, None
        child, self._child = self._child, None
        if child is not None and child.stdin is not None:
            child.stdin.close()
        if process is not None and not process.exited.done():
            try:
                await asyncio.wait_for(asyncio.shield(process.exited), END)
            except TimeoutError:
                log.warning("the gateway did not end within %.0f s and is killed", END)  # what it has is on disk
                process.kill()
                await process.exited
        if child is not None and child.stdout is not None:
            child.stdout.close()


async def unless_away(telling: Awaitable[None], what: str) -> str:
    """Do it; where the gateway cannot be told now, say so in the log and in words for people: it is told later."""
    try:
        await telling
    except FleetError as error:
        log.warning("%s: %s", what, error.message)
        return f"{what}: {error.message}"
    return ""
