"""The gateway of a worker that runs by itself: a child process of its own, or one that somebody else runs.

It is there before the worker and ends after it, is started again when it dies, and is told of the function once the
worker is ready: a function that cannot run takes nothing from its sources.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import msgspec
from fleetfn.errors import FleetError, UsageError
from fleetfn_plumbing import leash
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import GatewayFunction

log = logging.getLogger("fleetfn.worker")

VARIABLE = "FLEETFN_GATEWAY"
"""Environment variable: socket of a gateway that somebody else runs."""

START = 30.0
"""Seconds until a gateway serves; it may wait for one before it that is just ending."""

END = 10.0
"""Seconds until it has ended, before it is killed: what it has is on disk."""

ANSWER = 10.0
AGAIN = (0.5, 10.0)
"""First and longest seconds before it is started, or told of the function, again."""

_LOOK = 0.02
_LIBRARIES = ("httptools", "uvicorn", "uvloop")
_FINE = 300


class Gateway:
    """One that somebody runs. Use on one loop."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._client = UnixClient(socket)
        self._telling: asyncio.Task[None] | None = None

    def tell(self, function: GatewayFunction) -> None:
        """The worker is ready for it. Goes on until the gateway knows."""
        self._telling = asyncio.get_running_loop().create_task(self._tell(function))

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait((self._telling,))
        await self._client.close()

    async def serves(self) -> bool:
        with contextlib.suppress(UnreachableError):
            return (await self._client.request("GET", "/healthz", limit=ANSWER)).status < _FINE
        return False

    async def _tell(self, function: GatewayFunction) -> None:
        delay, longest = AGAIN
        body = msgspec.json.encode(function, enc_hook=str)  # paths
        while True:
            try:
                await self._put(function.name, body)
            except FleetError as error:
                log.warning("the gateway is not told of %s: %s; next try in %g s", function.name, error.message, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, longest)
            else:
                return

    async def _put(self, name: str, body: bytes) -> None:
        """Raises FleetError."""
        reply = await self._client.request("PUT", f"/v1/functions/{quote(name, safe='')}", body, limit=ANSWER)
        if reply.status >= _FINE:
            try:
                said = msgspec.json.decode(reply.body, type=Refusal)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                said = Refusal(f"status {reply.status}")
            raise FleetError(said.message, hint=said.hint)


class OwnGateway(Gateway):
    """A child process. `data`: its folder; `worker`: the delivery socket; `terminal`: where its log goes."""

    def __init__(self, socket: Path, *, data: Path, worker: Path, terminal: TextIO) -> None:
        super().__init__(socket)
        self._command = [sys.executable, "-P", "-m", "fleetfn_gateway"]
        self._command += ["--data", str(data), "--socket", str(socket), "--worker", str(worker)]
        self._terminal = terminal
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises FleetError where it does not come up."""
        try:
            await self._start()
        except BaseException:
            await self._end()
            raise
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait((self._keeping,))
        await super().close()
        await self._end()

    async def _keep(self) -> None:
        delay, longest = AGAIN
        while True:
            if self._process is not None:
                status = await self._process.wait()
                log.error("the gateway ended with exit code %d; it is started again in %g s", status, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, longest)
            try:
                await self._start()
            except FleetError as error:
                log.error("%s; next try in %g s", error.message, delay)  # noqa: TRY400 - an operator's line
                await self._end()
            else:
                delay = AGAIN[0]

    async def _start(self) -> None:
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,  # it ends when this process does
            stdout=asyncio.subprocess.DEVNULL,  # says but what its log says, too
            stderr=self._terminal,
            start_new_session=True,  # Ctrl-C is the worker's to hear: it needs the gateway while it drains
        )
        limit = time.monotonic() + START
        while not await self.serves():
            if process.returncode is not None:
                raise FleetError(
                    f"the gateway ended with exit code {process.returncode}", hint="its own words are above"
                )
            if time.monotonic() > limit:
                raise FleetError(f"the gateway did not serve within {START:g} s", hint="its own words are above")
            await asyncio.sleep(_LOOK)

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None and not await leash.end(process, END):
            log.warning("the gateway did not end within %g s and was killed", END)


@contextlib.asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    """Raises FleetError where it does not serve."""
    if isinstance(gateway, OwnGateway):
        check_installed()
        await gateway.open()
    elif not await gateway.serves():
        hint = "start it first, or leave the variable out"
        raise UsageError(f'no gateway serves at {VARIABLE}="{gateway.socket}"', hint=hint)
    try:
        yield gateway
    finally:
        await gateway.close()


def check_installed() -> None:
    """Raises UsageError."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a worker that runs by itself keeps a gateway, which needs {', '.join(missing)}",
            hint=f'pip install "fleetfn[gateway]", or name a gateway that runs elsewhere in {VARIABLE}',
        )
