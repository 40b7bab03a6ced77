"""Sending to an http trigger: requests to the node's own front door, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import FleetError
from fleetfn_gateway import sending
from fleetfn_gateway.sending import Items, Progress, payload
from fleetfn_runtime import http_keys
from fleetfn_spec.control import SendLine
from fleetfn_spec.function import Trigger
from fleetfn_triggers.http import Http

if TYPE_CHECKING:
    import httpx

_REPLY_LIMIT = 64 * 1024
"""Characters of the last reply that are shown."""


async def send(
    url: str, key_file: Path | None, trigger: Trigger, http: Http, items: Items, progress: Progress
) -> SendLine:
    """Raises FleetError when an item cannot be sent; what the function replies is no error."""
    import httpx  # noqa: PLC0415 - see deliver.py

    key = {"authorization": f"Bearer {http_keys.read(key_file).decode()}"} if key_file is not None else {}
    reply = None
    async with httpx.AsyncClient(base_url=url, headers=key, timeout=None) as client:  # noqa: S113 - the worker bounds it
        async for item in items:
            body, named = payload(item)
            headers = [(name.encode(), value.encode()) for name, value in named.items()]  # as text it must be ASCII
            path = sending.path_of(trigger, http.path, item)
            try:
                response = await client.request(http.methods[0], path, content=body, headers=headers)
            except httpx.TransportError as error:
                raise FleetError(f"{http.methods[0]} {url}{path} got no answer: {error}") from error
            reply = response
            progress.count()
    return SendLine(sent=progress.sent, finished=True, reply=_shown(reply) if reply is not None else None)


def _shown(reply: httpx.Response) -> dict[str, object]:
    return {"status": reply.status_code, "headers": dict(reply.headers), "body": reply.text[:_REPLY_LIMIT]}
