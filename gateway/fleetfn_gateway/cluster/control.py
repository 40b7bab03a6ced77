"""For `fn`, which comes by port-forward to the pod's loopback: calls of a node's control API that are a gateway's, too.

What a function is, is said by its head: it is neither put nor paused here. What only a worker knows (an event run by
hand, state) is asked of a pod, which is woken for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import msgspec
from fleetfn.errors import FleetError, UsageError
from fleetfn_plumbing.http_client import HttpClient, UnreachableError
from fleetfn_spec.control import API, API_HEADER, InvokeRequest, Refusal
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayFunction, Sums

from fleetfn_gateway import sending
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.cluster.send_calls import SendCalls
from fleetfn_gateway.gateway import AwayError, Gateway, UnknownError
from fleetfn_gateway.service import Asked, Reply, Service, as_json, read, refused, say, unknown
from fleetfn_gateway.serving import Receive, Scope, Send

WAKE_LIMIT = 60.0
"""Seconds that a call waits for a pod."""

MARGIN = 10.0
"""Seconds beyond a handler's timeout: it may wait for the lane of its key."""

STATE = 30.0
"""Seconds for a pod to look up state."""


class Control(Service):
    """An ASGI application. `problems`: by function; `metrics`: Prometheus' text; `why`: why a function has no pod."""

    def __init__(
        self,
        gateway: Gateway,
        pods: Pods,
        demand: Demand,
        *,
        client_of: Callable[[str, str], HttpClient],
        problems: Callable[[], dict[str, str]],
        sums: Callable[[], dict[str, Sums]],
        metrics: Callable[[], bytes],
        why: Callable[[str], str],
        sends: SendCalls,
        wake_limit: float = WAKE_LIMIT,
    ) -> None:
        super().__init__(gateway)
        self._gateway = gateway
        self._pods = pods
        self._demand = demand
        self._client_of = client_of
        self._problems = problems
        self._sums = sums
        self._metrics = metrics
        self._why = why
        self._sends = sends
        self._wake_limit = wake_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (API_HEADER.encode(), API.encode())]
            await send(message)

        theirs = dict(scope["headers"]).get(API_HEADER.encode(), API.encode()).decode("latin-1")
        if _major(theirs) != _major(API):
            await say(marked, _mismatch(theirs))
            return
        match scope["method"], scope["path"].split("/")[1:]:
            case "POST", ["v1", "functions", name, "send"]:
                await self._send(name, scope, receive, marked)
            case _:
                await super().__call__(scope, receive, marked)

    async def _send(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        named = parse_qs(scope["query_string"].decode("latin-1")).get("trigger", [None])[-1]
        try:
            function = self._known(name)
            trigger = _trigger(function, named)
        except FleetError as error:
            await say(send, refused(error))
            return
        await self._sends.answer(function, trigger, receive, send)

    async def answer(self, method: str, path: str, asked: Asked) -> Reply:
        match method, path.split("/")[1:]:
            case "GET", ["v1", "gateway"]:
                status = self._gateway.status()
                return as_json(msgspec.structs.replace(status, problems=self._problems(), sums=self._sums()))
            case "GET", ["metrics"]:
                return Reply(self._metrics(), "text/plain; version=0.0.4; charset=utf-8")
            case "GET", ["v1", "dlq"]:
                page = await super().answer(method, path, asked)
                return page._replace(body=bytes(msgspec.json.decode(page.body, type=dict[str, msgspec.Raw])["rows"]))
            case _, ["v1", "dlq", *_]:
                return await super().answer(method, path, asked)
            case _, ["v1", "functions", name, *rest]:
                return await self._of_function(method, name, rest, path, asked)
        raise unknown(method, path)

    async def _of_function(self, method: str, name: str, rest: list[str], path: str, asked: Asked) -> Reply:
        match method, rest:
            case "DELETE", []:
                if name in self._gateway.functions:
                    raise UsageError(f"function {name!r} is deployed", hint="delete its ConfigMap, which says so")
                return await super().answer(method, path, asked)
            case "POST", ["fire"]:
                return await super().answer(method, path, asked)
            case "GET", ["rows"]:
                return as_json(self._gateway.status().functions.get(self._known(name).name, {}))
            case "POST", ["invoke"]:
                return await self._invoke(self._known(name), read(msgspec.json.decode, asked.body, InvokeRequest))
            case "GET", ["state"]:
                query = urlencode([(key, each) for key, values in asked.query.items() for each in values])
                return await self._at_pod(name, "GET", f"/state?{query}" if query else "/state", limit=STATE)
            case "GET", ["state", *parts]:
                return await self._at_pod(name, "GET", f"/state/{quote('/'.join(parts), safe='')}", limit=STATE)
        raise unknown(method, path)

    def _known(self, name: str) -> GatewayFunction:
        function = self._gateway.functions.get(name)
        if function is None:
            raise UnknownError(f"there is no function {name!r}")
        return function

    async def _invoke(self, function: GatewayFunction, request: InvokeRequest) -> Reply:
        trigger = _trigger(function, request.trigger)
        if request.key is None:
            request = msgspec.structs.replace(request, key=sending.partition_key(trigger, request.event))
        limit = function.function.spec.timeout_of(trigger) + MARGIN
        return await self._at_pod(function.name, "POST", "/invoke", msgspec.json.encode(request), limit=limit)

    async def _at_pod(self, name: str, method: str, path: str, body: bytes = b"", *, limit: float) -> Reply:
        """`limit`: seconds, from when a pod is there. Raises UnknownError, AwayError."""
        self._known(name)
        with self._demand.waiting(name):
            ready = await self._pods.first(name, self._wake_limit)
            if not ready:
                raise AwayError(f"no pod of {name!r} was ready within {self._wake_limit:g} s: {self._why(name)}")
            client = self._client_of(name, ready[0].place)
            try:
                reply = await client.request(method, path, body, limit=limit)
            except UnreachableError as error:
                raise AwayError(f"pod {ready[0].name} does not answer: {error.message}") from error
            finally:
                await client.close()
        return Reply(reply.body, status=reply.status)


def _trigger(function: GatewayFunction, name: str | None) -> Trigger:
    """None: the first one. Raises UnknownError."""
    trigger = next((each for each in function.function.spec.triggers if name in (each.name, None)), None)
    if trigger is None:
        raise UnknownError(f"function {function.name!r} has no trigger {name!r}")
    return trigger


def _mismatch(theirs: str) -> Reply:
    older = "fn" if _major(theirs) < _major(API) else "the gateway"
    refusal = Refusal(f"this gateway speaks control API {API}, the caller {theirs}", f"update {older}")
    return as_json(refusal)._replace(status=426)


def _major(version: str) -> int:
    major = version.partition(".")[0]
    return int(major) if major.isascii() and major.isdigit() else -1
