"""`fn send` through a gateway: JSON lines of items in, JSON lines of progress out, while the items still come.

MQTT goes to the trigger's broker, HTTP to the function by the way of requests that wake it, Kafka by the function's own
worker (sending_kafka.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpcore
import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access
from fleetfn_spec import secrets
from fleetfn_spec.control import Refusal, SendItem, SendLine
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.http import Http

from fleetfn_gateway import sending, sending_mqtt
from fleetfn_gateway.cluster.sending_kafka import KafkaSends
from fleetfn_gateway.sending import Items, Progress
from fleetfn_gateway.serving import Receive, Send

log = logging.getLogger("fleetfn.gateway")

LINE_LIMIT = 16 * 1024 * 1024
"""Bytes of one item."""

_REPLY_LIMIT = 64 * 1024
"""Characters of the last reply that are shown."""


class SendCalls:
    """`port`: where requests for a function are taken; None: nowhere."""

    def __init__(self, port: Callable[[str], int | None], host: str, kafka: KafkaSends) -> None:
        self._port = port
        self._kafka = kafka
        self._host = host or "127.0.0.1"

    async def answer(self, function: GatewayFunction, trigger: Trigger, receive: Receive, send: Send) -> None:
        """The whole answer of an ASGI application."""
        told: asyncio.Queue[SendLine | None] = asyncio.Queue()
        progress = Progress(told.put_nowait)

        async def work() -> None:
            try:
                items = (sending.keyed(trigger, item) async for item in _items(receive))
                told.put_nowait(await self._send(function, trigger, items, progress))
            except FleetError as error:
                told.put_nowait(SendLine(sent=progress.sent, refusal=Refusal(error.message, error.hint)))
            except Exception as error:
                log.exception("%s/%s: sending failed", function.name, trigger.name)
                refusal = Refusal(f"the gateway failed: {error}", "its log says where")
                told.put_nowait(SendLine(sent=progress.sent, refusal=refusal))
            finally:
                told.put_nowait(None)

        working = asyncio.create_task(work())
        headers = [(b"content-type", b"application/jsonl")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while (line := await told.get()) is not None:
            body = msgspec.json.encode(line) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await working
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, function: GatewayFunction, trigger: Trigger, items: Items, progress: Progress) -> SendLine:
        if trigger.mqtt is not None:
            connection = function.mqtt.get(trigger.connection or trigger.kind.name)
            if connection is None:
                raise FleetError(f"trigger {trigger.name!r} has no connection in environment {function.environment!r}")
            access = mqtt_access.access(connection, lambda each: secrets.resolve(each, {}, Path("/")))
            return await sending_mqtt.send(access, trigger, trigger.mqtt, items, progress)
        if trigger.http is not None:
            return await self._request(function.name, trigger, trigger.http, items, progress)
        if trigger.kafka is not None:
            return await self._kafka.send(function.name, trigger, trigger.kafka, items, progress)
        raise FleetError(f"trigger {trigger.name!r} is a clock: nothing can be sent to it", hint="fire it by hand")

    async def _request(self, name: str, trigger: Trigger, http: Http, items: Items, progress: Progress) -> SendLine:
        port = self._port(name)
        if port is None:
            raise FleetError(f"the gateway has no port for requests to {name!r}", hint="its log says why")
        reply = None
        async with httpcore.AsyncConnectionPool() as pool:
            async for item in items:
                body, named = sending.payload(item)
                path = sending.path_of(trigger, http.path, item)
                headers = [(each.encode(), value.encode()) for each, value in named.items()]
                url = f"http://{self._host}:{port}{path}"
                try:
                    reply = await pool.request(http.methods[0], url, headers=headers, content=body or b"")
                except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
                    raise FleetError(f"{http.methods[0]} {path} of {name} got no answer: {error}") from error
                progress.count()
        return SendLine(sent=progress.sent, finished=True, reply=None if reply is None else _shown(reply))


async def _items(receive: Receive) -> AsyncIterator[SendItem]:
    async for line in _lines(receive):
        try:
            yield msgspec.json.decode(line, type=SendItem)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FleetError(f"an item cannot be read: {error}") from error


async def _lines(receive: Receive) -> AsyncIterator[bytes]:
    """Without their ends; blank ones left out."""
    rest, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise FleetError("the sender left before its items were whole")
        more = message.get("more_body", False)
        *whole, rest = (rest + message.get("body", b"")).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise FleetError(f"an item is longer than {LINE_LIMIT} bytes")
        for line in whole:
            if line.strip():
                yield line
    if rest.strip():
        yield rest


def _shown(reply: httpcore.Response) -> dict[str, object]:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reply.headers}
    return {"status": reply.status, "headers": headers, "body": reply.content.decode("utf-8", "replace")[:_REPLY_LIMIT]}
