"""Requests to one registry: secure where it can be, credentials for its own ears alone, and again after what passes."""

from __future__ import annotations

import contextlib
import functools
import http.cookiejar
import random
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import certifi
import httpx

from fleetfn_builder.builder import Access
from fleetfn_builder.references import HUB
from fleetfn_builder.registry_auth import Challenge, Credentials, Passes, find, may_be_insecure, parse_challenge
from fleetfn_builder.registry_errors import CERTIFICATES, UNAUTHORIZED, RegistryError, broken, refused, whole

HUBS_HOST = "registry-1.docker.io"
"""Docker's own default: images named after docker.io are served by it."""

TIMEOUT = httpx.Timeout(connect=10, read=120, write=60, pool=300)
"""Seconds without a byte; a registry hashes a large layer before it answers."""

_OK = 200
_chance = random.Random()  # threads of ours draw from it: the common one may be somebody's seeded sequence
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often something is tried, and how long is waited in between (seconds)."""

    attempts: int = 5
    first: float = 0.5
    longest: float = 30
    """Also of what a registry may ask for."""
    sleep: Callable[[float], None] = time.sleep

    def __call__(self, do: Callable[[], _Result]) -> _Result:
        """Raises the last RegistryError."""
        for attempt in range(1, self.attempts + 1):
            try:
                return do()
            except RegistryError as error:
                pause = min(self.longest, self.first * 2 ** (attempt - 1)) * _chance.uniform(0.8, 1)
                if error.after is not None:
                    pause = error.after
                if not error.again or attempt == self.attempts or pause > self.longest:
                    raise
            self.sleep(pause)
        raise AssertionError  # the last attempt returns or raises


USUAL = Patience()


class Host:
    """`name` as in references, with its port. Connects when first asked."""

    def __init__(self, name: str, access: Access, patience: Patience = USUAL) -> None:
        self.name = name
        self.patience = patience
        self._access = access
        self._lenient = may_be_insecure(name, access)
        self._passes = Passes(None, self._fetch_token)
        self._client: httpx.Client | None = None
        self._base = httpx.URL()
        self._lock = threading.Lock()

    def close(self) -> None:
        client, self._client = self._client, None  # not by the lock: who connects may hold it for long
        if client is not None:
            client.close()

    def ask(self, method: str, where: str | httpx.URL, fine: Collection[int], what: str, **more: Any) -> httpx.Response:
        """As send, patiently, and the whole body read. For short ones."""

        def once() -> httpx.Response:
            with self.send(method, where, fine, what, **more) as response:
                return response.whole()

        return self.patience(once)

    def send(
        self,
        method: str,
        where: str | httpx.URL,
        fine: Collection[int],
        what: str,
        *,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        content: Callable[[], Iterable[bytes]] | bytes | None = None,
    ) -> Reply:
        """Once; to be closed. `where`: a path, or what `location` gave. `what` we want, for errors: "push to x".

        Raises RegistryError for a status that is not `fine`.
        """
        client = self._connected()
        url = self._base.join(where)
        for last in (False, True):
            heads = dict(headers or {})
            if self._is_own(url) and (header := self._passes.header(scopes)):
                heads["authorization"] = header
            body = content() if callable(content) else content
            try:
                request = client.build_request(method, url, headers=heads, content=body)
                response = client.send(request, stream=True, follow_redirects=method in {"GET", "HEAD"})
            except (httpx.RequestError, httpx.InvalidURL) as error:
                raise broken(self.name, error) from error
            if response.status_code in fine:
                return Reply(self.name, response)
            with contextlib.closing(response):
                if response.status_code != UNAUTHORIZED or last or not self._is_own(response.url):
                    known = heads.get("authorization", "").startswith("Bearer")
                    raise refused(self.name, response, what, self._passes.credentials, known=known)
            self._passes.refused(scopes)
            self._passes.learn(parse_challenge(response.headers.get_list("www-authenticate")))
        raise AssertionError  # the second round returns or raises

    def location(self, response: httpx.Response) -> httpx.URL:
        """Where a registry sends us to upload. Raises RegistryError where others could read along."""
        url = response.url.join(response.headers.get("location", ""))
        if (url.host, url.port) == (self._base.host, self._base.port):
            return url.copy_with(scheme=self._base.scheme)  # behind a proxy it may not know that it is spoken to by TLS
        if url.scheme != "https" and not may_be_insecure(url.netloc.decode(), self._access):
            raise RegistryError(
                f"{self.name} sends uploads to {url.host} by plain HTTP",
                hint=f"Let it say https, or name {url.netloc.decode()} insecure.",
            )
        return url

    def _is_own(self, url: httpx.URL) -> bool:
        mine = self._base
        return (url.scheme, url.host, url.port) == (mine.scheme, mine.host, mine.port)

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._passes.credentials = find(self.name, self._access)
                self._client = self._connect()
            return self._client

    def _connect(self) -> httpx.Client:
        host = HUBS_HOST if self.name == HUB else self.name
        failure: Exception = httpx.ConnectError("")
        for scheme, context in self._ways():
            client = _client(self.name, context)
            self._base = httpx.URL(f"{scheme}://{host}/v2/")
            try:
                with client.stream("GET", self._base) as response:
                    whole(response)
            except httpx.RequestError as error:
                client.close()
                failure = error
                continue
            self._passes.learn(parse_challenge(response.headers.get_list("www-authenticate")))
            return client
        raise broken(self.name, failure) from failure

    def _ways(self) -> Iterator[tuple[str, ssl.SSLContext | bool]]:
        """The first that is answered is taken."""
        if self._lenient:
            yield "https", False
            yield "http", False
        else:
            yield "https", _trusted(self.name)

    def _fetch_token(
        self, challenge: Challenge, scopes: Sequence[str], credentials: Credentials | None
    ) -> Mapping[str, Any]:
        try:
            url = self._base.join(challenge.realm)
        except httpx.InvalidURL as error:
            raise broken(self.name, error) from error
        where = url.netloc.decode()
        lenient = may_be_insecure(where, self._access)
        if url.scheme != "https" and credentials and not lenient:
            raise RegistryError(
                f"{self.name} wants credentials to be sent to {where}, by plain HTTP",
                hint=f"Let it say https, or name {where} insecure.",
            )
        try:
            with _client(where, False if lenient else _trusted(where)) as client:
                request = _token_request(client, url, challenge, scopes, credentials)
                with contextlib.closing(client.send(request, stream=True)) as response:
                    if response.status_code != _OK:
                        what = f"use {', '.join(scopes) or self.name}"
                        raise refused(self.name, response, what, credentials, known=False)
                    told = whole(response).json()
        except httpx.RequestError as error:
            raise broken(where, error) from error
        except ValueError as error:
            raise broken(where, error) from error
        return told if isinstance(told, dict) else {}


class Reply:
    """A response whose body may still be on its way."""

    def __init__(self, host: str, response: httpx.Response) -> None:
        self.response = response
        self._host = host
        self._chunks = response.iter_raw()

    def chunk(self) -> bytes:
        """Empty at the end. Raises RegistryError where the connection breaks."""
        try:
            return next(self._chunks, b"")
        except httpx.RequestError as error:
            raise broken(self._host, error) from error

    def whole(self) -> httpx.Response:
        try:
            return whole(self.response)
        except httpx.RequestError as error:
            raise broken(self._host, error) from error

    def close(self) -> None:
        self.response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _token_request(
    client: httpx.Client, url: httpx.URL, challenge: Challenge, scopes: Sequence[str], credentials: Credentials | None
) -> httpx.Request:
    service = {"service": challenge.service} if challenge.service else {}
    if credentials is not None and credentials.identity:
        grant = {"grant_type": "refresh_token", "refresh_token": credentials.identity, "client_id": "fleetfn"}
        return client.build_request("POST", url, data={**grant, **service, "scope": " ".join(scopes)})
    heads = {"authorization": credentials.basic} if credentials else {}
    fields = httpx.QueryParams([*url.params.multi_items(), *service.items(), *(("scope", each) for each in scopes)])
    return client.build_request("GET", url, params=fields, headers=heads)


def _client(host: str, verify: ssl.SSLContext | bool) -> httpx.Client:  # noqa: FBT001 - as httpx has it
    return httpx.Client(
        verify=verify,
        timeout=TIMEOUT,
        limits=httpx.Limits(max_connections=16),
        headers={"user-agent": "fleetfn", "accept-encoding": "identity"},
        # Some registries take whoever keeps cookies for a browser, and want more of it.
        cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        trust_env=not may_be_insecure(host, Access()),  # no proxy leads to this machine
    )


@functools.lru_cache(maxsize=16)
def _trusted(host: str) -> ssl.SSLContext:
    """Authorities of this machine, those that come with httpx, and those that Docker knows for the host."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    for each in sorted((CERTIFICATES / host).glob("*.crt")):
        context.load_verify_locations(each)
    return context
