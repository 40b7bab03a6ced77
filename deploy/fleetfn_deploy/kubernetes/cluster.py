"""A namespace of a cluster, by the calls that a deploy needs: get, list, apply, create, delete, logs. Objects are JSON.

A thin client of our own on httpx: the Python client's calls block a thread each, which cannot be ended, and check
objects that the cluster's own version knows better. Everything that goes wrong is a TargetError in words.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import msgspec
from fleetfn_spec.cluster import MANAGER

from fleetfn_deploy.kubernetes import kinds, refusals
from fleetfn_deploy.kubernetes.access import Access
from fleetfn_deploy.kubernetes.kinds import Kind, Object
from fleetfn_deploy.kubernetes.refusals import Asked, RefusedByClusterError, UnreachableError

if TYPE_CHECKING:
    import httpx

_CONNECT = 10.0
"""Seconds until a server that says nothing counts as unreachable."""
_ANSWER = 60.0
"""Seconds for one answer. Webhooks of the cluster, which the server waits for, may take 30."""
_TRIES = 4
_REST = 1.0
"""Seconds before an answer that says "not now" is asked for again, where it does not say how long itself."""
_PASSING = frozenset({429, 500, 502, 503, 504})
_PAGE = 500

_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


class Cluster:
    """Use as a context manager. Every call raises TargetError: UnreachableError, RefusedByClusterError."""

    def __init__(
        self, access: Access, namespace: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """`namespace` None: the context's own. `transport`: something else than the network, for tests."""
        import httpx  # noqa: PLC0415 - only where there is a cluster

        self.access = access
        self.namespace = namespace or access.namespace
        self._http = httpx.AsyncClient(
            base_url=access.server,
            verify=access.verify,
            proxy=access.proxy,
            transport=transport,
            timeout=httpx.Timeout(_ANSWER, connect=_CONNECT),
            headers={"accept": "application/json", "user-agent": MANAGER},
        )
        self._extensions = {"sni_hostname": access.server_name} if access.server_name else {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def __str__(self) -> str:
        return str(self.access)

    # objects

    async def get(self, kind: Kind, name: str, *, namespace: str | None = None) -> Object | None:
        """None: there is none of that name (or nothing of that kind)."""
        within = namespace or self.namespace
        try:
            return await self._ask(Asked("get", kind, within, name), "GET", kind.path(within, name))
        except RefusedByClusterError as error:
            if error.status == refusals.NOT_FOUND:
                return None
            raise

    async def list(
        self, kind: Kind, *, labels: str = "", fields: str = "", namespace: str | None = None
    ) -> list[Object]:
        """All that fit the selectors; none where the cluster does not know the kind. `namespace` "": of all of them."""
        within = self.namespace if namespace is None else namespace
        path = kind.path(within)
        found: list[Object] = []
        more = ""
        while True:
            query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE), "continue": more}
            given = {name: value for name, value in query.items() if value}
            try:
                page = await self._ask(Asked("list", kind, within), "GET", path, query=given)
            except RefusedByClusterError as error:
                if error.status == refusals.NOT_FOUND or (
                    error.status == refusals.FORBIDDEN and kind in kinds.OPTIONAL
                ):
                    return []
                raise
            found += ({"apiVersion": kind.api, "kind": kind.name, **each} for each in page["items"])
            more = page["metadata"].get("continue") or ""
            if not more:
                return found

    async def apply(
        self, thing: Object, *, manager: str = MANAGER, force: bool = False, dry_run: bool = False
    ) -> Object:
        """Server-side apply: fields of `thing` are this manager's from now on, what it no longer names goes.

        Returns the whole object as it is (in a dry run: would be).
        """
        kind = kinds.of(thing)
        query = {"fieldManager": manager, "force": "true" if force else "false"}
        return await self._ask(
            Asked("patch", kind, self.namespace, kinds.name_of(thing)),
            "PATCH",
            kind.path(self.namespace, kinds.name_of(thing)),
            query=query | ({"dryRun": "All"} if dry_run else {}),
            body=thing,
            content=_APPLY,
        )

    async def create(self, thing: Object, *, kind: Kind | None = None) -> Object:
        """RefusedByClusterError with reason AlreadyExists where there is one of that name."""
        kind = kind or kinds.of(thing)
        return await self._ask(
            Asked("create", kind, self.namespace, thing["metadata"].get("name", "")),
            "POST",
            kind.path(self.namespace),
            query={"fieldManager": MANAGER},
            body=thing,
        )

    async def replace(self, thing: Object) -> Object:
        """As a whole. With a resourceVersion that is no longer the object's: RefusedByClusterError, reason Conflict."""
        kind = kinds.of(thing)
        name = kinds.name_of(thing)
        path = kind.path(self.namespace, name)
        query = {"fieldManager": MANAGER}
        return await self._ask(Asked("update", kind, self.namespace, name), "PUT", path, query=query, body=thing)

    async def merge(self, kind: Kind, name: str, patch: Mapping[str, Any]) -> Object:
        """A merge patch: a member that is null goes."""
        asked = Asked("patch", kind, self.namespace, name)
        path = kind.path(self.namespace, name)
        return await self._ask(asked, "PATCH", path, query={"fieldManager": MANAGER}, body=patch, content=_MERGE)

    async def delete(self, kind: Kind, name: str, *, grace: int | None = None) -> bool:
        """Was there one? What it owns goes after it, in the background. `grace`: seconds for a pod to end."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        asked = Asked("delete", kind, self.namespace, name)
        try:
            await self._ask(asked, "DELETE", kind.path(self.namespace, name), body=options)
        except RefusedByClusterError as error:
            if error.status == refusals.NOT_FOUND:
                return False
            raise
        return True

    # the rest

    async def version(self) -> tuple[int, int]:
        """Of the server: (1, 35)."""
        found = await self._ask(Asked("get", kinds.NAMESPACE, "", "version"), "GET", "/version")
        return int(found["major"]), int("".join(filter(str.isdigit, found["minor"])) or 0)

    async def serves(self, kind: Kind) -> bool:
        """Does the cluster know this kind, in this version?"""
        path = f"/apis/{kind.api}" if kind.group else f"/api/{kind.api}"
        try:
            found = await self._ask(Asked("get", kind, ""), "GET", path)
        except RefusedByClusterError as error:
            if error.status == refusals.NOT_FOUND:
                return False
            raise
        return any(each["name"] == kind.plural for each in found["resources"])

    async def read(self, kind: Kind, path: str, *, labels: str = "") -> Object:
        """What has a path of its own."""
        asked = Asked("get", kind, self.namespace, path.rpartition("/")[2])
        return await self._ask(asked, "GET", path, query={"labelSelector": labels})

    async def log(
        self,
        pod: str,
        container: str,
        *,
        follow: bool = False,
        since: str | None = None,
        tail: int | None = None,
        previous: bool = False,
    ) -> AsyncIterator[bytes]:
        """Lines, each with the time it was written in front. `since`: RFC 3339. `previous`: of the container before."""
        query = {"container": container, "timestamps": "true", "follow": "true" if follow else "false"}
        query |= {"sinceTime": since} if since else {}
        query |= {"tailLines": str(tail)} if tail is not None else {}
        query |= {"previous": "true"} if previous else {}
        asked = Asked("get", kinds.POD, self.namespace, pod)
        path = kinds.POD.path(self.namespace, pod) + "/log"
        request = self._request("GET", path, query)
        if follow:
            request.extensions["timeout"]["read"] = None
        with self._reached():
            response = await self._http.send(request, stream=True)
            try:
                if response.is_error:
                    await response.aread()
                    raise self._refused(asked, response)
                async for line in _lines(response.aiter_raw()):
                    yield line
            finally:
                await response.aclose()

    # how

    async def _ask(
        self,
        asked: Asked,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: str = _JSON,
    ) -> Object:
        """The answer's JSON. Tried again where the server says that it cannot answer now."""
        encoded = None if body is None else msgspec.json.encode(body)
        for tried in range(1, _TRIES + 1):
            with self._reached():
                response = await self._http.send(self._request(method, path, query, encoded, content))
            if response.is_success:
                return msgspec.json.decode(response.content, type=Object)
            if response.status_code not in _PASSING or tried == _TRIES:
                break
            await asyncio.sleep(_rest(response))
        raise self._refused(asked, response)

    def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        content: str = _JSON,
    ) -> httpx.Request:
        headers = {"content-type": content} if body is not None else {}
        if authorization := self.access.authorization():
            headers["authorization"] = authorization
        return self._http.build_request(
            method, path, params=query, content=body, headers=headers, extensions=self._extensions
        )

    def _refused(self, asked: Asked, response: httpx.Response) -> RefusedByClusterError:
        try:
            answer = msgspec.json.decode(response.content, type=Object)
        except msgspec.DecodeError:
            answer = {}
        return refusals.refused(asked, response.status_code, answer, f"the cluster of {self.access}")

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        import httpx  # noqa: PLC0415 - as above

        try:
            yield
        except httpx.TransportError as error:
            raise UnreachableError(
                f"cannot reach the cluster of {self.access}: {str(error) or type(error).__name__}",
                hint="Is it running, and is this machine in its network? `kubectl version` asks the same address.",
            ) from error


def _rest(response: httpx.Response) -> float:
    said = response.headers.get("retry-after", "")
    return min(float(said), 5.0) if said.isdigit() else _REST


async def _lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest
