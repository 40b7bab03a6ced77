"""The servers that are compared: how each is started, and what it must do before it is measured."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cores import pinned
from fleetfn_deploy.client import NodeClient, NotRunningError
from fleetfn_plumbing import source
from fleetfn_spec.control import DeployRequest
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.load import load_function
from http_load import Load

PEERS = Path(__file__).parent / "peers_http"
FUNCTION = Path(__file__).parent / "http_function"
LIMIT = 30.0
"""Seconds for a server to answer, and to end."""

FLOOR = "uvicorn, bare ASGI"
BY_HAND = "uvicorn + SQLite, a commit per request"
WORKER = "FleetFn worker alone"
DOOR = "FleetFn, front door"
FASTAPI = "FastAPI on uvicorn"
FRAMEWORK = "functions-framework"
KNATIVE = "func-python (Knative)"


@dataclass(frozen=True)
class Place:
    """Where a server runs. `python` has what it needs."""

    python: Path
    port: int
    folder: Path
    """Its own."""


@dataclass(frozen=True)
class Server:
    command: Callable[[Place], list[object]]
    environ: Callable[[Place], dict[str, str]] = lambda _: {}
    typed: bool = True
    """It reads the data: what has another shape is an error."""
    peer: bool = False
    """Of the peers' Python."""


def _uvicorn(app: str) -> Callable[[Place], list[object]]:
    return lambda at: [
        *(at.python, "-m", "uvicorn", "--app-dir", PEERS, "--port", at.port, "--loop", "uvloop", "--http", "httptools"),
        *("--no-access-log", "--log-level", "warning", f"{app}:app"),
    ]


def _worker(at: Place) -> list[object]:
    """On a socket of its own, without a node."""
    return [at.python, "-m", "fleetfn_runtime", "--folder", FUNCTION, "--data", at.folder, "--port", at.port]


def _node(at: Place) -> list[object]:
    return [at.python, "-m", "fleetfn_node", "--data", at.folder / "data", "--run", at.folder, "--port", at.port]


def _functions_framework(at: Place) -> list[object]:
    program, app = at.python.with_name("functions-framework"), PEERS / "functions_framework_app.py"
    shape = ("--target", "handle", "--signature-type", "cloudevent")
    return [program, "--source", app, *shape, "--host", "127.0.0.1", "--port", at.port]


SERVERS = {
    FLOOR: Server(_uvicorn("bare"), typed=False),
    BY_HAND: Server(_uvicorn("bare_sqlite"), lambda at: {"BENCH_DATABASE": str(at.folder / "rows.db")}),
    WORKER: Server(_worker),
    DOOR: Server(_node),
    FASTAPI: Server(_uvicorn("fastapi_app"), peer=True),
    FRAMEWORK: Server(_functions_framework, peer=True),
    KNATIVE: Server(
        lambda at: [at.python, PEERS / "func_python_app.py"],
        lambda at: {"LISTEN_ADDRESS": f"127.0.0.1:{at.port}"},
        peer=True,
    ),
}


@contextlib.contextmanager
def serving(name: str, port: int, folder: Path, peers: Path | None) -> Iterator[None]:
    """The server, on its core, until the block ends."""
    server = SERVERS[name]
    own = folder / f"{port}"
    own.mkdir()
    at = Place(peers if server.peer and peers is not None else Path(sys.executable), port, own)
    with (own / "log").open("ab") as log:
        process = subprocess.Popen(
            pinned(server.command(at), "server"),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **server.environ(at)},
        )
    try:
        wait(lambda: process.poll() is not None or _listens(port), f"{name} listens on port {port}")
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended at once: {(own / 'log').read_text()[-2000:]}")
        if name == DOOR:
            deploy(own)
        yield
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def deploy(folder: Path) -> None:
    """The function that is measured, to the node that runs in `folder`. Raises RuntimeError."""
    client = NodeClient(folder / "control.sock")
    wait(lambda: _answers(client), "the node answers")
    packed = io.BytesIO()
    source.pack(FUNCTION, packed)
    request = DeployRequest(function=load_function(FUNCTION), environment=LOCAL)
    with client.deploy(request, [packed.getvalue()]) as steps:
        *_, last = steps
    if last.refusal is not None:
        raise RuntimeError(f"the node refuses the function: {last.refusal}")


def check(name: str, port: int, load: Load) -> None:
    """It takes a good event, and refuses data of another shape: so it does read it. Raises RuntimeError."""
    status, reply = _post(port, load, load.bodies[0])
    if not 200 <= status < 300:  # noqa: PLR2004 - 2xx
        raise RuntimeError(f"{name} answers a good event with {status}: {reply[:300]!r}")
    if not SERVERS[name].typed:
        return
    status, reply = _post(port, load, b'{"vehicle":["none"]}', 1)
    if status < 400:  # noqa: PLR2004 - an error of whatever kind
        raise RuntimeError(f"{name} does not read its data: of another shape, it gets {status}: {reply[:300]!r}")


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"it did not come about within {LIMIT:g} s that {what}")
        time.sleep(0.02)


def _answers(client: NodeClient) -> bool:
    with contextlib.suppress(NotRunningError):
        return bool(client.node().url)
    return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
        connection.connect()
        connection.close()
        return True
    return False


def _post(port: int, load: Load, body: bytes, number: int = 0) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("POST", load.path, body, load.headers(number))
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()
