"""What a node asks of a running worker on its delivery socket: one event now, or its figures."""

from __future__ import annotations

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import Reply, UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.control import InvokeReply, InvokeRequest, Refusal

from fleetfn_node.activation import Unavailable
from fleetfn_node.links import WorkerLink

_METRICS_LIMIT = 5.0
"""Seconds for a worker to tell its figures."""

_REFUSED = 400
"""Statuses from the first on are no answers."""


async def invoke(link: WorkerLink, request: InvokeRequest, *, limit: float) -> InvokeReply:
    """`limit`: seconds, of the function and some more. Raises FleetError."""
    answer = await _call(link, "POST", "/invoke", msgspec.json.encode(request), limit=limit)
    if answer.status >= _REFUSED:
        raise _refused(link, answer)
    return msgspec.json.decode(answer.body, type=InvokeReply)


async def metrics(link: WorkerLink) -> bytes:
    return (await _call(link, "GET", "/metrics", b"", limit=_METRICS_LIMIT)).body


async def _call(link: WorkerLink, method: str, path: str, body: bytes, *, limit: float) -> Reply:
    if link.deliver is None:
        raise Unavailable(f"worker {link.pid} of {link.function} is not ready")
    client = UnixClient(link.deliver)
    try:
        return await client.request(method, path, body, limit=limit)
    except UnreachableError as error:
        raise Unavailable(f"worker {link.pid} of {link.function} does not answer: {error.message}") from error
    finally:
        await client.close()


def _refused(link: WorkerLink, answer: Reply) -> FleetError:
    try:
        said = msgspec.json.decode(answer.body, type=Refusal)
    except msgspec.MsgspecError:
        return FleetError(f"worker {link.pid} of {link.function} answered {answer.status}: {answer.body[:200]!r}")
    return FleetError(said.message, hint=said.hint)
