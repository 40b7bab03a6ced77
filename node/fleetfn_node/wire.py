"""The thin layer between msgspec types and HTTP: every answer is one of control.py's types, every error a Refusal."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from fastapi import Request, Response
from fleetfn.errors import FleetError
from fleetfn_spec.control import API, API_HEADER, Refusal
from fleetfn_spec.problems import SpecError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleetfn_node.activation import Unavailable
from fleetfn_node.deploying import DeployRefused
from fleetfn_node.gateway_client import GatewayRefused
from fleetfn_node.hosting import NotFound
from fleetfn_node.revisions import RevisionError

log = logging.getLogger("fleetfn.node")

T = TypeVar("T")

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of a request that is read whole."""


def answer(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def refused(error: FleetError) -> Response:
    response = answer(refusal(error), _status(error))
    if isinstance(error, Unavailable):
        response.headers["retry-after"] = str(max(1, round(error.retry_after)))
    return response


def refusal(error: FleetError) -> Refusal:
    problems = error.problems if isinstance(error, DeployRefused | SpecError) else []
    return Refusal(error.message, error.hint, [str(each) for each in problems])


def defect(error: Exception) -> Refusal:
    """What nobody has foreseen; where the machine said no, the first thing to look at is the data folder."""
    if isinstance(error, OSError):
        where = f" {os.fsdecode(error.filename)!r}" if error.filename is not None else ""
        return Refusal(
            f"the node cannot use{where or ' its files'}: {error.strerror or error}",
            "see that its data folder is there, is its user's and has room, then restart the node; its log says more",
        )
    return Refusal(
        f"the node failed: {type(error).__name__}: {error}", "its log says where; this is a defect of FleetFn"
    )


def _status(error: FleetError) -> int:
    match error:
        case DeployRefused() | GatewayRefused():
            return error.status
        case NotFound() | RevisionError():
            return 404
        case Unavailable():
            return 503
        case _:
            return 400


async def body(request: Request, kind: type[T]) -> T:
    """The request's whole body. Raises FleetError where it does not read."""
    read = bytearray()
    async for block in request.stream():
        read += block
        if len(read) > BODY_LIMIT:
            raise FleetError(f"the request is larger than {BODY_LIMIT} bytes")
    return decode(bytes(read), kind)


def decode(text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise FleetError(f"the request does not read as {kind.__name__}: {error}") from error


async def lines(request: Request) -> AsyncIterator[bytes]:
    """The body's lines as they come, without their ends; blank ones left out."""
    rest = b""
    async for block in request.stream():
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
        if len(rest) > BODY_LIMIT:
            raise FleetError(f"a line of the request is longer than {BODY_LIMIT} bytes")
    if rest.strip():
        yield rest


def told(work: Callable[[Callable[[Any], None]], Awaitable[Any]], failed: Callable[[Refusal], Any]) -> Response:
    """JSON lines: what `work` tells while it goes on, then what it returns, or `failed`.

    The work goes on to its end if the caller leaves: half a deploy helps nobody.
    """
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def run() -> None:
        try:
            queue.put_nowait(await work(queue.put_nowait))
        except FleetError as error:
            queue.put_nowait(failed(refusal(error)))
        except Exception as error:
            log.exception("a call of the control API failed")
            queue.put_nowait(failed(defect(error)))
        finally:
            queue.put_nowait(None)

    return _Told(queue, asyncio.create_task(run()))


class _Told(Response):
    """Sends lines while the request's body is still read; Starlette's own streaming would look for the caller's
    leaving by receiving, and so swallow parts of the body.
    """

    media_type = "application/jsonl"

    def __init__(self, queue: asyncio.Queue[Any], task: asyncio.Task[None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._queue = queue
        self._task = task

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        while (line := await self._queue.get()) is not None:
            text = msgspec.json.encode(line) + b"\n"
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await self._task
        await send({"type": "http.response.body", "body": b""})


class ApiCheck:
    """Refuses callers of another major, saying which side to update."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            theirs = dict(scope["headers"]).get(API_HEADER.encode(), API.encode()).decode("latin-1")
            complaint = mismatch(theirs)
            if complaint is not None:
                await answer(complaint, 426)(scope, receive, _marked(send))
                return
        await self._app(scope, receive, _marked(send))


def _marked(send: Send) -> Send:
    """Every answer says which API it speaks."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (API_HEADER.encode(), API.encode())]
        await send(message)

    return marked


def mismatch(theirs: str) -> Refusal | None:
    """None where both sides understand each other."""
    ours, said = API.partition(".")[0], theirs.partition(".")[0]
    if said == ours:
        return None
    older = "fn" if said.isdigit() and int(said) < int(ours) else "the node"
    step = "update fn" if older == "fn" else "update FleetFn on the node, then restart it with fn down and fn up"
    return Refusal(f"fn speaks control API {theirs!r}, the node {API!r}: {older} is older", step)
