"""A warm parent: imports once what workers need and forks them on request. No event loop, no second thread.

One worker is forked ahead, while nothing else is to be done: most of a start is the same for every function (a fork
copies each page that is written to, an event loop is made, caches fill), and this *spare* has it behind itself. Who
comes while there is none waits for a fork.

`python -m fleetfn_node.parent <fd> [<folder> <module>]`: with a folder and a module it also imports what that module
imports (`scale: {warm: imports}`). It ends when its node does; its workers notice that on their own channels.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import msgspec
from fleetfn_runtime import warming
from fleetfn_runtime.channel import PACKET_LIMIT

from fleetfn_node import child, parent_messages, warm_imports
from fleetfn_node.parent_messages import CannotFork, Exited, Fork, Forked, FromParent, Up

QUIET = 0.2
"""Seconds without a request after which a spare is forked: it takes a worker's start's worth of CPU, which those that
start now need themselves.
"""


@dataclass(frozen=True, slots=True)
class _Spare:
    pid: int
    orders: socket.socket


class Parent:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decode = msgspec.msgpack.Decoder(Fork).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._wakeup, self._wakes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._spare: _Spare | None = None
        self._safe = True
        """As far as is known; what forbids to fork stays."""

    def run(self, up: Up) -> None:
        signal.signal(signal.SIGCHLD, _nothing)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        self._say(up)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            wanted = self._spare is None and self._safe
            ready = {descriptor for descriptor, _ in poll.poll(QUIET * 1000 if wanted else None)}
            if not ready:
                self._fork_ahead()
            if self._wakeup in ready:
                os.read(self._wakeup, 4096)
                self._reap()
            if self._sock.fileno() in ready and not self._hear():
                break
        if self._spare is not None:
            self._spare.orders.close()
            os.waitpid(self._spare.pid, 0)

    def _hear(self) -> bool:
        """One request; False once the node is gone."""
        try:
            packet, ancillary, _, _ = self._sock.recvmsg(PACKET_LIMIT, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return False
        if not packet:
            return False
        fork, channel = self._decode(packet), parent_messages.descriptor(ancillary)
        if not self._use_spare(fork, channel):
            reason = why_not_to_fork()
            if reason:
                self._say(CannotFork(fork.ticket, reason))
            else:
                self._fork(fork, channel)
        os.close(channel)
        return True

    def _fork(self, fork: Fork, channel: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            child.become_worker(fork.settings, channel, self._own())
        self._say(Forked(fork.ticket, pid))

    def _own(self) -> tuple[int, ...]:
        """Descriptors that a forked process has no business with."""
        return self._sock.detach(), self._wakeup, self._wakes

    def _use_spare(self, fork: Fork, channel: int) -> bool:
        if self._spare is None:
            return False
        spare, self._spare = self._spare, None
        with spare.orders:
            try:
                parent_messages.order(spare.orders, fork.settings, channel)
            except OSError:  # it was killed
                return False
        self._say(Forked(fork.ticket, spare.pid))
        return True

    def _fork_ahead(self) -> None:
        self._safe = not why_not_to_fork()
        if not self._safe:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = os.fork()
            if pid == 0:
                child.stand_by(theirs, (ours.detach(), *self._own()))
        self._spare = _Spare(pid, ours)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._spare is not None and self._spare.pid == pid:
                self._spare.orders.close()
                self._spare = None
            else:
                self._say(Exited(pid, os.waitstatus_to_exitcode(status)))

    def _say(self, message: FromParent) -> None:
        try:
            self._sock.send(self._encode(message))
        except ConnectionError:
            sys.exit(0)  # the node is gone


def why_not_to_fork() -> str:
    """A fork copies one thread only: locks that others hold would stay locked for ever. '' when it is safe."""
    threads = _threads()
    if threads > 1:
        return f"{threads} threads run in the warm parent (an import started them)"
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ""
    return "an event loop runs in the warm parent"


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """SIGCHLD must have a handler, or it would not wake the poll."""


def main() -> None:
    began = time.monotonic()
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(True)
    missing: tuple[str, ...] = ()
    warming.load()
    if len(sys.argv) > 2:  # noqa: PLR2004 - a folder and a module follow
        missing = warm_imports.load(Path(sys.argv[2]), sys.argv[3])
    gc.collect()
    gc.freeze()  # so that a collection in a worker does not copy every page it shares
    Parent(sock).run(Up(time.monotonic() - began, missing))


if __name__ == "__main__":
    main()
