"""What a node asks of its gateway: the calls of fleetfn_spec.gateway as methods."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import Fired, FireRequest, GatewayFunction, GatewayStatus, Redrive
from fleetfn_triggers.inbox import Row, Which

from fleetfn_node.activation import Unavailable

ANSWER = 30.0
"""Seconds for an answer to a call that looks something up."""

T = TypeVar("T")


class GatewayRefused(FleetError):  # noqa: N818 - a decision, not a fault
    """The gateway said no. `status`: as it answered."""

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _Dead(msgspec.Struct):
    rows: list[Row]


class GatewayClient:
    """Use on one loop. Every call raises Unavailable where nobody answers, GatewayRefused where the answer is no."""

    def __init__(self, socket: Path) -> None:
        self._client = UnixClient(socket)

    async def close(self) -> None:
        await self._client.close()

    async def replace(self, functions: list[GatewayFunction]) -> None:
        """These are all there are."""
        await self._ask("PUT", "/v1/functions", _encoded(functions))

    async def put(self, function: GatewayFunction) -> None:
        await self._ask("PUT", _function(function.name), _encoded(function))

    async def delete(self, name: str, *, keep_rows: bool) -> None:
        await self._ask("DELETE", f"{_function(name)}?rows={'keep' if keep_rows else 'drop'}")

    async def status(self, *, limit: float = ANSWER) -> GatewayStatus:
        return _decoded(await self._ask("GET", "/v1/gateway", limit=limit), GatewayStatus)

    async def fire(self, function: str, request: FireRequest) -> Fired:
        return _decoded(await self._ask("POST", f"{_function(function)}/fire", _encoded(request)), Fired)

    async def dead(self, query: str) -> list[Row]:
        """`query`: as the control API's, which is the gateway's."""
        return _decoded(await self._ask("GET", f"/v1/dlq?{query}"), _Dead).rows

    async def row(self, sequence: int) -> Row | None:
        """Of either status."""
        try:
            return _decoded(await self._ask("GET", f"/v1/dlq/{sequence}"), Row)
        except GatewayRefused as refused:
            if refused.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def redrive(self, redrive: Redrive) -> dict[str, int]:
        return _decoded(await self._ask("POST", "/v1/dlq/redrive", _encoded(redrive), limit=None), dict[str, int])

    async def discard(self, which: Which) -> dict[str, int]:
        return _decoded(await self._ask("POST", "/v1/dlq/discard", _encoded(which), limit=None), dict[str, int])

    async def metrics(self) -> bytes:
        return await self._ask("GET", "/metrics")

    async def _ask(self, method: str, path: str, body: bytes = b"", *, limit: float | None = ANSWER) -> bytes:
        try:
            reply = await self._client.request(method, path, body, limit=limit)
        except UnreachableError as error:
            raise Unavailable(f"the gateway gave no answer: {error.message}", hint=error.hint) from error
        if reply.status >= HTTPStatus.BAD_REQUEST:
            said = _refusal(reply.body, reply.status)
            raise GatewayRefused(said.message, hint=said.hint, status=reply.status)
        return reply.body


def _function(name: str) -> str:
    return f"/v1/functions/{quote(name, safe='')}"


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=str)  # paths


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise FleetError(f"the gateway's answer does not read: {error}") from error


def _refusal(body: bytes, status: int) -> Refusal:
    try:
        return msgspec.json.decode(body, type=Refusal)
    except msgspec.MsgspecError:
        return Refusal(f"the gateway answered {status}: {body[:200].decode('utf-8', 'replace')}")
