"""The gateway's call for a function's workers, answered before FastAPI looks at it: whose routing and checking would be
half a millisecond of each cold start by a message or a clock.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from fastapi import Request, Response
from fleetfn.errors import FleetError
from fleetfn_spec.gateway import Awake, Wake
from starlette.types import ASGIApp, Receive, Scope, Send

from fleetfn_node import wire
from fleetfn_node.activation import Unavailable
from fleetfn_node.node import Node

log = logging.getLogger("fleetfn.node")

_BEFORE, _BEHIND = "/v1/functions/", "/wake"


class WakeCall:
    """Passes on what is another call. `refuse` answers whatever is raised."""

    def __init__(self, node: Node, app: ASGIApp, refuse: Callable[[Request, Exception], Awaitable[Response]]) -> None:
        self._node = node
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = _function(scope)
        if name is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._wake(name, request)
        except FleetError as error:
            response = await self._refuse(request, error)
        except Exception as error:
            log.exception("a call of the gateway failed")
            response = await self._refuse(request, error)
        await response(scope, receive, send)

    async def _wake(self, name: str, request: Request) -> Response:
        asked = await wire.body(request, Wake)
        links = await self._node.function(name).wake_for(asked.waiting)
        sockets = [link.deliver for link in links if link.deliver is not None]
        if not sockets:
            raise Unavailable(f"{name} has no worker that is ready")
        return wire.answer(Awake(workers=sockets))


def _function(scope: Scope) -> str | None:
    """Whose workers are asked for."""
    path = scope.get("path", "")
    if scope["type"] != "http" or scope["method"] != "POST" or not path.endswith(_BEHIND):
        return None
    name = path.removeprefix(_BEFORE).removesuffix(_BEHIND)
    return name if path.startswith(_BEFORE) and name and "/" not in name else None
