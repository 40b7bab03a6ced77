"""The control API of a node, or of a cluster's gateway, for Python: plain calls, on nothing but the standard library.

A node is reached by its unix socket, a gateway by whatever connects to it (`Dial`). Lines (a deploy's steps, logs,
progress of sending) come as `Lines`: iterate, and close when done early.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from fleetfn.errors import TargetError
from fleetfn_spec import control

if TYPE_CHECKING:
    from fleetfn_spec.gateway import Fired, FireRequest, GatewayStatus, Redrive
    from fleetfn_triggers.inbox import Row, Which

T = TypeVar("T")

QUICK = 30.0
"""Seconds that a call which only looks something up may take."""

_BLOCK = 64 * 1024
_DEPLOY_LINE = msgspec.json.Decoder(control.DeployLine).decode
_SEND_LINE = msgspec.json.Decoder(control.SendLine).decode


class NotRunningError(TargetError):
    """No node answers at the socket."""


class RefusedError(TargetError):
    """The node said no. `problems`: all of them, where a deploy is wrong in several places; `status` as in HTTP."""

    def __init__(self, refusal: control.Refusal, status: int = 400) -> None:
        super().__init__(refusal.message, hint=refusal.hint)
        self.problems = refusal.problems
        self.status = status


Dial = Callable[[float | None], socket.socket]
"""Connects, within so many seconds for each wait of the connection (None: any). Raises TargetError."""


@dataclass(frozen=True, slots=True)
class Side:
    """Who is at the other end, for the words of errors."""

    name: str
    """`node 'default'`."""
    kind: str
    """`the node`."""
    slow: str
    """What to look at where it does not answer in time."""
    gone: str
    """What to look at where it went away before it had answered."""


class ControlClient:
    """Every method raises TargetError: NotRunningError, RefusedError, or the reason why an answer was cut off."""

    def __init__(self, dial: Dial, side: Side) -> None:
        self._dial = dial
        self._side = side

    # functions

    def functions(self) -> list[control.FunctionStatus]:
        return self._get("/v1/functions", list[control.FunctionStatus])

    def function(self, name: str) -> control.FunctionStatus:
        return self._get(_function(name), control.FunctionStatus)

    def deploy(
        self, request: control.DeployRequest, archive: Iterable[bytes] = (), *, timeout: float | None = None
    ) -> Lines[control.DeployLine]:
        """Send the request, then the gzipped tar; steps come while they happen."""
        body = _chain(msgspec.json.encode(request) + b"\n", archive)
        return self._stream("POST", "/v1/functions", _DEPLOY_LINE, body=body, timeout=timeout)

    def delete(self, name: str, *, keep_state: bool) -> None:
        self._call("DELETE", f"{_function(name)}?state={'keep' if keep_state else 'delete'}", timeout=None)

    def revisions(self, name: str) -> list[control.RevisionInfo]:
        return self._get(f"{_function(name)}/revisions", list[control.RevisionInfo])

    def rollback(self, name: str, digest: str | None = None) -> Lines[control.DeployLine]:
        """Back to `digest`; None: to the revision that served before."""
        body = msgspec.json.encode({"digest": digest})
        return self._stream("POST", f"{_function(name)}/rollback", _DEPLOY_LINE, body=[body])

    def pause(self, name: str, triggers: Sequence[str] = ()) -> control.FunctionStatus:
        """No triggers named: all."""
        return self._post(f"{_function(name)}/pause", {"triggers": list(triggers)}, control.FunctionStatus)

    def resume(self, name: str, triggers: Sequence[str] = ()) -> control.FunctionStatus:
        return self._post(f"{_function(name)}/resume", {"triggers": list(triggers)}, control.FunctionStatus)

    def fire(self, name: str, request: FireRequest) -> Fired:
        """Fire a clock by hand."""
        from fleetfn_spec.gateway import Fired  # noqa: PLC0415 - few calls need it

        return self._post(f"{_function(name)}/fire", request, Fired)

    def invoke(self, name: str, request: control.InvokeRequest) -> control.InvokeReply:
        return self._post(f"{_function(name)}/invoke", request, control.InvokeReply, timeout=None)

    def send(
        self, name: str, trigger: str, items: Iterable[control.SendItem], *, batch: int = 1
    ) -> Lines[control.SendLine]:
        """Items are taken one by one while progress comes back; raising inside `items` ends the sending.

        `batch`: so many go at once, where nobody waits for each to arrive: several times as fast.
        """
        path = f"{_function(name)}/send?{urlencode({'trigger': trigger})}"
        body = _batches((msgspec.json.encode(item) + b"\n" for item in items), batch)
        return self._stream("POST", path, _SEND_LINE, body=body)

    def logs(
        self,
        name: str,
        *,
        follow: bool = False,
        since: float | None = None,
        level: str | None = None,
        key: str | None = None,
    ) -> Lines[bytes]:
        """Log lines as they are (JSON). `since`: Unix seconds."""
        query = {"follow": "true" if follow else None, "since": since, "level": level, "key": key}
        return self._stream("GET", f"{_function(name)}/logs{_query(query)}", bytes)

    def states(self, name: str, *, after: str | None = None, limit: int = 1000) -> control.StatePage:
        return self._get(f"{_function(name)}/state{_query({'after': after, 'limit': limit})}", control.StatePage)

    def state(self, name: str, key: str) -> control.StateEntry:
        return self._get(f"{_function(name)}/state/{quote(key, safe='')}", control.StateEntry)

    def gateway(self) -> GatewayStatus:
        """What waits, by function and trigger: of a cluster's gateway."""
        from fleetfn_spec.gateway import GatewayStatus  # noqa: PLC0415 - few calls need it

        return self._get("/v1/gateway", GatewayStatus)

    # dead letters

    def dead(
        self,
        *,
        function: str | None = None,
        trigger: str | None = None,
        key: str | None = None,
        reason: str | None = None,
        before: float | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """In order of sequence. `before`: given up before this Unix time; `after`: a sequence."""
        from fleetfn_triggers.inbox import Row  # noqa: PLC0415 - few calls need it

        query = {
            "function": function,
            "trigger": trigger,
            "key": key,
            "reason": reason,
            "before": before,
            "after": after,
            "limit": limit,
        }
        return self._get(f"/v1/dlq{_query(query)}", list[Row])

    def dead_letter(self, sequence: int) -> Row:
        from fleetfn_triggers.inbox import Row  # noqa: PLC0415 - as above

        return self._get(f"/v1/dlq/{sequence}", Row)

    def redrive(self, redrive: Redrive) -> int:
        """How many were (in a dry run: would be) redriven. With a rate it takes as long as that says."""
        return self._post("/v1/dlq/redrive", redrive, dict[str, int], timeout=None)["redriven"]

    def discard(self, which: Which) -> int:
        return self._post("/v1/dlq/discard", which, dict[str, int], timeout=None)["discarded"]

    # how

    def _get(self, path: str, type_: type[T], *, timeout: float | None = QUICK) -> T:
        return self._decode(self._call("GET", path, timeout=timeout), type_)

    def _post(self, path: str, value: object, type_: type[T], *, timeout: float | None = QUICK) -> T:
        return self._decode(self._call("POST", path, msgspec.json.encode(value), timeout=timeout), type_)

    def _call(self, method: str, path: str, body: bytes = b"", *, timeout: float | None = QUICK) -> bytes:
        with self._open(timeout) as wire:
            wire.ask(method, path, [body] if body else None)
            response = wire.answer()
            return wire.read(response)

    def _stream(
        self,
        method: str,
        path: str,
        decode: Callable[[bytes], T],
        *,
        body: Iterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> Lines[T]:
        wire = self._open(timeout)
        try:
            wire.ask(method, path, body)
            return Lines(wire, wire.answer(), decode)
        except BaseException:
            wire.close()
            raise

    def _open(self, timeout: float | None) -> _Wire:
        return _Wire(self._dial(timeout), self._side)

    def _decode(self, body: bytes, type_: type[T]) -> T:
        return _readable(self._side, msgspec.json.Decoder(type_).decode, body)


class NodeClient(ControlClient):
    """With what only a node has."""

    def __init__(self, path: Path, *, name: str = "default") -> None:
        side = Side(
            f"node {name!r}",
            "the node",
            slow="Its log tells what it does: see `log` in `fn version -o json`.",
            gone="If nobody stopped it, the end of node.log in its data folder tells why.",
        )
        super().__init__(lambda timeout: _connect(path, name, timeout), side)

    def node(self, *, timeout: float = QUICK) -> control.NodeInfo:
        return self._get("/v1/node", control.NodeInfo, timeout=timeout)

    def stop(self) -> None:
        """Ask it to drain and exit; returns at once."""
        self._call("POST", "/v1/node/stop")


def _connect(path: Path, name: str, timeout: float | None) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(str(path))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise _not_running(name) from error
    except OSError as error:
        sock.close()
        raise TargetError(f"cannot reach node {name!r} at {path}: {error}") from error
    return sock


def _readable(side: Side, decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TargetError(
            f"{side.name} gave an answer that this fn cannot read: {error}",
            hint="Use the same version of fleetfn on both sides; `fn version` shows them.",
        ) from error


class Lines(Generic[T]):
    """JSON lines of an answer that is still being written. Ends early with TargetError."""

    def __init__(self, wire: _Wire, response: http.client.HTTPResponse, decode: Callable[[bytes], T]) -> None:
        self._wire = wire
        self._response = response
        self._decode = decode
        self._rest = b""
        self._lines: Iterator[bytes] = iter(())

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        line = next((line for line in self._lines if line), None)
        while line is None:
            block = self._wire.read1(self._response)
            if not block and not self._rest:
                self._wire.raise_problem_of_sender()
                raise StopIteration
            *lines, self._rest = (self._rest + block).split(b"\n") if block else (self._rest, b"")
            self._lines = iter(lines)
            line = next((line for line in self._lines if line), None)
        return _readable(self._wire.side, self._decode, line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it from any thread: a read under way ends, too."""
        self._wire.close()


class _Wire:
    """One connection for one call, with the errors of sockets and HTTP told as TargetError."""

    def __init__(self, sock: socket.socket, side: Side) -> None:
        self.side = side
        self._problem: BaseException | None = None
        self._closed = False
        self._sock = sock
        self._http = http.client.HTTPConnection("node")
        self._http.sock = self._sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, method: str, path: str, body: Iterable[bytes] | None) -> None:
        """Send the request; a body that is more than one block goes out on a thread, while the answer is read."""
        try:
            self._http.putrequest(method, path, skip_accept_encoding=True)
            self._http.putheader(control.API_HEADER, control.API)
            if isinstance(body, list):
                whole = b"".join(body)
                self._http.putheader("content-type", "application/json")
                self._http.putheader("content-length", str(len(whole)))
                self._http.endheaders(whole)
                return
            if body is not None:
                self._http.putheader("transfer-encoding", "chunked")
            self._http.endheaders()
        except BrokenPipeError:
            return  # it has answered already
        except OSError as error:
            raise self._lost(error) from error
        if body is not None:
            threading.Thread(target=self._send, args=(body,), name="fn-send", daemon=True).start()

    def _send(self, body: Iterable[bytes]) -> None:
        try:
            for block in body:
                self._sock.sendall(b"%x\r\n%b\r\n" % (len(block), block))
            self._sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer tells why
        except BaseException as problem:  # noqa: BLE001 - raised again where the answer is read
            if not self._closed:
                self._problem = problem
                self._sock.shutdown(socket.SHUT_WR)

    def answer(self) -> http.client.HTTPResponse:
        try:
            response = self._http.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.raise_problem_of_sender()
            raise self._lost(error) from error
        self._check_api(response)
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RefusedError(self._refusal(response), response.status)
        return response

    def read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost(error) from error

    def read1(self, response: http.client.HTTPResponse) -> bytes:
        """What has arrived, at least one byte; b"" at the end (or once closed on this side)."""
        try:
            return b"" if self._closed else response.read1(_BLOCK)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            if self._closed:
                return b""
            self.raise_problem_of_sender()
            raise self._lost(error) from error

    def raise_problem_of_sender(self) -> None:
        if self._problem is not None:
            raise self._problem

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with contextlib.suppress(OSError):  # the other side was quicker
                self._sock.shutdown(socket.SHUT_RDWR)
            self._http.close()
            self._sock.close()

    def _check_api(self, response: http.client.HTTPResponse) -> None:
        theirs = response.headers.get(control.API_HEADER)
        if theirs is None or _major(theirs) == _major(control.API):
            return
        older = "fn" if _major(control.API) < _major(theirs) else self.side.kind
        raise TargetError(
            f"this fn speaks control API {control.API}, {self.side.name} speaks {theirs}",
            hint=f"Update {older}: both come from the package fleetfn, and what runs keeps its version.",
        )

    def _refusal(self, response: http.client.HTTPResponse) -> control.Refusal:
        body = self.read(response)
        try:
            return msgspec.json.decode(body, type=control.Refusal)
        except msgspec.DecodeError:
            text = body[:200].decode("utf-8", "replace").strip()
            return control.Refusal(f"{self.side.name} answered {response.status}: {text or response.reason}")

    def _lost(self, error: Exception) -> TargetError:
        if isinstance(error, TimeoutError):
            return TargetError(
                f"{self.side.name} did not answer within {self._sock.gettimeout():.0f} s", hint=self.side.slow
            )
        return TargetError(
            f"{self.side.name} went away before it had answered ({type(error).__name__})", hint=self.side.gone
        )


def _not_running(name: str) -> NotRunningError:
    option = "" if name == "default" else f" -n {name}"
    return NotRunningError(f"node {name!r} is not running", hint=f"Start it: fn up{option}")


def _function(name: str) -> str:
    return f"/v1/functions/{quote(name, safe='')}"


def _query(values: dict[str, Any]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _major(version: str) -> int:
    major = version.split(".", 1)[0]
    return int(major) if major.isdigit() else -1


def _batches(blocks: Iterator[bytes], count: int) -> Iterator[bytes]:
    """Blocks joined by `count`. What came before a block that raises is handed on first."""
    waiting: list[bytes] = []
    try:
        for block in blocks:
            waiting.append(block)
            if len(waiting) >= count:
                yield b"".join(waiting)
                waiting = []
    except Exception:
        if waiting:
            yield b"".join(waiting)
        raise
    if waiting:
        yield b"".join(waiting)


def _chain(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    yield first
    yield from (block for block in rest if block)
