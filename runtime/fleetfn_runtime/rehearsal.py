"""A worker's life in small, for a process that will be a worker and does not know yet of which function.

One function is loaded, two requests are answered, a message and a fire are pushed. Then memory that a fork shares is
this process' own where workers write to it (copying page by page is most of a start), types are read, caches are
filled. Nothing else of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
from fleetfn import Context, Event, State, Tick
from fleetfn.position import At
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.function import Function
from fleetfn_triggers import cron
from fleetfn_triggers.inbox import INBOX
from fleetfn_triggers.push import MSGPACK, Pushed, Told

from fleetfn_runtime import wiring
from fleetfn_runtime.load import load
from fleetfn_runtime.settings import Settings
from fleetfn_runtime.worker import check_samples

log = logging.getLogger("fleetfn.rehearsal")

LIMIT = 10.0
"""Seconds that it may take."""

_SPEC = {
    "apiVersion": "fleetfn.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "rehearsal"},
    "spec": {
        "handler": f"{__name__}:keep",
        "triggers": [
            {"name": "keep", "key": "data.vehicle", "event": {"time": "data.ts"}, "http": {"path": "/keep/{vehicle}"}},
            {"name": "look", "handler": f"{__name__}:look", "http": {"path": "/look"}},
            {"name": "hear", "handler": f"{__name__}:hear", "key": "topic.vehicle", "mqtt": {"topic": "of/{vehicle}"}},
            {"name": "tick", "handler": f"{__name__}:tick", "cron": {"schedule": "@yearly"}},
        ],
    },
}
_BODY = b'{"vehicle": "v", "ts": "2020-01-01T00:00:00Z", "heat": 1.5}'
_told = msgspec.msgpack.Decoder(list[Told]).decode
_HEAD = "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n"


class Reading(msgspec.Struct):
    vehicle: str
    heat: float


class Hottest(msgspec.Struct):
    heat: float = 0.0


def keep(reading: Reading, state: State[Hottest]) -> Reading:
    state.value.heat = max(state.value.heat, reading.heat)
    return reading


def look(reading: Reading, ctx: Context) -> dict[str, str]:
    return {"vehicle": reading.vehicle, "trigger": ctx.trigger}


def hear(reading: Reading, state: State[Hottest]) -> None:
    state.value.heat = max(state.value.heat, reading.heat)


def tick(_tick: Tick) -> None: ...


async def rehearse(told: Callable[[Settings], Settings]) -> None:
    """`told`: settings as a worker gets them, written and read. Never fails: what does not work here is told by the
    workers that need it.
    """
    path = list(sys.path)
    try:
        with tempfile.TemporaryDirectory(prefix="fn-rehearsal-") as folder:
            await asyncio.wait_for(_live(_settings(Path(folder)), told), LIMIT)
    except Exception:
        log.warning("a warm parent's rehearsal failed: its workers start slower", exc_info=True)
    finally:
        sys.path[:] = path


def _settings(folder: Path) -> Settings:
    return Settings(
        function=msgspec.convert(_SPEC, Function),
        revision="rehearsal",
        source=folder,
        data=folder,
        run=folder,
        gateway=str(folder / "gateway.sock"),
    )


async def _live(given: Settings, told: Callable[[Settings], Settings]) -> None:
    settings = told(given)
    loaded = load(settings.function, settings.source)
    parts = await wiring.open_parts(settings, loaded, replace=log.warning, hand_back=None)
    try:
        await check_samples(parts, loaded)
        await parts.listen()
        await parts.start(None)
        for path in ("/keep/v", "/look"):
            await _ask(parts, path)
        await _push(parts)
        await parts.drain()
    finally:
        await parts.close()


async def _ask(parts: wiring.Parts, path: str) -> None:
    if parts.http is None:
        return
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours):
        ours.setblocking(False)
        parts.http.adopt(theirs.detach(), _HEAD.format(path, len(_BODY)).encode() + _BODY)
        await asyncio.get_running_loop().sock_recv(ours, 65536)


async def _push(parts: wiring.Parts) -> None:
    """As a gateway does it."""
    heard = Event[bytes | None](id="1", source="rehearsal", type="mqtt.message", data=_BODY)
    fired = cron.event("rehearsal", "tick", cron.Fire(at=0.0), "UTC")
    stream = f"{INBOX}rehearsal"
    client = UnixClient(parts.deliver.path)
    try:
        for row in (
            Pushed(1, "hear", "v", heard, At(stream, 0, 1)),
            Pushed(2, "tick", fired.source, fired, At(stream, 0, 2)),
        ):
            body = msgspec.msgpack.encode([row])
            reply = await client.request("POST", "/deliver", body, content_type=MSGPACK)
            if (told := _told(reply.body)) != [Told(row.sequence, "done")]:
                raise RuntimeError(f"a row of trigger {row.trigger!r} was not done: {told}")
    finally:
        await client.close()
