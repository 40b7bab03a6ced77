"""Accepting connections on a listening socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from fleetfn.errors import UsageError

log = logging.getLogger("fleetfn.http")

BACKLOG = 1024
DESCRIPTORS = 65_536
_TURNS = 64
"""Connections accepted in a row before others on the loop get a turn."""

CROWDED = 0.5
"""After no descriptor was left. Those who knock meanwhile wait in the backlog."""


class Listener:
    """Owns `sock`. `accepted` gets each connection's socket."""

    def __init__(
        self, sock: socket.socket, accepted: Callable[[socket.socket], None], *, crowded: float = CROWDED
    ) -> None:
        """`crowded`: seconds without accepting after it failed."""
        sock.setblocking(False)
        self._sock = sock
        self._accepted = accepted
        self._crowded = crowded
        self._tcp = sock.family != socket.AF_UNIX
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        if self._pause is not None:
            self._pause.cancel()
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(_TURNS):
            try:
                sock, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                hint = "; raise `ulimit -n`" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
                log.warning("no connection is accepted for %s s: %s%s", self._crowded, error.strerror, hint)
                self._loop.remove_reader(self._sock.fileno())
                self._pause = self._loop.call_later(self._crowded, self._again)
                return
            if self._tcp:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted(sock)

    def _again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._accept)


def allow_descriptors() -> int:
    """Let this process open as many descriptors as it may, since each connection is one. How many it may at least."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, DESCRIPTORS) if hard != resource.RLIM_INFINITY else DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def tcp(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: any free one. Raises UsageError that names what is wrong with host or port."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} on {host} is in use by another program", hint="choose another port (--port), or end it"
            ) from error
        why = error.strerror or str(error)
        raise UsageError(f"cannot listen on {host} port {port}: {why}", hint="choose another --port") from error


def everywhere(port: int) -> socket.socket:
    """A listening socket on all addresses of this machine, IPv4 and IPv6. Raises UsageError, as `tcp` does."""
    if not socket.has_dualstack_ipv6():
        return tcp("0.0.0.0", port)  # noqa: S104 - those of a pod
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror or error}", hint="no other container of the pod may have it"
        ) from error


def unix(path: Path) -> socket.socket:
    """A listening socket that only this user may connect to. A stale one at the path is replaced."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(BACKLOG)
    return sock
