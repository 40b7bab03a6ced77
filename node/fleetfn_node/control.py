"""The control API: HTTP on a user-only unix socket, for `fn` and whoever else this user lets."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fleetfn.errors import FleetError
from fleetfn_plumbing.quiet_server import QuietServer
from fleetfn_spec.control import DeployLine, DeployRequest, Plan, Refusal, RevisionInfo
from starlette.exceptions import HTTPException

from fleetfn_node import event_calls, sources, statuses, wire
from fleetfn_node.deploying import DeployRefused
from fleetfn_node.hosting import Hosted
from fleetfn_node.node import Node
from fleetfn_node.wake_call import WakeCall

_GRACE = 5
"""Seconds that calls under way have when the node stops."""


class Rollback(msgspec.Struct, frozen=True):
    digest: str | None = None


class Triggers(msgspec.Struct, frozen=True):
    triggers: list[str] = []


def app(node: Node) -> wire.ApiCheck:
    api = FastAPI(title="FleetFn control API", openapi_url=None)
    for kind in (FleetError, HTTPException, RequestValidationError, Exception):
        api.add_exception_handler(kind, _refuse)
    _node_calls(api, node)
    _deploy_calls(api, node)
    _function_calls(api, node)
    event_calls.add(api, node)
    return wire.ApiCheck(WakeCall(node, api, _refuse))


async def _refuse(request: Request, error: Exception) -> Response:
    """Whatever goes wrong is answered with a Refusal."""
    match error:
        case FleetError():
            return wire.refused(error)
        case HTTPException():
            return wire.answer(Refusal(f"{request.method} {request.url.path}: {error.detail}"), error.status_code)
        case RequestValidationError():
            wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
            return wire.answer(Refusal("the request's parameters do not fit", problems=wrong), 400)
        case _:
            return wire.answer(wire.defect(error), 500)


def _node_calls(api: FastAPI, node: Node) -> None:
    @api.get("/v1/node")
    async def info() -> Response:
        return wire.answer(node.info())

    @api.post("/v1/node/stop")
    async def stop() -> Response:
        node.stop()
        return Response(status_code=202)


def _deploy_calls(api: FastAPI, node: Node) -> None:
    @api.post("/v1/functions")
    async def deploy(request: Request) -> Response:
        asked, packed = await _receive(request, node.folders.incoming)

        async def work(tell: Callable[[Any], None]) -> DeployLine:
            try:
                done = await node.deploy(asked, packed, lambda text: tell(DeployLine(step=text)))
            finally:
                if packed is not None:
                    packed.unlink(missing_ok=True)
            return _done(node, done)

        return wire.told(work, _failed)

    @api.get("/v1/functions/{name}/revisions")
    async def revisions(name: str) -> Response:
        hosted = node.function(name)
        return wire.answer(statuses.revisions(hosted, node.url))

    @api.post("/v1/functions/{name}/rollback")
    async def rollback(name: str, request: Request) -> Response:
        asked = await wire.body(request, Rollback)
        node.function(name)

        async def work(tell: Callable[[Any], None]) -> DeployLine:
            step = lambda text: tell(DeployLine(step=text))  # noqa: E731 - shorter than a def for one call
            return _done(node, await node.deploying.rollback(name, asked.digest, step))

        return wire.told(work, _failed)


def _function_calls(api: FastAPI, node: Node) -> None:
    @api.get("/v1/functions")
    async def everything() -> Response:
        return wire.answer(await statuses.listed(node))

    @api.get("/v1/functions/{name}")
    async def one(name: str) -> Response:
        return wire.answer(await statuses.described(node, node.function(name)))

    @api.delete("/v1/functions/{name}")
    async def delete(name: str, state: str = "keep") -> Response:
        if state not in {"keep", "delete"}:
            raise FleetError(f"state={state!r} is neither keep nor delete")
        node.function(name)
        await node.delete(name, keep_state=state == "keep")
        return Response(status_code=204)

    @api.post("/v1/functions/{name}/pause")
    async def pause(name: str, request: Request) -> Response:
        return await _pause(name, request, paused=True)

    @api.post("/v1/functions/{name}/resume")
    async def resume(name: str, request: Request) -> Response:
        return await _pause(name, request, paused=False)

    async def _pause(name: str, request: Request, *, paused: bool) -> Response:
        asked = await wire.body(request, Triggers)
        hosted = node.function(name)
        await node.pause(name, asked.triggers, paused=paused)
        return wire.answer(await statuses.described(node, hosted))


async def _receive(request: Request, incoming: Path) -> tuple[DeployRequest, Path | None]:
    """The first line, and the tar behind it in a file that is the caller's to remove (None: nothing came)."""
    blocks = request.stream()
    first, rest = b"", b""
    async for block in blocks:
        first += block
        _bound(len(first), wire.BODY_LIMIT + len(block))
        if b"\n" in block:
            first, _, rest = first.partition(b"\n")
            break
    asked = wire.decode(first, DeployRequest)
    packed = _Packed(incoming)
    try:
        packed.add(rest)
        async for block in blocks:
            packed.add(block)
        return asked, packed.kept()
    except BaseException:
        packed.drop()
        raise


class _Packed:
    """A source while it arrives."""

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(suffix=".tar", dir=folder)
        self._file = os.fdopen(descriptor, "wb")
        self._path = Path(name)
        self._size = 0

    def add(self, block: bytes) -> None:
        self._size += len(block)
        _bound(self._size, sources.LIMIT)
        self._file.write(block)

    def kept(self) -> Path | None:
        self._file.close()
        if self._size:
            return self._path
        self._path.unlink()
        return None

    def drop(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _bound(size: int, limit: int) -> None:
    if size > limit:
        raise DeployRefused(f"the source is larger than {limit // 1024 // 1024} MiB", status=413)


def _done(node: Node, done: Hosted | Plan) -> DeployLine:
    if isinstance(done, Plan):
        return DeployLine(plan=done)
    return DeployLine(revision=_serving(node, done))


def _serving(node: Node, hosted: Hosted) -> RevisionInfo:
    return statuses.revision(hosted, hosted.head.serving, node.url)


def _failed(refusal: Any) -> DeployLine:
    return DeployLine(refusal=refusal)


class ControlServer:
    """uvicorn on the node's own loop; signals are the node's."""

    def __init__(self, node: Node) -> None:
        self._path = node.folders.control
        config = uvicorn.Config(
            app(node),
            log_config=None,
            access_log=False,
            date_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE,
        )
        self._server = QuietServer(config)
        self._serving: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._path.unlink(missing_ok=True)  # of a node that was killed; the lock says that none runs now
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(str(self._path))
        finally:
            os.umask(before)
        self._serving = asyncio.create_task(self._server.serve(sockets=[sock]))

    async def close(self) -> None:
        self._server.leave()
        if self._serving is not None:
            await self._serving
        self._path.unlink(missing_ok=True)
