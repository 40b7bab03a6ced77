"""One worker, as its node sees it: its channel, its process, what it last said."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from typing import Protocol

from fleetfn.errors import FleetError
from fleetfn_runtime.channel import (
    Connection,
    Drain,
    Failed,
    HandBack,
    Idle,
    Inherit,
    Leaving,
    Pause,
    Ready,
    Report,
    Resume,
    Serve,
    Share,
    Stats,
    Step,
    ToNode,
    ToWorker,
)
from fleetfn_runtime.channel_io import Channel

from fleetfn_node.processes import Process

log = logging.getLogger("fleetfn.node")

_END_SOON = 1.0
"""Seconds from the end of a worker's channel to its own; then another one may be started beside it."""

_END_LIMIT = 10.0
"""Seconds more until it is killed."""

_REPORT_LIMIT = 0.5
"""Seconds that somebody who looks waits for a worker's own figures: a handler may hold its process."""

_HANDED = 2.0
"""Seconds that connections count which were handed over and of which the worker has said nothing yet."""

_MOST_HANDED = 4096
"""Such connections that are remembered."""

_MOST_QUEUED = 16
"""Messages that wait for a worker to read, beyond which it is handed no connection: connections are counted and bounded
at the front door, and nowhere on their way.
"""


class WorkerFailedError(FleetError):
    """It did not become ready. `place`: the user's own line, `file:line`, or ''; `traceback`: whole, or ''."""

    def __init__(self, message: str, *, hint: str = "", place: str = "", traceback: str = "") -> None:
        super().__init__(message, hint=hint)
        self.place = place
        self.traceback = traceback


class Listener(Protocol):
    """Who hears what a worker says."""

    def step(self, text: str) -> None: ...

    def handed_back(self, fd: int, head: bytes) -> None:
        """`fd` is the listener's now."""
        ...

    def stats(self, link: WorkerLink, stats: Stats) -> None: ...

    def idle(self, link: WorkerLink, seconds: float) -> None: ...

    def leaving(self, link: WorkerLink, reason: str) -> None:
        """It drains by itself; it takes nothing more."""
        ...

    def gone(self, link: WorkerLink, status: int | None) -> None:
        """Called once, when the process is gone. `status` as Process.exited tells it."""
        ...


class WorkerLink:
    """`ready` ends with Ready, or with WorkerFailedError."""

    def __init__(
        self,
        function: str,
        revision: str,
        process: Process,
        channel: Channel[ToNode, ToWorker],
        listener: Listener,
        *,
        slot: int = 0,
    ) -> None:
        self.function = function
        self.revision = revision
        self.slot = slot
        self.process = process
        self.started = time.time()
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(_retrieve)
        self.draining = False
        self.in_flight = 0
        self.requests = 0
        self.lag = 0
        self.lagging = 0
        self.done = 0
        """Runs that ended well, so far."""
        self._handed: deque[float] = deque(maxlen=_MOST_HANDED)
        """When connections were handed over since it told of requests."""
        self.problems: tuple[tuple[str, str], ...] = ()
        self.worked = False
        """It has told of an invocation that ended well."""
        self._heard = asyncio.Event()
        """Since it was asked last, it has told its figures."""
        self._channel = channel
        self._listener = listener
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def deliver(self) -> str | None:
        """Path of its delivery socket, once it is ready."""
        return self.ready.result().deliver if self.is_ready else None

    @property
    def busy(self) -> int:
        """Requests that it runs or is about to, as far as is known."""
        if not self._handed:
            return self.requests
        since = time.monotonic() - _HANDED
        while self._handed and self._handed[0] < since:
            self._handed.popleft()
        return self.requests + len(self._handed)

    @property
    def is_ready(self) -> bool:
        return self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None

    def hand_over(self, fd: int, head: bytes) -> None:
        """An HTTP connection, with what was read of it; `fd` is the worker's then. Raises BufferError, and `fd` stays
        the caller's, when the worker does not keep up or is just gone: ask for the function's worker again.
        """
        if self._channel.waiting > _MOST_QUEUED:
            raise BufferError(f"worker {self.pid} of {self.function} does not read its channel")
        try:
            copy = os.dup(fd)  # the channel closes what it cannot send
        except OSError as error:
            raise BufferError(f"no descriptor is left to hand a connection over with: {error.strerror}") from error
        try:
            self._channel.send(Connection(head), copy)
        except BufferError:
            os.close(copy)
            raise
        if self._channel.closed:
            raise BufferError(f"worker {self.pid} of {self.function} is gone")
        os.close(fd)
        self._handed.append(time.monotonic())

    def serve(self) -> None:
        self._send(Serve())

    def share(self, slots: tuple[int, ...]) -> None:
        """The workers of these slots share what only one of them may have at a time."""
        self._send(Share(slots))

    def inherit(self, slot: int) -> None:
        """The worker of this slot is gone."""
        self._send(Inherit(slot))

    def drain(self, reason: str) -> None:
        """Nothing is handed over after this: the worker hands back what came before it."""
        if not self.draining:
            self.draining = True
            self._send(Drain(reason))

    def pause(self, triggers: tuple[str, ...]) -> None:
        self._send(Pause(triggers))

    def resume(self, triggers: tuple[str, ...]) -> None:
        self._send(Resume(triggers))

    async def refresh(self) -> None:
        """Until it has told its figures of now, or does not within half a second."""
        if not self.is_ready:
            return
        self._heard.clear()
        self._send(Report())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._heard.wait(), _REPORT_LIMIT)

    def kill(self) -> None:
        self.process.kill()

    async def gone(self) -> None:
        """Until its process has ended and its last words are heard."""
        await asyncio.shield(self._listening)

    def _send(self, message: ToWorker) -> None:
        try:
            self._channel.send(message)
        except BufferError:
            log.exception("%s: worker %d does not read its channel; it is killed", self.function, self.pid)
            self.kill()

    async def _listen(self) -> None:
        try:
            while (received := await self._channel.receive()) is not None:
                self._take(*received)
        except ValueError:
            log.exception("%s: worker %d said what cannot be read; it is killed", self.function, self.pid)
            self.kill()
        self._channel.close()
        self._heard.set()
        status = await self._exit()
        if not self.ready.done():
            self.ready.set_exception(WorkerFailedError(f"the worker {how_it_ended(status)} before it was ready"))
        self._listener.gone(self, status)

    async def _exit(self) -> int | None:
        """The status of a process that has closed its channel; one that does not end is no worker any more."""
        exited = asyncio.shield(self.process.exited)
        if not (await asyncio.wait({exited}, timeout=_END_SOON))[0] and not self.draining:
            self.draining = True
            self._listener.leaving(self, "it closed its channel")
        if not (await asyncio.wait({exited}, timeout=_END_LIMIT))[0]:
            self.kill()
        return await exited

    def _take(self, message: ToNode, fd: int | None) -> None:
        match message:
            case Ready():
                if not self.ready.done():
                    self.ready.set_result(message)
            case Failed(text, hint, place, traceback):
                if not self.ready.done():
                    self.ready.set_exception(WorkerFailedError(text, hint=hint, place=place, traceback=traceback))
            case HandBack(head) if fd is not None:
                self._listener.handed_back(fd, head)
            case _:
                self._hear(message)

    def _hear(self, message: ToNode) -> None:
        match message:
            case Step(text):
                self._listener.step(text)
            case Stats():
                self._note(message)
                self._listener.stats(self, message)
                self._heard.set()
            case Idle(seconds):
                self._listener.idle(self, seconds)
            case Leaving(reason) if not self.draining:
                self.drain(reason)  # the answer it waits for: nothing is handed over after this
                self._listener.leaving(self, reason)

    def _note(self, stats: Stats) -> None:
        self.in_flight = stats.in_flight
        self.requests = stats.requests
        self.lag = stats.lag
        self.lagging = stats.lagging
        self.done += stats.counters.done
        self.worked = self.done > 0
        self.problems = stats.problems
        self._handed.clear()


def how_it_ended(status: int | None) -> str:
    if status is None:
        return "ended"
    if status < 0:
        return f"was killed by signal {-status}"
    return f"ended with exit code {status}"


def _retrieve(ready: asyncio.Future[Ready]) -> None:
    """A failure that nobody waits for is told by other means; it is no unhandled exception."""
    with contextlib.suppress(asyncio.CancelledError):
        ready.exception()
