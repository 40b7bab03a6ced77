"""The API server, as far as a gateway needs it: list, watch, get, apply and delete in one namespace.

The package `kubernetes` would take 43 to 70 MiB in a process that is always there, and 140 to 330 ms at its start;
five calls of JSON over HTTP need httpcore alone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import httpcore
import msgspec
from fleetfn.errors import FleetError

from fleetfn_gateway.cluster.kube_access import Access
from fleetfn_gateway.cluster.kube_objects import Meta, Problem, Resource

ANSWER = 15.0
"""Seconds for a call that is answered at once."""

WATCH = 240
"""Seconds after which the API server ends a watch; it is begun again where it ended."""

SILENCE = 30.0
"""Seconds that a watch may be silent beyond that."""

_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000),
]
"""An API server whose machine is gone says nothing: a watch of it has ended after 25 s."""

_LINE_LIMIT = 4 * 1024 * 1024
"""Bytes of one event: an object has at most 1.5 MiB in etcd."""

APPLY = "application/apply-patch+yaml"
MANAGER = "fleetfn-gateway"
"""Field manager of what the gateway applies: not that of `fn`, which would take its fields away."""

_GONE = 410

T = TypeVar("T")


class KubeError(FleetError):
    """The API server said no. `status`: as in HTTP."""

    def __init__(self, message: str, *, hint: str = "", status: int) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class KubeAwayError(FleetError):
    """The API server does not answer."""


class ForgottenError(FleetError):
    """The API server has forgotten what came after that version: list anew."""


class Listed(NamedTuple, Generic[T]):
    items: list[T]
    version: str


class Change(NamedTuple, Generic[T]):
    """`kind`: ADDED, MODIFIED, DELETED; OPENED and BOOKMARK come without an item."""

    kind: str
    item: T | None
    version: str


class _List(msgspec.Struct):
    items: list[msgspec.Raw]
    metadata: Meta


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Any(msgspec.Struct):
    metadata: Meta


class Kube:
    """Use on one loop. Every call raises KubeError, KubeAwayError."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.namespace = namespace
        self._access = access
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=access.context, max_connections=None, keepalive_expiry=30.0, socket_options=_ALIVE
        )

    @property
    def where(self) -> str:
        return self._access.url

    async def close(self) -> None:
        await self._pool.aclose()

    async def get(self, resource: Resource, name: str, kind: type[T]) -> T:
        answer = await self._ask("get", resource, "GET", self._path(resource, name))
        return _decoded(answer, kind, f"{resource.plural} {name!r}")

    async def list(self, resource: Resource, kind: type[T], labels: str = "") -> Listed[T]:
        """`labels`: a selector."""
        answer = await self._ask("list", resource, "GET", self._path(resource, query={"labelSelector": labels}))
        found = _decoded(answer, _List, resource.plural)
        items = [_decoded(each, kind, resource.plural) for each in found.items]
        return Listed(items, found.metadata.resource_version)

    async def watch(
        self, resource: Resource, kind: type[T], labels: str, version: str
    ) -> AsyncGenerator[Change[T], None]:
        """What changes from `version` on, until the API server ends it. Raises ForgottenError, too."""
        query = {
            "labelSelector": labels,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH),
        }
        async with self._answer("watch", resource, "GET", self._path(resource, query=query), WATCH + SILENCE) as got:
            yield Change("OPENED", None, version)
            async for line in _lines(got.aiter_stream()):
                yield _change(line, kind, resource)

    async def apply(self, resource: Resource, name: str, body: Any) -> None:
        """Server-side: these fields are ours from now on."""
        query = {"fieldManager": MANAGER, "force": "true"}
        path = self._path(resource, name, query)
        await self._ask("patch", resource, "PATCH", path, msgspec.json.encode(body), APPLY)

    async def delete(self, resource: Resource, name: str) -> None:
        """It is well if it is gone already."""
        try:
            await self._ask("delete", resource, "DELETE", self._path(resource, name))
        except KubeError as error:
            if error.status != 404:  # noqa: PLR2004 - HTTP's own number
                raise

    def _path(self, resource: Resource, name: str = "", query: dict[str, str] | None = None) -> str:
        given = {key: value for key, value in (query or {}).items() if value}
        path = resource.path(quote(self.namespace, safe=""), quote(name, safe=""))
        return f"{path}?{urlencode(given)}" if given else path

    async def _ask(
        self, verb: str, resource: Resource, method: str, path: str, body: bytes = b"", kind: str = "application/json"
    ) -> bytes:
        async with self._answer(verb, resource, method, path, ANSWER, body, kind) as answer:
            with _reading(self.where):
                return await answer.aread()

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        limit: float,
        body: bytes = b"",
        kind: str = "application/json",
    ) -> AsyncIterator[httpcore.Response]:
        """An answer that says yes."""
        headers = [("accept", "application/json"), ("user-agent", "fleetfn-gateway"), ("content-type", kind)]
        if token := self._token():
            headers.append(("authorization", f"Bearer {token}"))
        limits = {"connect": ANSWER, "write": ANSWER, "pool": ANSWER, "read": limit}
        with _reading(self.where):
            stream = self._pool.stream(
                method, f"{self.where}{path}", headers=headers, content=body, extensions={"timeout": limits}
            )
            async with stream as answer:
                if answer.status >= 400:  # noqa: PLR2004 - HTTP's own number
                    raise self._refused(verb, resource, answer.status, await answer.aread())
                yield answer

    def _token(self) -> str | None:
        try:
            return self._access.token()
        except OSError as error:
            raise KubeAwayError(f"the service account's token cannot be read: {error}") from error

    def _refused(self, verb: str, resource: Resource, status: int, body: bytes) -> FleetError:
        said = _problem(body)
        if status == _GONE:
            return ForgottenError(f"the API server has forgotten older {resource.plural}: {said}")
        what = f"{verb} {resource.plural} in namespace {self.namespace!r}"
        if status == 403:  # noqa: PLR2004 - HTTP's own number
            hint = f"the gateway's Role needs the verb {verb!r} on {resource.plural!r} (apiGroup {resource.group!r})"
            return KubeError(f"the API server does not let {self._access.who} {what}", hint=hint, status=status)
        if status == 401:  # noqa: PLR2004 - likewise
            hint = "its token or certificate may have expired"
            return KubeError(f"the API server does not know {self._access.who}", hint=hint, status=status)
        return KubeError(f"the API server cannot {what}: {status} {said}", status=status)


def _problem(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Problem).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body[:200].decode("utf-8", "replace")


def _change(line: bytes, kind: type[T], resource: Resource) -> Change[T]:
    event = _decoded(line, _Event, resource.plural)
    if event.type == "ERROR":
        said = _decoded(event.object, Problem, resource.plural)
        if said.code == _GONE:
            raise ForgottenError(f"the API server has forgotten older {resource.plural}: {said.message}")
        raise KubeError(f"the watch of {resource.plural} failed: {said.message}", status=said.code)
    version = _decoded(event.object, _Any, resource.plural).metadata.resource_version
    item = None if event.type == "BOOKMARK" else _decoded(event.object, kind, resource.plural)
    return Change(event.type, item, version)


def _decoded(text: bytes | msgspec.Raw, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KubeError(f"the API server's answer about {what} cannot be read: {error}", status=200) from error


async def _lines(chunks: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
        if len(rest) > _LINE_LIMIT:
            raise KubeError(f"an event of a watch is longer than {_LINE_LIMIT} bytes", status=200)


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError, ssl.SSLError) as error:
        why = str(error) or type(error).__name__
        raise KubeAwayError(f"the API server {where} does not answer: {why}") from error
