"""Sending and receiving the messages of channel.py, with file descriptors, on a SEQPACKET socket pair.

Both ends use it: `worker_end(sock)` hears what a node says, `node_end(sock)` what its worker says.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from typing import Generic, TypeVar

import msgspec

from fleetfn_runtime.channel import PACKET_LIMIT, ToNode, ToWorker

QUEUE_LIMIT = 1024
"""Messages that wait for a reader that is slow; a connection's head may be 64 KiB, so this bounds memory, too."""

_CROWDED = 0.02
"""Seconds until the next try after ETOOMANYREFS (too many descriptors on their way): no event tells when."""

_TURNS = 32
"""Messages received in a row before others on the loop get a turn."""

_ROOM = socket.CMSG_SPACE(4 * array.array("i").itemsize)

In = TypeVar("In")
Out = TypeVar("Out")

_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_to_node: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
"""Made with the module: reading their types takes a millisecond, which a warm parent spends before it forks."""


class Channel(Generic[In, Out]):
    """One end. Use on one loop, with one receiver. Owns the socket, and every descriptor given to `send`."""

    def __init__(self, sock: socket.socket, hears: msgspec.msgpack.Decoder[In]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = hears.decode
        self._queue: deque[tuple[bytes, int | None]] = deque()
        self._empty: asyncio.Event = asyncio.Event()
        self._empty.set()
        self._writing = False
        self._in_a_row = 0
        self.closed = False
        """The other side is gone, or `close` was called: what is sent now is dropped."""

    @property
    def waiting(self) -> int:
        """Messages that wait for the other side to read."""
        return len(self._queue)

    async def receive(self) -> tuple[In, int | None] | None:
        """The next message with its descriptor, which is the caller's to close; None once the other side is gone."""
        while not self.closed:
            try:
                packet, ancillary, flags, _ = self._sock.recvmsg(PACKET_LIMIT, _ROOM, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                self._in_a_row = 0
                await self._readable()
                continue
            except ConnectionError:
                break
            fds = _descriptors(ancillary)
            if not packet and not fds:
                break
            if flags & socket.MSG_TRUNC:
                _close(fds)
                raise ValueError(f"a message on the channel is larger than {PACKET_LIMIT} bytes")
            _close(fds[1:])
            self._in_a_row += 1
            if self._in_a_row >= _TURNS:
                self._in_a_row = 0
                await asyncio.sleep(0)
            try:
                message = self._decode(packet)
            except ValueError:
                _close(fds[:1])
                raise
            return message, (fds[0] if fds else None)
        return None

    def send(self, message: Out, fd: int | None = None) -> None:
        """Send now, or as soon as the other side reads. `fd` is closed here once it is sent (or cannot be).

        Raises BufferError when `QUEUE_LIMIT` messages wait already (`fd` then stays the caller's), ValueError for a
        message that is larger than a packet.
        """
        packet = self._encode(message)
        if len(packet) > PACKET_LIMIT:
            raise ValueError(f"a message of {len(packet)} bytes is larger than the channel's {PACKET_LIMIT}")
        if self.closed:
            _close([] if fd is None else [fd])
            return
        if self._queue:
            if len(self._queue) >= QUEUE_LIMIT:
                raise BufferError(f"{QUEUE_LIMIT} messages wait on the channel: its other side does not read")
            self._queue.append((packet, fd))
            return
        self._queue.append((packet, fd))
        self._write()

    async def flush(self) -> None:
        """Until all that was sent is on its way, or the other side is gone."""
        await self._empty.wait()

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self.closed = True
        self._stop_writing()
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._drop()
        self._sock.close()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._sock.fileno(), _wake, ready)
        try:
            await ready
        finally:
            if self._sock.fileno() >= 0:
                loop.remove_reader(self._sock.fileno())

    def _write(self) -> None:
        while self._queue:
            packet, fd = self._queue[0]
            try:
                self._sock.sendmsg([packet], _ancillary(fd))
            except BlockingIOError:
                self._write_later()
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    self._stop_writing()
                    self._empty.clear()
                    asyncio.get_running_loop().call_later(_CROWDED, self._write)
                    return
                self.closed = True
                self._drop()
                break
            self._queue.popleft()
            _close([] if fd is None else [fd])
        self._stop_writing()
        self._empty.set()

    def _write_later(self) -> None:
        self._empty.clear()
        if not self._writing:
            self._writing = True
            asyncio.get_running_loop().add_writer(self._sock.fileno(), self._write)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            asyncio.get_running_loop().remove_writer(self._sock.fileno())

    def _drop(self) -> None:
        while self._queue:
            _, fd = self._queue.popleft()
            _close([] if fd is None else [fd])
        self._empty.set()


def worker_end(sock: socket.socket) -> Channel[ToWorker, ToNode]:
    return Channel(sock, _to_worker)


def node_end(sock: socket.socket) -> Channel[ToNode, ToWorker]:
    return Channel(sock, _to_node)


def pair() -> tuple[socket.socket, socket.socket]:
    """The two sockets of a channel; neither is inherited unless passed on by name."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _ancillary(fd: int | None) -> list[tuple[int, int, array.array[int]]]:
    return [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
