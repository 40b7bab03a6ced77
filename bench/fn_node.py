"""A node of a benchmark's own by `fn`, as a user types it. It can be left and entered again: what it keeps stays."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from setting import ROOT

FUNCTIONS = ROOT / "bench" / "functions"

LIMIT = 300.0
"""Seconds that anything may take before the benchmark gives up."""

_ENVIRONMENTS = """
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: local
  target: {{node: {{}}}}
  connections: {connections}
"""


class FnNode:
    """Runs within its block. `connections`: by name, as in environments.yaml."""

    def __init__(self, folder: Path, connections: Mapping[str, Any]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="node-", dir=folder))
        self.data = self.folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        listed = [{"name": name, **connection} for name, connection in connections.items()]
        (self.folder / "environments.yaml").write_text(_ENVIRONMENTS.format(connections=json.dumps(listed)))
        self._environ = {**os.environ, "FN_DATA": str(self.data), "FN_PORT": str(self.port), "FN_NODE": "bench"}

    def __enter__(self) -> Self:
        self.fn("up")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.fn("down")

    def fn(self, *words: str) -> str:
        """Its standard output."""
        command = [Path(sys.executable).parent / "fn", *words]
        done = subprocess.run(
            command, cwd=self.folder, env=self._environ, capture_output=True, text=True, timeout=LIMIT, check=False
        )
        if done.returncode:
            raise RuntimeError(f"fn {' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def deploy(self, name: str, settings: Mapping[str, Any]) -> None:
        """A folder of bench/functions, with `settings` as its config."""
        folder = self.folder / name
        shutil.copytree(FUNCTIONS / name, folder, dirs_exist_ok=True)
        path = folder / "function.yaml"
        path.write_text(path.read_text().replace("config: {}", f"config: {json.dumps(settings)}"))
        self.fn("deploy", str(folder))


def wait_for(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Its first true value."""
    end = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what} did not come about within {limit:g} s")
        time.sleep(0.02)
    return found
