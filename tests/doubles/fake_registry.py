"""A small image registry in this process, whose failures are arranged: tokens, redirects, broken connections."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Failure:
    """Of requests whose `METHOD path` fits: this status, or with 0 none at all. `times` of them."""

    of: str
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    times: int = 1


@dataclass
class FakeRegistry:
    blobs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """By repository and digest."""
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    """By repository and tag or digest."""
    asked: list[Asked] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    users: dict[str, str] = field(default_factory=dict)
    """With passwords; any makes it ask for tokens."""
    realm: str = ""
    """Where tokens are had; '' is this one."""
    readable: frozenset[str] = frozenset()
    """Repositories that tokens are given for to everybody."""
    blobs_at: str = ""
    """Where blobs are redirected to: `http://host:port`."""
    cuts: int = 0
    """So many blobs are cut off halfway."""
    cut_ranges: bool = True
    """Answers requests for the rest."""
    silent: str = ""
    """Requests whose `METHOD path` fits get no answer until the end."""
    is_silent: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    tells_digests: bool = True
    """Of manifests, in a header, as registries need not."""
    address: str = ""
    valid: set[str] = field(default_factory=set)
    """Tokens, as `scope scope`; given back as they are."""

    def paths(self, method: str) -> list[str]:
        return [each.path for each in self.asked if each.method == method]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeRegistry

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            super().handle()

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        fake = self.fake
        heads = {name.lower(): value for name, value in self.headers.items()}
        fake.asked.append(Asked(self.command, self.path, heads))
        if fake.silent and re.search(fake.silent, f"{self.command} {self.path}"):
            fake.is_silent.set()
            fake.over.wait()
            return
        for failure in fake.failures:
            if failure.times > 0 and re.search(failure.of, f"{self.command} {self.path}"):
                failure.times -= 1
                self.close_connection = True
                if failure.status:
                    self._answer(failure.status, failure.body, **failure.headers)
                return
        body = self.rfile.read(int(heads.get("content-length", 0)))
        url = urllib.parse.urlsplit(self.path)
        fields = urllib.parse.parse_qs(url.query)
        if url.path == "/token":
            self._token(heads, fields, body)
        elif fake.users and not self._allowed(url.path, heads):
            scheme = "https" if self.server.secure else "http"  # type: ignore[attr-defined]
            realm = fake.realm or f"{scheme}://{fake.address}/token"
            self._answer(401, **{"WWW-Authenticate": f'Bearer realm="{realm}",service="fake"'})
        elif url.path == "/v2/":
            self._answer(200)
        elif found := re.fullmatch(r"/v2/(.+)/(blobs|manifests)/(uploads/.*|[^/]+)", url.path):
            getattr(self, f"_{found[2]}")(found[1], found[3], fields, body, heads)
        elif url.path.startswith("/elsewhere/"):
            digest = url.path.removeprefix("/elsewhere/")
            self._blob(next(each[digest] for each in fake.blobs.values() if digest in each), heads)
        else:
            self._answer(404)

    def _token(self, heads: dict[str, str], fields: dict[str, list[str]], body: bytes) -> None:
        fake = self.fake
        scopes = fields.get("scope", [])
        if body:
            posted = urllib.parse.parse_qs(body.decode())
            scopes = posted["scope"][0].split()
            known = posted["refresh_token"][0] in fake.users.values()
        else:
            name, _, password = (
                base64.b64decode(heads.get("authorization", "").removeprefix("Basic ")).decode().partition(":")
            )
            known = bool(name) and fake.users.get(name) == password
            if name and not known:
                self._answer(401)
                return
        granted = [s for s in scopes if known or (s.split(":")[1] in fake.readable and s.endswith(":pull"))]
        token = base64.urlsafe_b64encode(" ".join(sorted(granted)).encode()).decode() + f".{len(fake.valid)}"
        fake.valid.add(token)
        self._answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _allowed(self, path: str, heads: dict[str, str]) -> bool:
        token = heads.get("authorization", "").removeprefix("Bearer ")
        if token not in self.fake.valid:
            return False
        scopes = base64.urlsafe_b64decode(token.partition(".")[0]).decode()
        found = re.match(r"/v2/(.+)/(?:blobs|manifests)/", path)
        needed = "pull" if self.command in {"GET", "HEAD"} else "push"
        if found is None:
            return True
        granted = [scope for scope in scopes.split() if scope.split(":")[1] == found[1]]
        return any(needed in scope for scope in granted)

    def _manifests(
        self, repository: str, version: str, _fields: dict[str, list[str]], body: bytes, heads: dict[str, str]
    ) -> None:
        manifests = self.fake.manifests
        if self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            manifests[repository, version] = manifests[repository, digest] = (heads["content-type"], body)
            self._answer(201, **{"Docker-Content-Digest": digest})
        elif (repository, version) in manifests:
            kind, content = manifests[repository, version]
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            told = {"Docker-Content-Digest": digest} if self.fake.tells_digests else {}
            self._answer(200, content, **{"Content-Type": kind}, **told)
        else:
            self._answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')

    def _blobs(
        self, repository: str, rest: str, fields: dict[str, list[str]], body: bytes, heads: dict[str, str]
    ) -> None:
        blobs = self.fake.blobs.setdefault(repository, {})
        if self.command == "POST":
            digest, source = fields.get("mount", [""])[0], fields.get("from", [""])[0]
            if digest in self.fake.blobs.get(source, {}):
                blobs[digest] = self.fake.blobs[source][digest]
                self._answer(201)
            else:
                self._answer(202, Location=f"/v2/{repository}/blobs/uploads/u?state=1")
        elif self.command == "PUT":
            digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
            if digest == fields["digest"][0]:
                blobs[digest] = body
            self._answer(201 if digest in blobs else 400)
        elif self.command == "DELETE":
            self._answer(204)
        elif rest not in blobs:
            self._answer(404)
        elif self.command == "GET" and self.fake.blobs_at:
            self._answer(307, Location=f"{self.fake.blobs_at}/elsewhere/{rest}")
        else:
            self._blob(blobs[rest], heads)

    def _blob(self, content: bytes, heads: dict[str, str]) -> None:
        status, part = 200, content
        if "range" in heads and self.fake.cut_ranges:
            start = int(heads["range"].removeprefix("bytes=").rstrip("-"))
            status, part = 206, content[start:]
        if self.command == "GET" and self.fake.cuts > 0:
            self.fake.cuts -= 1
            self.close_connection = True
            self._answer(status, part, cut=len(part) // 2)
        else:
            self._answer(status, part)

    def _answer(self, status: int, body: bytes = b"", *, cut: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    secure = False

    def handle_error(self, request: Any, client_address: Any) -> None: ...


@contextlib.contextmanager
def serving(
    fake: FakeRegistry | None = None, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[FakeRegistry]:
    """`host`: 0.0.0.0 is this machine, too, and no loopback address."""
    fake = fake or FakeRegistry()
    handler = type("Handler", (_Handler,), {"fake": fake})
    with _Server((host, 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            server.secure = True
        fake.address = f"{host}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield fake
        finally:
            fake.over.set()
            server.shutdown()
            thread.join()
