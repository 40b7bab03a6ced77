"""A broker for demo and development in a process of its own: started, asked for its address, ended with its input.

One that ends by itself is started again, empty, with growing waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable

from fleetfn.errors import FleetError
from fleetfn_plumbing import leash

from fleetfn_node.backoff import Backoff

log = logging.getLogger("fleetfn.node")

END = 5.0
"""Seconds that it may take to end."""

START = 60.0
"""Seconds that it may take to start."""


class EmbeddedProcess:
    """Starts and stops `python -m <module> [port]`; it prints {<field>: "host:port"} and ends when its input does."""

    def __init__(self, module: str, field: str, what: str, *, moved: Callable[[], None], keeps_port: bool) -> None:
        """`what`: its name in errors, `the embedded Kafka`. `moved` is called where it had to be started again and has
        another address; `keeps_port`: it takes a port to listen on, so it mostly has not.
        """
        self.address: str | None = None
        """host:port; while it is started again, the one that it had."""
        self.problem = ""
        """Why it does not run just now, for people; '' where it does, or was never needed."""
        self._module = module
        self._field = field
        self._what = what
        self._moved = moved
        self._keeps_port = keeps_port
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._backoff = Backoff()

    async def start(self) -> str:
        """Its address; starts it unless it runs. Raises FleetError."""
        async with self._starting:
            if self.address is None:
                self.address = await self._start()
                self._watching = asyncio.create_task(self._watch(), name=self._what)
        return self.address

    async def stop(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        self.address, self.problem = None, ""
        await self._end()

    async def _watch(self) -> None:
        from fleetfn_node.links import how_it_ended  # noqa: PLC0415 - the process itself needs nothing of it

        began = time.monotonic()
        while (process := self._process) is not None:
            how = how_it_ended(await process.wait())
            wait = self._backoff.died(lived=time.monotonic() - began, worked=False)
            while True:
                self.problem = f"{self._what} {how} and is started again; what it kept is gone"
                log.error("%s (pid %d) %s; next start in %.1f s, empty", self._what, process.pid, how, wait)
                await asyncio.sleep(wait)
                began = time.monotonic()
                try:
                    async with self._starting:
                        before, self.address = self.address, await self._start()
                except (FleetError, OSError) as error:
                    how = f"could not be started again: {error}"
                    wait = self._backoff.failed()
                else:
                    break
            self.problem = ""
            log.info("%s runs again at %s", self._what, self.address)
            if self.address != before:
                self._moved()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            await leash.end(process, END)

    async def _start(self) -> str:
        pipe = asyncio.subprocess.PIPE
        port = [self.address.rpartition(":")[2]] if self.address is not None and self._keeps_port else []
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, *port, stdin=pipe, stdout=pipe, start_new_session=True
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START)
            return str(json.loads(line)[self._field])
        except (TimeoutError, ValueError) as error:
            await self._end()
            raise FleetError(f"{self._what} did not start", hint="its output is above, or in the node's log") from error


def tell(field: str, address: str) -> None:
    """In the process: say where it listens."""
    sys.stdout.write(json.dumps({field: address}) + "\n")
    sys.stdout.flush()
