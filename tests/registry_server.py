"""Image registries for tests: the real one (`scripts/registry.sh`), and own ones, to kill and start, with passwords."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "registry.sh"
_numbers = itertools.count(1)

USER, PASSWORD = "fn", "fn-secret"
HTPASSWD = "$2y$05$fleetfnfleetfnfleetfnuyTCIhZ5RiG/lazuMvM5Yesn60qK7n3q"
"""Of the two, by bcrypt."""


@pytest.fixture(scope="session")
def registry() -> str:
    """host:port of a real one that wants no password: FN_TEST_REGISTRY, or the one `scripts/registry.sh` started."""
    named = os.environ.get("FN_TEST_REGISTRY")
    address = named or run_script("address")
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        text = f"no registry at {address} ({error}); start one: scripts/registry.sh start && scripts/registry.sh wait"
        if os.environ.get("CI") == "true" or named:
            pytest.fail(text)
        pytest.skip(text)
    return address


class OwnRegistry:
    """A registry of the test's own: own folder, own port. `address`: host:port."""

    def __init__(self, folder: Path) -> None:
        ours = {"FN_REGISTRY_DIR": str(folder), "FN_REGISTRY_PORT": str(_free_port())}
        self._env = {**os.environ, **ours}
        self._folder = folder
        self.address = self._run("address")

    def want_password(self) -> None:
        """USER and PASSWORD, from the next start on."""
        path = self._folder / "htpasswd"
        path.write_text(f"{USER}:{HTPASSWD}\n")
        self._env["FN_REGISTRY_HTPASSWD"] = str(path)

    def start(self) -> None:
        self._run("start")
        self._run("wait")

    def stop(self) -> None:
        self._run("stop")

    def freeze(self) -> None:
        """It has its connections, and answers no more, until it is killed."""
        os.kill(int(self._run("status")), signal.SIGSTOP)

    def kill(self) -> None:
        pid = int(self._run("status"))
        os.kill(pid, signal.SIGKILL)
        limit = time.monotonic() + 20
        with contextlib.suppress(OSError):  # it has no files any more
            while Path(f"/proc/{pid}/cmdline").read_bytes():
                assert time.monotonic() < limit, "it does not end"
                time.sleep(0.01)
        self._run("stop")

    def _run(self, command: str) -> str:
        return run_script(command, self._env)


@pytest.fixture
def own_registry(registry: str, tmp_path: Path) -> Iterator[OwnRegistry]:
    """A second real one, not started yet; only where the script's first one can run."""
    if registry != run_script("address"):
        pytest.skip("FN_TEST_REGISTRY names a registry: whether this machine can run one is not known")
    own = OwnRegistry(tmp_path / "registry")
    yield own
    own.stop()


def run_script(command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(SCRIPT), command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _free_port() -> int:
    """Below those that the kernel gives to clients: nobody takes it while the registry is down."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) != 0:
                return port


def fresh_repository() -> str:
    """The name of one that no other test has."""
    return f"tests/{os.getpid()}-{time.time_ns():x}-{next(_numbers)}"
