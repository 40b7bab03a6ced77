"""Control calls about events and what came of them: invoke, send, fire, state, dead letters, logs, metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from fastapi import FastAPI, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fleetfn.errors import FleetError
from fleetfn_gateway import sending, sending_mqtt, unsent_record
from fleetfn_gateway.sending import Items, Progress
from fleetfn_plumbing import mqtt_access
from fleetfn_runtime import state_entries
from fleetfn_runtime.log_reader import read_log
from fleetfn_runtime.logs import LEVELS, key_hash
from fleetfn_runtime.sqlite_store import SqliteStore
from fleetfn_spec.control import InvokeRequest, SendItem, SendLine, StatePage
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import FireRequest, Redrive
from fleetfn_triggers.inbox import Which

from fleetfn_node import deliver, sending_http, sending_kafka, wire
from fleetfn_node.hosting import Hosted, NotFound, policy
from fleetfn_node.node import Node

_INVOKE_MARGIN = 10.0
"""Seconds beyond the function's timeout for a reply to an invoke: it may wait for the lane of its key."""

LOG = "log.jsonl"

_PAGE = 10_000
"""Keys or dead letters of one answer, at most."""

_LAST = (1 << 63) - 1
"""SQLite counts no further."""

Limit = Annotated[int, Query(ge=1)]
After = Annotated[int | None, Query(ge=0, le=_LAST)]


def add(api: FastAPI, node: Node) -> None:
    _invoke_calls(api, node)
    _send_calls(api, node)
    _state_calls(api, node)
    _log_calls(api, node)
    _fire_calls(api, node)
    _dead_letter_calls(api, node)
    _metrics_calls(api, node)


def _invoke_calls(api: FastAPI, node: Node) -> None:
    @api.post("/v1/functions/{name}/invoke")
    async def invoke(name: str, request: Request) -> Response:
        asked = await wire.body(request, InvokeRequest)
        hosted = node.function(name)
        chosen = hosted.trigger(asked.trigger) if asked.trigger is not None else hosted.function.spec.triggers[0]
        if asked.key is None:
            asked = msgspec.structs.replace(asked, key=sending.partition_key(chosen, asked.event))
        link = await hosted.activate()
        limit = policy(hosted.function).timeout + _INVOKE_MARGIN
        return wire.answer(await deliver.invoke(link, asked, limit=limit))


def _send_calls(api: FastAPI, node: Node) -> None:
    @api.post("/v1/functions/{name}/send")
    async def send(name: str, request: Request, trigger: str) -> Response:
        hosted = node.function(name)
        chosen = hosted.trigger(trigger)
        items = (sending.keyed(chosen, wire.decode(line, SendItem)) async for line in wire.lines(request))

        async def work(tell: Callable[[SendLine], None]) -> SendLine:
            return await _send(node, hosted, chosen, items, Progress(tell))

        return wire.told(work, lambda refusal: SendLine(refusal=refusal))


async def _send(node: Node, hosted: Hosted, trigger: Trigger, items: Items, progress: Progress) -> SendLine:
    if trigger.http is not None:
        return await sending_http.send(node.url, node.options.key_file, trigger, trigger.http, items, progress)
    if trigger.mqtt is not None:
        access = mqtt_access.access(hosted.mqtt(trigger), hosted.resolve)
        return await sending_mqtt.send(access, trigger, trigger.mqtt, items, progress)
    if trigger.kafka is None:
        raise FleetError(f"trigger {trigger.name!r} is a clock: nothing can be sent to it", hint="fire it by hand")
    return await sending_kafka.send(
        hosted.kafka(trigger),
        trigger.kafka.topic,
        items,
        progress,
        key_of=unsent_record.key_of(hosted.name, trigger),
        resolve=hosted.resolve,
        client_id=f"fn-send/{hosted.name}",
        lag=lambda: hosted.backlog(trigger),
        throttle=hosted.is_embedded(trigger),
    )


def _state_calls(api: FastAPI, node: Node) -> None:
    @api.get("/v1/functions/{name}/state")
    async def states(name: str, after: str | None = None, limit: Limit = 1000) -> Response:
        async with _store(node.function(name)) as store:
            if store is None:
                return wire.answer(StatePage(keys=[], after=None))
            page = await store.keys(after=after, limit=min(limit, _PAGE))
            return wire.answer(StatePage(keys=list(page.keys), after=page.after))

    @api.get("/v1/functions/{name}/state/{key:path}")
    async def state(name: str, key: str) -> Response:
        async with _store(node.function(name)) as store:
            loaded = (await store.load([key]))[0] if store is not None else None
        if loaded is None or loaded.etag is None:
            raise NotFound(f"{name} keeps nothing of key {key!r}", hint="list the keys it has")
        return wire.answer(state_entries.entry(key, loaded.record))


def _log_calls(api: FastAPI, node: Node) -> None:
    @api.get("/v1/functions/{name}/logs")
    async def logs(
        name: str,
        *,
        follow: bool = False,
        since: float | None = None,
        level: str | None = None,
        key: str | None = None,
    ) -> Response:
        if level is not None and level.lower() not in LEVELS:
            raise FleetError(f"there is no level {level!r}", hint=f"levels: {', '.join(LEVELS)}")
        path = node.function(name).revisions.folder / LOG
        hashed = key_hash(node.workers.log_key, key) if key is not None else None
        found = read_log(path, since=since, level=level, key_hash=hashed, follow=follow, wait=_until_stop(node))
        return StreamingResponse(_text(found), media_type="application/jsonl")


async def _text(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    with contextlib.suppress(_StoppingError):
        async for line in lines:
            yield line + b"\n"


class _StoppingError(Exception):
    """Whoever follows a log would keep the node from ending."""


def _until_stop(node: Node) -> Callable[[float], Awaitable[None]]:
    async def wait(seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(node.stopping.wait(), seconds)
            raise _StoppingError

    return wait


def _fire_calls(api: FastAPI, node: Node) -> None:
    @api.post("/v1/functions/{name}/fire")
    async def fire(name: str, request: Request) -> Response:
        asked = await wire.body(request, FireRequest)
        hosted = node.function(name)
        trigger = hosted.trigger(asked.trigger)
        if trigger.cron is None:
            clocks = [each.name for each in hosted.function.spec.triggers if each.cron is not None]
            raise FleetError(
                f"trigger {trigger.name!r} of {name} is no clock: it is a {trigger.kind.name} trigger",
                hint=f"its clocks: {', '.join(clocks) or 'none'}",
            )
        if trigger.name not in hosted.head.paused:
            hosted.wake(trigger.name)  # while the gateway writes the row; a fire that it refuses woke for nothing
        return wire.answer(await (await node.gateway.client()).fire(name, asked))


def _dead_letter_calls(api: FastAPI, node: Node) -> None:
    @api.get("/v1/dlq")
    async def dead(
        function: str | None = None,
        trigger: str | None = None,
        key: str | None = None,
        reason: str | None = None,
        before: float | None = None,
        after: After = None,
        limit: Limit = 100,
    ) -> Response:
        asked = {
            "function": function,
            "trigger": trigger,
            "key": key,
            "reason": reason,
            "before": before,
            "after": after,
            "limit": min(limit, _PAGE),
        }
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return wire.answer(await (await node.gateway.client()).dead(query))

    @api.get("/v1/dlq/{sequence}")
    async def one(sequence: Annotated[int, Path(ge=0, le=_LAST)]) -> Response:
        row = await (await node.gateway.client()).row(sequence)
        if row is None or row.status != "dead":
            raise NotFound(f"there is no dead letter {sequence}", hint="list those there are")
        return wire.answer(row)

    @api.post("/v1/dlq/redrive")
    async def redrive(request: Request) -> Response:
        return wire.answer(await (await node.gateway.client()).redrive(await wire.body(request, Redrive)))

    @api.post("/v1/dlq/discard")
    async def discard(request: Request) -> Response:
        return wire.answer(await (await node.gateway.client()).discard(await wire.body(request, Which)))


def _metrics_calls(api: FastAPI, node: Node) -> None:
    @api.get("/metrics")
    async def metrics() -> Response:
        return Response(await node.measure(), media_type="text/plain; version=0.0.4")


@asynccontextmanager
async def _store(hosted: Hosted) -> AsyncIterator[SqliteStore | None]:
    """The function's state, beside its worker; None where it has kept nothing yet."""
    path = hosted.revisions.folder / "state.db"
    if not await asyncio.to_thread(path.exists):
        yield None
        return
    store = await SqliteStore.open(path)
    try:
        yield store
    finally:
        await store.close()
