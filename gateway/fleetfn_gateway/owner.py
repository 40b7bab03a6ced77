"""Who knows a function's workers: a node, asked on its control socket, or one lone worker that is always there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import Reply, UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Awake, Wake

LIMIT = 120.0
"""Seconds that an owner may take: it starts a worker meanwhile, whose imports may be slow."""

_LONGEST = 60.0
"""Seconds that an owner may tell to wait; a longer time is taken for this one."""


class NoWorkerError(FleetError):
    """There is no worker now. `after`: seconds to wait before asking again; None: nobody said."""

    def __init__(self, message: str, *, hint: str = "", after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.after = after


class Owner(Protocol):
    """Use on one loop."""

    async def wake(self, function: str, waiting: int) -> Sequence[str]:
        """Delivery sockets of workers that take work now, at least one. Raises NoWorkerError."""
        ...

    async def close(self) -> None: ...


class OneWorker:
    """The gateway of a worker that runs by itself: nothing to wake."""

    def __init__(self, socket: Path) -> None:
        self._workers = (str(socket),)

    async def wake(self, function: str, waiting: int) -> Sequence[str]:  # noqa: ARG002 - the port's
        return self._workers

    async def close(self) -> None: ...


class Nobody:
    """A gateway that was told of no owner keeps what comes."""

    async def wake(self, function: str, waiting: int) -> Sequence[str]:  # noqa: ARG002 - the port's
        raise NoWorkerError("the gateway was started without an owner: it delivers nothing", after=_LONGEST)

    async def close(self) -> None: ...


class NodeOwner:
    """A node's control socket."""

    def __init__(self, socket: Path) -> None:
        self._client = UnixClient(socket)

    async def wake(self, function: str, waiting: int) -> Sequence[str]:
        path = f"/v1/functions/{quote(function, safe='')}/wake"
        try:
            reply = await self._client.request("POST", path, msgspec.json.encode(Wake(waiting=waiting)), limit=LIMIT)
        except UnreachableError as error:
            raise NoWorkerError(f"the gateway's owner is away: {error.message}") from error
        if reply.status != 200:  # noqa: PLR2004 - HTTP's own number
            raise _refused(function, reply)
        return _awake(function, reply)

    async def close(self) -> None:
        await self._client.close()


def _awake(function: str, reply: Reply) -> Sequence[str]:
    try:
        workers = msgspec.json.decode(reply.body, type=Awake).workers
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NoWorkerError(f"the owner's answer about {function!r} cannot be read: {error}") from error
    if not workers:
        raise NoWorkerError(f"the owner named no worker of {function!r}")
    return workers


def _refused(function: str, reply: Reply) -> NoWorkerError:
    try:
        refusal = msgspec.json.decode(reply.body, type=Refusal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        refusal = Refusal(f"status {reply.status}")
    after = _seconds(reply.headers.get("retry-after", ""))
    return NoWorkerError(f"no worker of {function!r}: {refusal.message}", hint=refusal.hint, after=after)


def _seconds(text: str) -> float | None:
    """Retry-After, as far as it is a number of seconds."""
    return min(float(text), _LONGEST) if text.isascii() and text.isdigit() else None
