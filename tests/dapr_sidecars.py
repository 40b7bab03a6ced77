"""Real Dapr sidecars for tests (`scripts/dapr.sh`), two with equal components, and what tests ask of their stores."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fleetfn.store import Conflict, Loaded, Page, Saved, Store, Write
from fleetfn_runtime.dapr_sidecar import Sidecar
from fleetfn_runtime.dapr_store import DaprStore

SCRIPT = Path(__file__).parent.parent / "scripts" / "dapr.sh"
COMPONENTS = ("redis", "postgresql", "sqlite")


class Sidecars:
    """`first`, `second`: their urls."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._port = int(port)
        self.first, self.second = f"http://{address}", f"http://{host}:{self._port + 3}"

    def clear(self, component: str) -> None:
        """Its store is empty."""
        match component:
            case "redis":
                with socket.create_connection(("127.0.0.1", self._port + 6), timeout=5) as connection:
                    connection.sendall(b"FLUSHALL\r\n")
                    assert connection.recv(100).startswith(b"+OK")
            case "postgresql":
                server = ["-h", "127.0.0.1", "-p", str(self._port + 7), "-U", "postgres"]
                subprocess.run(["psql", "-q", *server, "-c", "TRUNCATE state"], check=True, timeout=20)
            case "sqlite":
                with sqlite3.connect(self._folder / "state.db", timeout=10) as database:
                    database.execute("DELETE FROM state")
                database.close()

    @property
    def redis(self) -> list[str]:
        """A redis-cli for its store."""
        return ["redis-cli", "-h", "127.0.0.1", "-p", str(self._port + 6)]

    @property
    def files(self) -> Path:
        """Where the binding `files` writes."""
        return self._folder / "files"

    @property
    def _folder(self) -> Path:
        usual = SCRIPT.parent.parent / ".cache" / "dapr"
        return Path(os.environ.get("FN_DAPR_DIR") or usual)


@pytest.fixture(scope="session")
def sidecars() -> Sidecars:
    """FN_TEST_DAPR, or those that `scripts/dapr.sh` started."""
    named = os.environ.get("FN_TEST_DAPR")
    address = named or run_script("address")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        text = f"no Dapr at {address} ({error}); start it: scripts/dapr.sh start && scripts/dapr.sh wait"
        if os.environ.get("CI") == "true" or named:
            pytest.fail(text)
        pytest.skip(text)
    return Sidecars(address)


def published(sidecars: Sidecars, topic: str) -> list[bytes]:
    """What the component `pubsub` has of a topic, in order."""
    asked = [*sidecars.redis, "--json", "XRANGE", topic, "-", "+"]
    found = json.loads(subprocess.run(asked, check=True, capture_output=True, timeout=20).stdout)
    return [dict(zip(fields[::2], fields[1::2], strict=True))["data"].encode() for _, fields in found]


def run_script(command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(SCRIPT), command], env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TwoWorkers:
    """A Store whose calls go to two stores in turn, as two workers of a function have them."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores
        self._turn = itertools.cycle(stores)

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        return await next(self._turn).load(keys)

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        return await next(self._turn).save(writes)

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return await next(self._turn).keys(after=after, limit=limit)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:
        return await next(self._turn).unsent(after=after, limit=limit)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


async def over_two_sidecars(sidecars: Sidecars, component: str, clock: Callable[[], float]) -> Store:
    """Two stores on an empty component, each with a sidecar of its own."""
    sidecars.clear(component)
    urls = (sidecars.first, sidecars.second)
    return TwoWorkers([await DaprStore.open(Sidecar(url), component, "tests/fleet", clock=clock) for url in urls])


class OwnSidecars(Sidecars):
    """Sidecars and stores of the test's own, to kill and to start: own folder, own ports."""

    def __init__(self, folder: Path, port: int) -> None:
        self._env = {**os.environ, "FN_DAPR_DIR": str(folder), "FN_DAPR_PORT": str(port)}
        self._own = folder
        super().__init__(run_script("address", self._env))

    def start(self) -> None:
        """Whatever does not run."""
        run_script("start", self._env)
        run_script("wait", self._env)

    def kill(self, name: str) -> None:
        """`dapr` (the first sidecar), `second`, `redis`, `postgresql`; it is gone when this returns."""
        # postgresql's processes end together by SIGQUIT, without saving: it recovers at the next start.
        pid = int((self._own / f"{name}.pid").read_text())
        os.kill(pid, signal.SIGQUIT if name == "postgresql" else signal.SIGKILL)
        limit = time.monotonic() + 60
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            assert time.monotonic() < limit, f"{name} does not end"
            time.sleep(0.01)

    def stop(self) -> None:
        run_script("stop", self._env)

    @property
    def _folder(self) -> Path:
        return self._own


@pytest.fixture
def own_sidecars(sidecars: Sidecars) -> Iterator[OwnSidecars]:
    """Only where the script's first ones can run."""
    if sidecars.first != "http://" + run_script("address"):
        pytest.skip("FN_TEST_DAPR names sidecars that tests must not restart")
    with tempfile.TemporaryDirectory(prefix="fn-dapr-") as folder:  # postgresql has to get in, as a user of its own
        Path(folder).chmod(0o755)
        own = OwnSidecars(Path(folder), _eight_free_ports())
        own.start()
        yield own
        own.stop()


def _eight_free_ports() -> int:
    """The first. Below those that the kernel gives to clients: nobody takes them while something is down."""
    while True:
        first = random.randrange(21_110, 21_190)
        with contextlib.ExitStack() as taken, contextlib.suppress(OSError):
            for port in range(first, first + 8):
                taken.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
