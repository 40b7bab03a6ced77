"""The node's side of warm parents, one per dependency set (or per function with `warm: imports`); spawning workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
from fleetfn.errors import FleetError
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel_io import Channel
from fleetfn_runtime.settings import Settings

from fleetfn_node import parent_messages
from fleetfn_node.parent_messages import CannotFork, Exited, Fork, Forked, FromParent, Up
from fleetfn_node.processes import Process, rss

log = logging.getLogger("fleetfn.node")

BUDGET = 512 * 1024 * 1024
"""Bytes that warm parents may hold before the one unused for longest is let go; their workers keep running."""

FORK_LIMIT = 30.0
"""Seconds for a parent to import what it shares and fork: heavy imports on a small machine."""

_END_LIMIT = 2.0
"""Seconds for a parent to end by itself once its node let go of it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a parent has loaded: an interpreter, and the imports of one module where the function asks for it."""

    python: Path
    folder: Path | None = None
    module: str = ""


class UnsafeForkError(FleetError):
    """A warm parent refuses to fork: a copy of it might hang."""


class ParentGoneError(FleetError):
    """A warm parent ended, or does not answer."""


class Parent:
    """One warm parent process, as the node sees it."""

    def __init__(self, kind: Kind, log_file: int | None) -> None:
        self.kind = kind
        self.used = time.monotonic()
        ours, theirs = channel_io.pair()
        extra = [str(kind.folder), kind.module] if kind.folder is not None else []
        with theirs:
            popen = _start(kind.python, "fleetfn_node.parent", theirs.fileno(), *extra, log_file=log_file)
        self.process = Process(popen.pid, popen.poll)
        self._channel: Channel[FromParent, Fork] = Channel(ours, msgspec.msgpack.Decoder(FromParent))
        self._tickets = 0
        self._waiting: dict[int, asyncio.Future[Process]] = {}
        self._workers: dict[int, Process] = {}
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return not self._listening.done()

    @property
    def busy(self) -> bool:
        return bool(self._workers or self._waiting)

    def rss(self) -> int:
        return rss(self.pid)

    async def fork(self, settings: bytes, worker_end: socket.socket) -> Process:
        """A worker process. Raises UnsafeForkError or ParentGoneError; `worker_end` stays the caller's."""
        self.used = time.monotonic()
        self._tickets += 1
        ticket = self._tickets
        answer = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._channel.send(Fork(ticket, settings), os.dup(worker_end.fileno()))
        if self._channel.closed:
            self._lose("it is gone")
        try:
            return await asyncio.wait_for(answer, FORK_LIMIT)
        except TimeoutError:
            self.process.kill()  # its workers stay
            raise ParentGoneError(
                f"the warm parent (pid {self.pid}) did not answer within {FORK_LIMIT:.0f} s"
            ) from None
        finally:
            self._waiting.pop(ticket, None)

    async def close(self) -> None:
        """Its workers stay; they only lose who reports their exit status."""
        self._listening.cancel()
        self._channel.close()
        self._lose("it was let go")
        try:
            await asyncio.wait_for(asyncio.shield(self.process.exited), _END_LIMIT)
        except TimeoutError:
            self.process.kill()
            await self.process.exited

    async def _listen(self) -> None:
        while (received := await self._channel.receive()) is not None:
            self._take(received[0])
        self._channel.close()
        self._lose("it ended")
        log.warning("warm parent %d ended; the next one starts when it is needed", self.pid)

    def _take(self, message: FromParent) -> None:
        match message:
            case Up(seconds, missing):
                log.info("warm parent %d is up after %.3f s", self.pid, seconds)
                if missing:
                    log.warning("warm parent %d could not import %s", self.pid, ", ".join(missing))
            case Forked(ticket, pid):
                process = self._workers[pid] = Process(pid)
                process.exited.add_done_callback(lambda _: self._workers.pop(pid, None))
                answer = self._waiting.get(ticket)
                if answer is None or answer.done():
                    process.kill()  # nobody waits for it any more
                else:
                    answer.set_result(process)
            case CannotFork(ticket, reason):
                answer = self._waiting.get(ticket)
                if answer is not None and not answer.done():
                    answer.set_exception(UnsafeForkError(reason))
            case Exited(pid, status):
                if pid in self._workers:
                    self._workers[pid].report(status)

    def _lose(self, why: str) -> None:
        for worker in list(self._workers.values()):
            worker.forsake()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ParentGoneError(f"the warm parent (pid {self.pid}) cannot fork: {why}"))


class Parents:
    """All warm parents of a node, within a memory budget."""

    def __init__(self, *, budget: int = BUDGET, log_file: int | None = None) -> None:
        self._budget = budget
        self._log_file = log_file
        self._parents: dict[Kind, Parent] = {}

    def warm(self, kind: Kind) -> Parent:
        """The parent of this kind, started if there is none; it imports in the background."""
        parent = self._parents.get(kind)
        if parent is None or not parent.alive:
            parent = self._parents[kind] = Parent(kind, self._log_file)
        return parent

    async def spawn(self, kind: Kind, settings: Settings) -> tuple[Process, socket.socket]:
        """A worker process, and the node's end of its channel. Raises FleetError when it cannot be started."""
        packed = parent_messages.pack(settings)
        if len(packed) > parent_messages.SETTINGS_LIMIT:
            raise FleetError(
                f"the function's settings take {len(packed)} bytes; at most {parent_messages.SETTINGS_LIMIT} fit",
                hint="move large values out of `config` into a file of the function's folder",
            )
        ours, theirs = channel_io.pair()
        with theirs:
            try:
                return await self._worker(kind, settings.function.name, packed, theirs), ours
            except BaseException:
                ours.close()
                raise

    async def trim(self) -> None:
        """Let the parents unused for longest go until the rest fits the budget; never one that has workers."""
        while len(self._parents) > 1 and sum(each.rss() for each in self._parents.values()) > self._budget:
            unused = [each for each in self._parents.values() if not each.busy]
            if not unused:
                return
            oldest = min(unused, key=lambda each: each.used)
            del self._parents[oldest.kind]
            await oldest.close()

    async def forget(self, kind: Kind) -> None:
        """Nobody will ask for it again if it was a function's own; what functions share stays."""
        parent = self._parents.pop(kind, None) if kind.folder is not None else None
        if parent is not None:
            await parent.close()

    async def close(self) -> None:
        parents, self._parents = list(self._parents.values()), {}
        await asyncio.gather(*(each.close() for each in parents))

    async def _worker(self, kind: Kind, function: str, packed: bytes, theirs: socket.socket) -> Process:
        try:
            try:
                return await self.warm(kind).fork(packed, theirs)
            except ParentGoneError as gone:
                log.warning("%s: %s; asking a new one", function, gone.message)
                return await self.warm(kind).fork(packed, theirs)
        except (UnsafeForkError, ParentGoneError) as refused:
            log.warning("%s: its worker starts without a warm parent, so slower: %s", function, refused.message)
            return await self._alone(kind, packed, theirs)

    async def _alone(self, kind: Kind, packed: bytes, theirs: socket.socket) -> Process:
        popen = _start(
            kind.python, "fleetfn_node.child", theirs.fileno(), stdin=subprocess.PIPE, log_file=self._log_file
        )
        process = Process(popen.pid, popen.poll)
        await asyncio.to_thread(_feed, popen, packed)
        return process


def _feed(popen: subprocess.Popen[bytes], packed: bytes) -> None:
    if popen.stdin is not None:
        with contextlib.suppress(BrokenPipeError), popen.stdin:
            popen.stdin.write(packed)


def _start(
    python: Path,
    module: str,
    descriptor: int,
    *arguments: str,
    log_file: int | None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module
        [str(python), "-P", "-m", module, str(descriptor), *arguments],
        pass_fds=(descriptor,),
        stdin=stdin,
        stdout=log_file,
        stderr=log_file,
        env=_environment(),
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    """Numpy's BLAS starts threads at import, which would forbid forking: pinned to one."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


DEFAULT = Kind(Path(sys.executable))
