"""What the kubelet and Prometheus ask: GET /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from fleetfn.errors import FleetError

from fleetfn_gateway.cluster.activator import Activator
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.serving import Receive, Scope, Send

_JSON, _TEXT = b"application/json", b"text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "fleetfn_gateway_"


class Health:
    """An ASGI application. `waits_for`: what it needs to be ready, for people; '' where it has all."""

    def __init__(
        self, gateway: Gateway, pods: Pods, demand: Demand, activator: Activator, waits_for: Callable[[], str]
    ) -> None:
        self._gateway = gateway
        self._pods = pods
        self._demand = demand
        self._activator = activator
        self._waits_for = waits_for

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - bodies are not read
        status, kind, body = self._answer(scope["path"]) if scope["method"] == "GET" else (405, _JSON, b"{}")
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str) -> tuple[int, bytes, bytes]:
        match path:
            case "/healthz":
                return 200, _JSON, b'{"status":"ok"}'
            case "/readyz":
                why = self._waits_for()
                said = {"status": "waiting", "problem": why} if why else {"status": "ready"}
                return 503 if why else 200, _JSON, msgspec.json.encode(said)
            case "/metrics":
                try:
                    return 200, _TEXT, self.metrics()
                except FleetError as error:
                    return 503, _JSON, msgspec.json.encode({"error": error.message})
        return 404, _JSON, b"{}"

    def metrics(self) -> bytes:
        """Prometheus' text. Raises StoreError."""
        return self._gateway.metrics() + "\n".join([*self._lines(), ""]).encode()

    def _lines(self) -> Iterator[str]:
        names = sorted(self._gateway.functions)
        activator, demand = self._activator, self._demand
        yield from _gauge("pods_ready", "Pods that take work.", ((n, len(self._pods.ready(n))) for n in names))
        yield from _gauge("wanted", "1: KEDA is told that it is active.", ((n, int(demand.wanted(n))) for n in names))
        yield from _gauge("work", "What KEDA is told that it has to do.", ((n, demand.amount(n)) for n in names))
        waiting = ((n, demand.requests[n]) for n in names)
        yield from _gauge("requests_waiting", "HTTP requests that wait for a pod.", waiting)
        held = sorted(activator.held.items())
        yield from _family("requests_held_total", "counter", "HTTP requests that had to wait.", held)
        yield from _head("requests_refused_total", "counter", "HTTP requests that there was no room for.")
        for (name, what), count in sorted(activator.refused.items()):
            yield f'{_PREFIX}requests_refused_total{{function="{name}",of="{what}"}} {count}'


def _gauge(name: str, about: str, values: Iterable[tuple[str, Any]]) -> Iterator[str]:
    return _family(name, "gauge", about, values)


def _family(name: str, kind: str, about: str, values: Iterable[tuple[str, Any]]) -> Iterator[str]:
    yield from _head(name, kind, about)
    for function, value in values:
        yield f'{_PREFIX}{name}{{function="{function}"}} {value}'


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {about}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
