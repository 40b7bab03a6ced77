"""One HTTP/1 connection on a bare socket: heads and bodies in, replies out, one request at a time.

No asyncio transport: a socket that reads a bounded number of bytes itself can be given to another process between two
requests, with exactly the bytes that belong there. Node and worker bring what they do with a request.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import math
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from fleetfn.http import Response

from fleetfn_runtime import http_body, http_head, http_replies
from fleetfn_runtime.http_head import Head, HeadError

log = logging.getLogger("fleetfn.http")

READ = 64 * 1024
"""Bytes of one read; no more than a head, so that what follows a body never outgrows the channel's packet."""

KEPT = 64 * 1024 * 1024
"""Bytes of requests that all connections together keep while nobody works on them: heads that are not all there yet,
requests that wait for a worker.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. They are looked at now and then, so they may be exceeded by a second."""

    head: float = 10.0
    """From the first byte of a head to its last."""
    idle: float = 75.0
    """Between requests."""
    body_pause: float = 10.0
    """Without a byte of the body."""
    body: float = 120.0
    """For the whole body."""
    write: float = 30.0
    """While a client reads nothing of its reply."""
    pace: float = 16 * 1024
    """Bytes of a reply that a client has to read each second, on the whole; `write` seconds beyond that are its own."""
    leaving: float = 5.0
    """The same where this process is about to end."""
    linger: float = 3.0
    """For a client to read a reply that came before it had sent its whole request."""
    spare: float = 2.0
    """Between requests, or for a head, where connections run short."""


class Connections:
    """Those of one server, and the clock that ends the slow ones. It ticks only while there are any."""

    def __init__(self, limits: Limits | None = None, *, most_kept: int = KEPT) -> None:
        self.limits = limits or Limits()
        self.most_kept = most_kept
        self.now = 0.0
        """Of the loop's clock, at the last tick: near enough for limits."""
        self.kept = 0
        """Bytes of requests that nobody works on."""
        self.unsent = 0
        """Bytes of replies that clients have not read to their end: what is read of one is not free before."""
        self._all: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty: list[asyncio.Future[None]] = []
        limits = self.limits
        self._step = min(
            1.0, *(each / 4 for each in (limits.head, limits.idle, limits.body_pause, limits.linger, limits.spare))
        )
        self._turned_away: deque[Connection] = deque()
        self._spared = -1.0
        """When room was looked for in vain."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def full(self) -> bool:
        """They keep as much as they may."""
        return self.kept > self.most_kept

    def snapshot(self) -> list[Connection]:
        return list(self._all)

    def add(self, connection: Connection) -> None:
        self._all.add(connection)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self.now = loop.time()
            self._timer = loop.call_later(self._step, self._tick)

    def discard(self, connection: Connection) -> None:
        self._all.discard(connection)
        if not self._all:
            for waiting in self._empty:
                if not waiting.done():
                    waiting.set_result(None)
            self._empty.clear()

    def hurry(self) -> None:
        """To be called when this process is about to end: nobody waits long for clients that read nothing then."""
        self.limits = replace(self.limits, write=min(self.limits.write, self.limits.leaving))

    def make_room(self) -> bool:
        """Let go of some that have waited longest for a request of theirs. False: none has waited long enough."""
        if self._spared == self.now:
            return False
        before = self.now - self.limits.spare
        waiting = [each for each in self._all if each.waits_since < before]
        if not waiting:
            self._spared = self.now
            return False
        waiting.sort(key=lambda each: each.waits_since)
        for connection in waiting[: 1 + len(waiting) // 8]:  # looking at all of them for one would be slow
            connection.spare()
        return True

    def turned_away(self, connection: Connection, most: int) -> None:
        """It was told that there is no room for it, and may read that while no more than `most` others were told so."""
        away = self._turned_away
        away.append(connection)
        while away and (away[0].gone or len(away) > most):
            away.popleft().end()

    async def empty(self) -> None:
        """Until there is none."""
        if self._all:
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._empty.append(gone)
            await gone

    def close(self) -> None:
        for connection in self.snapshot():
            connection.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        for connection in self.snapshot():
            connection.check_time()
        self._timer = loop.call_later(self._step, self._tick) if self._all else None


class Phase:
    """Where a connection is. No Enum: a request asks ten times, and its members take five times as long."""

    HEAD = "head"
    BODY = "body"
    RUNNING = "running"
    WRITING = "writing"
    LINGERING = "lingering"
    GONE = "gone"


class Connection(abc.ABC):
    """Subclasses say what happens with a head (`begin`) and with a request that is all there (`run`)."""

    __slots__ = (
        "_advancing",
        "_body",
        "_buffer",
        "_connections",
        "_ended",
        "_fd",
        "_head",
        "_heard",
        "_keep",
        "_kept",
        "_loop",
        "_phase",
        "_reading",
        "_since",
        "_sock",
        "_streams",
        "_unsent",
        "_until",
        "_whole",
    )

    def __init__(self, sock: socket.socket, connections: Connections, received: bytes = b"") -> None:
        """Owns `sock`. `received`: what was read of it already."""
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = asyncio.get_running_loop()
        self._connections = connections
        self._buffer = received
        self._head: Head | None = None
        self._body: http_body.Body
        self._kept = 0
        """Bytes of the buffer that are counted as kept."""
        self._unsent = memoryview(b"")
        self._whole = 0
        """Bytes of what `_unsent` is the rest of."""
        self._until = 0.0
        """When a client that reads its reply at the slowest pace would have read it."""
        self._streams = False
        """A reply has begun, and chunks of it are to follow."""
        self._phase = Phase.HEAD
        self._reading = False
        self._advancing = False
        self._ended = False
        """The client sends nothing more."""
        self._keep = True
        connections.add(self)
        self._since = self._heard = connections.now

    # What subclasses bring

    @abc.abstractmethod
    def begin(self, head: Head) -> None:
        """A request begins: `answer_unread`, `read_body` or `pass_on` it. May raise HeadError."""

    @abc.abstractmethod
    def run(self, head: Head, body: bytes) -> None:
        """It is all there: `answer` it, now or later."""

    @abc.abstractmethod
    def between(self) -> None:
        """A request is answered; the next one may be here already."""

    # What they may do

    def start(self) -> None:
        """Look at what was received."""
        if self._buffer:
            self._advance()
        else:
            self._read_more()

    def read_body(self, limit: int) -> None:
        """Then `run`. Raises HeadError for a body of more than `limit` bytes."""
        head = self._current()
        size, end = head.size, head.size + head.length
        if len(self._buffer) >= end and head.length <= limit and not head.chunked:  # nearly all come in one piece
            data, self._buffer = self._buffer[size:end], self._buffer[end:]
            self._phase = Phase.RUNNING
            self.run(head, data)
            return
        received = self._buffer[size:]
        self._body = body = http_body.of(head, limit)
        rest = body.feed(received)
        if rest is not None:
            self._complete(rest)
            return
        self._buffer = b""
        self._phase = Phase.BODY
        self._since = self._heard = self._connections.now
        if head.expects and not received:
            # A client whose buffer is full waits no longer than it likes, then sends the body anyway.
            with contextlib.suppress(OSError):
                self._sock.send(http_replies.CONTINUE)
        self._read_more()

    def answer_unread(self, response: Response) -> None:
        """Answer without running it. The connection stays if the body is here already: it is read over."""
        head = self._current()
        rest: bytes | None = None
        with contextlib.suppress(HeadError):
            rest = http_body.of(head, READ).feed(self._buffer[head.size :])
        if rest is None:
            self.answer(response, keep=False)
        else:
            self._buffer = rest
            self.answer(response)

    def answer(self, response: Response, *, keep: bool = True, invocation: str = "") -> None:
        """Reply to the current request; dropped if the client is gone. `invocation`: which run it is the reply of."""
        if self._phase is Phase.GONE:
            return
        head = self._head
        self._keep = keep = keep and head is not None and head.keep_alive
        bodiless = head is not None and head.method == "HEAD"
        http11 = head is None or head.http11
        try:
            data = http_replies.encoded(response, keep=keep, http11=http11, bodiless=bodiless, invocation=invocation)
        except (ValueError, TypeError) as error:
            log.error("invocation %s: its reply cannot be sent: %s", invocation, error)  # noqa: TRY400 - the traceback would be ours
            failed = http_replies.failed(invocation)
            data = http_replies.encoded(failed, keep=keep, http11=http11, bodiless=bodiless, invocation=invocation)
        self._write(data)

    def answer_in_chunks(self, response: Response) -> None:
        """Begin a reply whose body comes by `send_chunk`, until `end_chunks`. Raises HeadError for who reads none."""
        head = self._current()
        if not head.http11:
            raise HeadError(505, "the reply comes in chunks", "ask with HTTP/1.1")
        self._keep = head.keep_alive
        self._streams = True
        self._write(http_replies.begun(response))

    def send_chunk(self, data: bytes) -> None:
        """Dropped if the client is gone, or `data` empty."""
        if data and self._phase is not Phase.GONE:
            self._write(http_replies.chunk(data))

    def end_chunks(self) -> None:
        if self._phase is not Phase.GONE:
            self._streams = False
            self._write(http_replies.LAST_CHUNK)

    def pass_on(self, give: Callable[[int, bytes], None]) -> bool:
        """Let go of the connection at a request's beginning: `give` gets the descriptor and the bytes read.

        False: `give` raised BufferError and has not taken it.
        """
        self._stop_reading()
        try:
            give(self._fd, self._buffer)
        except BufferError:
            return False
        self._sock.detach()
        self._phase = Phase.GONE
        self._count(0)
        self._connections.discard(self)
        return True

    def end(self) -> None:
        """Close at once."""
        if self._phase is Phase.GONE:
            return
        self._stop_reading()
        if self._phase is Phase.WRITING:
            self._loop.remove_writer(self._fd)
            self._owe(b"")
        self._phase = Phase.GONE
        self._count(0)
        self._connections.discard(self)
        self._sock.close()

    def check_time(self) -> None:
        """End it if it has been slow for too long."""
        limits = self._connections.limits
        age = self._connections.now - self._since
        phase = self._phase
        if phase is Phase.HEAD:
            if not self._buffer and age > limits.idle:
                self.end()
            elif self._buffer and age > limits.head:
                self._give_up(HeadError(408, f"the head did not arrive within {limits.head:g} s"))
        elif phase is Phase.BODY:
            if self._connections.now - self._heard > limits.body_pause or age > limits.body:
                self._give_up(HeadError(408, "the body did not arrive in time"))
        elif phase is Phase.WRITING:
            if age > limits.write or self._connections.now > self._until:
                self.end()
        elif phase is Phase.LINGERING and age > limits.linger:
            self.end()

    def spare(self) -> None:
        """Connections run short, and this one waits for a request."""
        self.end()

    @property
    def waits_since(self) -> float:
        """When it began to wait for a request, or for the rest of a head; for ever in the future where it does not."""
        return self._since if self._phase is Phase.HEAD and not self._advancing else math.inf

    @property
    def idle(self) -> bool:
        """No request has been begun to be answered: it may be passed on."""
        return self._phase is Phase.HEAD and not self._advancing

    @property
    def gone(self) -> bool:
        """Closed, or passed on."""
        return self._phase is Phase.GONE

    # In

    def _current(self) -> Head:
        if self._head is None:
            raise RuntimeError("no request has begun")
        return self._head

    def _read_more(self) -> None:
        if self._ended:
            self.end()
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        phase = self._phase
        if (phase is Phase.RUNNING or phase is Phase.WRITING) and self._connections.full:
            self._stop_reading()
            return
        try:
            data = self._sock.recv(
                READ if phase is Phase.BODY or phase is Phase.LINGERING else READ - len(self._buffer)
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end()
            return
        if phase is Phase.HEAD and data:
            if not self._buffer:
                self._buffer = data
                self._since = self._connections.now
            else:
                self._buffer += data
            self._advance()
        elif not data:
            self._end_of_input()
        elif phase is Phase.BODY:
            self._feed(data)
        elif phase is not Phase.LINGERING:
            self._buffer += data
            self._count(len(self._buffer))
            if len(self._buffer) >= READ:
                self._stop_reading()

    def _end_of_input(self) -> None:
        """A client may send its last request, end its side, and wait for the reply."""
        self._ended = True
        self._stop_reading()
        if self._phase is not Phase.RUNNING and self._phase is not Phase.WRITING:
            self.end()

    def _advance(self) -> None:
        """Take requests from the buffer, one after the other, while they are answered at once."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._phase is Phase.HEAD:
                self._head = head = None
                if self._buffer:
                    self._buffer = http_head.skipped(self._buffer)
                    self._head = head = http_head.read(self._buffer)
                if head is None:
                    self._wait_for_head()
                    break
                if self._kept:
                    self._count(0)
                self.begin(head)
        except HeadError as refused:
            self._give_up(refused)
        except Exception:
            log.exception("a request broke its connection")
            self.end()
        finally:
            self._advancing = False

    def _wait_for_head(self) -> None:
        self._count(len(self._buffer))
        if self._buffer and self._connections.full:
            self._buffer = b""
            self.answer(http_replies.problem(503, "too much is on its way already", retry_after=1), keep=False)
        else:
            self._read_more()

    def _count(self, size: int) -> None:
        """It keeps so many bytes of a request that nobody works on."""
        self._connections.kept += size - self._kept
        self._kept = size

    def _feed(self, data: bytes) -> None:
        self._heard = self._connections.now
        try:
            rest = self._body.feed(data)
            if rest is not None:
                self._complete(rest)
        except HeadError as refused:
            self._give_up(refused)
        except Exception:
            log.exception("a request broke its connection")
            self.end()

    def _complete(self, rest: bytes) -> None:
        self._buffer = rest
        self._phase = Phase.RUNNING
        self.run(self._current(), self._body.whole())

    def _give_up(self, refused: HeadError) -> None:
        """What follows on this connection cannot be told apart any more."""
        self._buffer = b""
        self.answer(http_replies.of_refusal(refused), keep=False)

    # Out

    def _write(self, data: bytes) -> None:
        if self._phase is Phase.WRITING:  # the next chunk, and the client reads slower than they come
            self._owe(bytes(self._unsent) + data)
            self._until += len(data) / self._connections.limits.pace
            return
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.end()
            return
        if sent == len(data):
            self._written()
            return
        self._owe(data, sent)
        self._phase = Phase.WRITING
        limits = self._connections.limits
        self._since = now = self._connections.now
        self._until = now + limits.write + len(self._unsent) / limits.pace
        self._loop.add_writer(self._fd, self._writable)

    def _owe(self, data: bytes, sent: int = 0) -> None:
        """It is to be sent, but for the first `sent` bytes."""
        self._connections.unsent += len(data) - self._whole
        self._whole = len(data)
        self._unsent = memoryview(data)[sent:]

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end()
            return
        self._unsent = self._unsent[sent:]
        self._since = self._connections.now
        if not self._unsent:
            self._owe(b"")
            self._loop.remove_writer(self._fd)
            self._phase = Phase.RUNNING
            self._written()

    def _written(self) -> None:
        self._since = self._connections.now
        if self._streams:
            return
        if self._keep:
            self._head = None
            self._phase = Phase.HEAD
            self.between()
            if self._buffer or not self._reading:
                self._advance()
        elif self._ended or (self._head is not None and not self._head.keep_alive and not self._buffer):
            self.end()
        else:
            self._linger()

    def _linger(self) -> None:
        """Closing with input unread resets the connection, and the client may lose the reply: read over it first."""
        self._phase = Phase.LINGERING
        self._buffer = b""
        self._count(0)
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.end()
            return
        self._read_more()
