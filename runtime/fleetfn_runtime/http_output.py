"""The Publisher of http outputs: each event leaves as a binary CloudEvent in a request of its own; 2xx is success.

An answer that may be another one later (408, 425, 429, 5xx), or says that we are not known (401, 407), is an outage of
the output; any other one is about the event, which is refused for good. Redirects are not followed: a request of ours
goes where function.yaml says, with its headers, or nowhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple

from fleetfn.cloudevents import http as codec
from fleetfn.errors import EventError, FleetError, OutputDown, OutputError, OutputRefused
from fleetfn.invocation import Emit
from fleetfn_triggers.http_output import HttpOutput, shown_url
from fleetfn_triggers.secret import Resolve, Secret

from fleetfn_runtime.emit_lanes import EmitLanes

if TYPE_CHECKING:
    import httpcore

AT_ONCE = 16
"""Requests under way to one output."""

KEPT = 4.0
"""Seconds that an idle connection is kept: servers commonly close theirs after 5."""

READ = 64 * 1024
"""Bytes of an answer's body that are read, so that its connection can be used again; of a longer one it is closed."""

QUOTED = 200
"""Characters of an answer's body that a message quotes."""

SILENT = 1.0
"""Seconds that an output which does not answer is left alone: who waits for it need not find out one by one."""

AFTER = 60.0
"""Seconds that an output may keep us away by Retry-After."""

_UNKNOWN_TO_THEM = frozenset({401, 407})
_LATER = frozenset({408, 425, 429}) | _UNKNOWN_TO_THEM
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Headers = list[tuple[bytes, bytes]]


class _Target(NamedTuple):
    output: HttpOutput
    headers: Headers
    """Those of function.yaml, secrets in them."""
    shown: str
    room: asyncio.Semaphore


class _Answer(NamedTuple):
    status: int
    after: str
    location: str
    body: bytes


class HttpPublisher:
    """Used on one loop. `outputs`: by name."""

    def __init__(self, outputs: Mapping[str, HttpOutput], *, resolve: Resolve) -> None:
        """Raises FleetError: a secret's. Connects at the first event."""
        self._targets = {name: _target(name, output, resolve) for name, output in outputs.items()}
        self._pool: httpcore.AsyncConnectionPool | None = None
        self._lanes = EmitLanes()
        self._away_until: dict[str, tuple[float, str]] = {}

    def check(self, emit: Emit) -> None:
        self._request(emit)

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        return await self._lanes.publish(emits, self._send)

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def _send(self, emit: Emit) -> OutputError | None:
        try:
            target, headers, body = self._request(emit)
        except OutputRefused as error:
            return error
        async with target.room:
            until, why = self._away_until.get(emit.output, (0.0, ""))
            if time.monotonic() < until:
                return OutputDown(why)
            try:
                async with asyncio.timeout(target.output.timeout):
                    answer = await self._ask(target, headers, body)
            except TimeoutError:
                return self._away(emit, f"{target.shown} has not answered within {target.output.timeout:g} s")
            except OutputDown as error:
                return self._away(emit, error.message)
            except OutputRefused as error:
                return error
        return self._judge(emit, target, answer)

    def _away(self, emit: Emit, why: str, seconds: float = SILENT) -> OutputDown:
        self._away_until[emit.output] = (time.monotonic() + seconds, why)
        return OutputDown(why)

    def _judge(self, emit: Emit, target: _Target, answer: _Answer) -> OutputError | None:
        status = answer.status
        if 200 <= status < 300:  # noqa: PLR2004 - success
            return None
        said = f"{target.shown} answers {status}{_quoted(answer.body)}"
        if status in _LATER or status >= 500:  # noqa: PLR2004 - their failures
            hint = "check the secrets in the output's headers" if status in _UNKNOWN_TO_THEM else ""
            wait = _seconds(answer.after)
            return (
                self._away(emit, f"{said}, and asks to wait {wait:.0f} s", wait)
                if wait
                else OutputDown(said, hint=hint)
            )
        if 300 <= status < 400:  # noqa: PLR2004 - redirects
            hint = "redirects are not followed: write the URL they lead to"
            return OutputRefused(f'output "{emit.output}": {said}{_to(answer.location)}', hint=hint)
        return OutputRefused(f'output "{emit.output}": {said}')

    # One request

    async def _ask(self, target: _Target, headers: Headers, body: bytes) -> _Answer:
        """Raises OutputError."""
        import httpcore  # noqa: PLC0415 - most runs emit nothing, and this costs a start

        try:
            try:
                return await self._ask_once(target, headers, body)
            except (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError):
                # Most likely a connection that was kept, and that the server closed at the same moment.
                return await self._ask_once(target, headers, body)
        except httpcore.LocalProtocolError as error:
            raise OutputRefused(f"{target.shown}: the event cannot be sent over HTTP: {error}") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            why = str(error) or type(error).__name__
            raise OutputDown(f"{target.shown} cannot be reached: {why}") from error
        except (OSError, ssl.SSLError) as error:
            raise OutputDown(f"{target.shown} cannot be reached: {error}") from error

    async def _ask_once(self, target: _Target, headers: Headers, body: bytes) -> _Answer:
        output = target.output
        limits = dict.fromkeys(("connect", "read", "write", "pool"), output.timeout)
        stream = self._client().stream(
            output.method, output.url, headers=headers, content=body, extensions={"timeout": limits}
        )
        async with stream as response:
            said = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            answer = _Answer(response.status, said.get(b"retry-after", ""), said.get(b"location", ""), b"")
            with contextlib.suppress(Exception):  # the status has decided already
                answer = answer._replace(body=await _start(response.aiter_stream()))
        return answer

    def _client(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            import httpcore  # noqa: PLC0415 - as above

            secure = any(target.output.url.startswith("https:") for target in self._targets.values())
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=ssl.create_default_context() if secure else None,  # the machine's own authorities
                max_connections=None,  # each output has room of its own
                max_keepalive_connections=AT_ONCE,
                keepalive_expiry=KEPT,
            )
        return self._pool

    def _request(self, emit: Emit) -> tuple[_Target, Headers, bytes]:
        """Raises OutputRefused."""
        target = self._targets.get(emit.output)
        if target is None:
            raise OutputRefused(f'there is no output "{emit.output}"', hint="name it under spec.outputs")
        try:
            own, body = codec.encode_binary(emit.event)
            given = {name for name, _ in target.headers}
            headers = [each for each in _encoded(own.items()) if each[0] not in given]
        except EventError as error:
            raise OutputRefused(f'output "{emit.output}": {error.message}', hint=error.hint) from error
        return target, [*target.headers, *headers], body


def _target(name: str, output: HttpOutput, resolve: Resolve) -> _Target:
    given: dict[str, str] = {"user-agent": "fleetfn"}
    for header, value in output.headers.items():
        given[header.lower()] = resolve(value) if isinstance(value, Secret) else value
    try:
        headers = _encoded(given.items())
    except EventError as error:
        raise FleetError(f'output "{name}": {error.message}', hint="look for line ends in the secret") from None
    return _Target(output, headers, shown_url(output.url), asyncio.Semaphore(AT_ONCE))


def _encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    """Raises EventError for what no HTTP header can be; it does not quote the value, which may be a secret."""
    found = []
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise EventError(f"the header {name!a:.100} cannot be sent: its name or value is not allowed in HTTP")
        found.append((name.encode("ascii"), value.strip(" \t").encode("latin-1")))
    return found


async def _start(chunks: object) -> bytes:
    """Of an answer's body, as far as READ."""
    body = b""
    async for chunk in chunks:  # type: ignore[attr-defined]  # httpcore's stream of bytes
        body += chunk
        if len(body) > READ:
            break
    return body


def _quoted(body: bytes) -> str:
    text = " ".join(body.decode("utf-8", "replace").split())
    return f": {text[:QUOTED]}{'...' if len(text) > QUOTED else ''}" if text else ""


def _to(location: str) -> str:
    return f", to {shown_url(location)}" if location else ""


def _seconds(after: str) -> float:
    """Of a Retry-After, within bounds; 0: none, or one that cannot be read."""
    try:
        wait = float(after) if after.strip().isdecimal() else parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), AFTER)
