"""The gateway's calls for workers in pods: each asks for the function that its certificate names, and for no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from fleetfn_spec.cluster import Figures, Here

from fleetfn_gateway.cluster.tallies import Tallies
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.service import Asked, ForbiddenError, Reply, Service, read

_CALLS = frozenset({"put", "offer", "bury", "claim", "passed"})


class WorkersInbox(Service):
    """An ASGI application, for TlsServing. `here`: told of a function's pod that takes work."""

    def __init__(self, gateway: Gateway, tallies: Tallies, here: Callable[[str, Here], None]) -> None:
        super().__init__(gateway)
        self._tallies = tallies
        self._here = here

    async def answer(self, method: str, path: str, asked: Asked) -> Reply:
        match method, path.split("/")[1:]:
            case "POST", ["v1", call] if call in _CALLS:
                return await super().answer(method, path, asked)
            case "GET", ["v1", "functions", name, "paused"]:
                _check(name, asked.peer)
                return await super().answer(method, path, asked)
            case "POST", ["v1", "functions", name, "ready"]:
                _check(name, asked.peer)
                said = read(msgspec.json.decode, asked.body, Here)
                if said.address == asked.address:  # else something between them translates addresses
                    self._here(name, said)
                return await super().answer("GET", f"/v1/functions/{name}/paused", asked)
            case "POST", ["v1", "functions", name, "figures"]:
                _check(name, asked.peer)
                self._tallies.told(name, read(msgspec.json.decode, asked.body, Figures))
                return Reply(status=204)
            case "GET", ["healthz"]:
                return await super().answer(method, path, asked)
        raise ForbiddenError(f"{method} {path} is not for workers")

    def check(self, said: Any, peer: str) -> None:
        for each in said if isinstance(said, list) else [said]:
            _check(each.function, peer)


def _check(function: str, peer: str) -> None:
    if function != peer:
        raise ForbiddenError(f"{peer!r} asks for function {function!r}: a worker asks for its own alone")
