"""A node's control API on a real unix socket, answering what a test tells it to.

`answers[(method, path)]` is a value (sent as JSON), a `Refused`, a list of values (JSON lines), or a callable that
gets the request's `Asked` and returns one of these. What was asked is kept in `asked`.
"""

import contextlib
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec
from fleetfn_spec import control
from threaded_server import CallersMayLeave


@dataclass
class Refused:
    status: int
    message: str
    hint: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass
class Lines:
    """JSON lines; `cut`: the connection ends without the end of the answer."""

    values: object
    cut: bool = False


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    blocks: object
    body: bytes = b""

    def json(self):
        return msgspec.json.decode(self.body)


class FakeNode:
    def __init__(self, socket_path):
        self.socket = socket_path
        self.api = control.API
        self.answers = {}
        self.asked = []
        socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._server = _Server(str(socket_path), _Handler)
        self._server.node = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def last(self, method=None):
        return next(asked for asked in reversed(self.asked) if method in (None, asked.method))

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()


class _Server(CallersMayLeave, socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def address_string(self):
        return "unix"

    def _answer(self):
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, unquote(url.path), query, headers, self._blocks())
        node = self.server.node
        node.asked.append(asked)
        what = node.answers.get((self.command, asked.path), Refused(404, f"no answer for {self.command} {asked.path}"))
        if not (callable(what) and getattr(what, "streams", False)):
            asked.body = b"".join(asked.blocks)
        if callable(what):
            what = what(asked)
        self._write(what)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - http.server's names

    def _blocks(self):
        if self.headers.get("transfer-encoding") != "chunked":
            yield self.rfile.read(int(self.headers.get("content-length", 0)))
            return
        while size := int(self.rfile.readline() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _write(self, what):
        if isinstance(what, Refused):
            refusal = control.Refusal(what.message, what.hint, what.problems)
            self._whole(what.status, msgspec.json.encode(refusal))
        elif isinstance(what, Lines):
            self._chunks(what)
        elif isinstance(what, bytes):
            self._whole(200, what)
        else:
            self._whole(200, msgspec.json.encode(what))

    def _whole(self, status, body):
        self._head(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self, lines):
        self._head(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for value in lines.values:
                line = value if isinstance(value, bytes) else msgspec.json.encode(value) + b"\n"
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                self.wfile.flush()
            if lines.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

    def _head(self, status):
        self.send_response(status)
        if self.server.node.api:
            self.send_header(control.API_HEADER, self.server.node.api)


def streaming(function):
    """A callable answer that reads the request's blocks itself, while it answers."""
    function.streams = True
    return function
