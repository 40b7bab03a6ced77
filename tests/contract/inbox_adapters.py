"""What the contract of the inbox is run over. To add an adapter: a function that opens one, and its name here."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from certificates import Authority
from fleetfn.event import Event
from fleetfn.invocation import Failure
from fleetfn.position import At
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.owner import Nobody
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.service import Service
from fleetfn_gateway.serving import Serving, TlsServing
from fleetfn_plumbing.http_client import HttpClient, UnreachableError
from fleetfn_plumbing.memory_inbox import MemoryInbox
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.tls_http import TlsClient
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_runtime.gateway_inbox import GatewayInbox
from fleetfn_spec.cluster import GATEWAY
from fleetfn_triggers.inbox import Arrival, DeadLetters, Inbox, Letter, Offer

QUOTA = 1024 * 1024 * 1024
_AUTHORITY = Authority()
STREAM = "kafka:vehicle.telemetry:id"

EVENT: Event[bytes | None] = Event(
    id="vehicle.telemetry/3/17",
    source="kafka:vehicle.telemetry",
    type="telemetry",
    subject="LSV1",
    time=datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC),
    datacontenttype="application/json",
    extensions={"partitionkey": "LSV1", "level": 3, "stale": False},
    headers=(("trace", b"\x00\xff"), ("trace", b"again")),
    data=b"\xff not JSON",
)
LETTER = Letter(
    function="battery-alert",
    trigger="telemetry",
    key="LSV1",
    event=EVENT,
    position=At(STREAM, 3, 17),
    attempts=5,
    revision="0123456789ab",
    reason="attempts",
    detail="ValueError: no voltage",
    failure=Failure("ValueError", "no voltage", "handler.py:12", "Traceback ..."),
    created=1000.5,
)


def letter(offset: int, **fields: Any) -> Letter:
    return msgspec.structs.replace(LETTER, **{"position": At(STREAM, 3, offset), **fields})


def arrival(key: str | None = "LSV1", **fields: Any) -> Arrival:
    return Arrival(**{"function": "battery-alert", "trigger": "live", "key": key, "event": EVENT, **fields})


def offer(offset: int, due: float | None = None, **fields: Any) -> Offer:
    given = {"function": "battery-alert", "trigger": "telemetry", "key": "LSV1", "event": EVENT, "attempts": 1}
    return Offer(**{**given, "position": At(STREAM, 3, offset), "due": due, **fields})


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True)
class Opened:
    """`inbox` is under test; `letters` is what people ask, of the same rows."""

    inbox: Inbox
    letters: DeadLetters
    clock: Clock


@contextlib.asynccontextmanager
async def memory(folder: Path, clock: Clock) -> AsyncIterator[Opened]:
    inbox = MemoryInbox(clock)
    yield Opened(inbox, inbox, clock)
    await inbox.close()


@contextlib.asynccontextmanager
async def queue(folder: Path, clock: Clock) -> AsyncIterator[Opened]:
    inbox = await Queue.open(folder / "inbox.db", quota=QUOTA, clock=clock)
    yield Opened(inbox, inbox, clock)
    await inbox.close()


@contextlib.asynccontextmanager
async def gateway(folder: Path, clock: Clock) -> AsyncIterator[Opened]:
    """A worker's client of a gateway that serves a queue; people ask the queue itself."""
    async with queue(folder, clock) as served:
        assert isinstance(served.letters, Queue)
        with tempfile.TemporaryDirectory(prefix="fn-") as run:
            socket = Path(run) / "gateway.sock"
            serving = Serving(socket, _service(served.letters, folder))
            serving.open()
            inbox = GatewayInbox(await _answers(UnixClient(socket)), limit=60)
            yield Opened(inbox, served.letters, clock)
            await inbox.close()
            await serving.close()


@contextlib.asynccontextmanager
async def other_pod(folder: Path, clock: Clock) -> AsyncIterator[Opened]:
    """Likewise, where the gateway is in another pod."""
    async with queue(folder, clock) as served:
        assert isinstance(served.letters, Queue)
        certificates = _AUTHORITY.issue(folder / "gateway-tls", GATEWAY, "localhost")
        serving = TlsServing(0, TlsFolder(certificates), _service(served.letters, folder), host="localhost")
        serving.open()
        mine = TlsFolder(_AUTHORITY.issue(folder / "worker-tls", "battery-alert"))
        inbox = GatewayInbox(await _answers(TlsClient("localhost", serving.port, mine)), limit=60)
        yield Opened(inbox, served.letters, clock)
        await inbox.close()
        await serving.close()


def _service(letters: Queue, folder: Path) -> Service:
    return Service(Gateway(letters, Nobody(), data=folder, retention=1))


async def _answers(client: HttpClient) -> HttpClient:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(UnreachableError):
                await client.request("GET", "/healthz")
                return client
            await asyncio.sleep(0.005)


Open = Callable[[Path, Clock], AbstractAsyncContextManager[Opened]]

ADAPTERS: dict[str, Open] = {"memory": memory, "queue": queue, "gateway": gateway, "other pod": other_pod}
