"""A node of a benchmark's own that is driven over its control API: a thousand deploys by `fn` would take long."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from fleetfn_deploy.client import NodeClient, NotRunningError
from fleetfn_plumbing import source
from fleetfn_spec.control import DeployRequest
from fleetfn_spec.environments import LOCAL, Environment
from fleetfn_spec.function import Function

LIMIT = 120.0
"""Seconds that anything may take which a benchmark waits for."""


class ControlledNode:
    """Ends with its block, and all that it started. `environ`: more variables for it, and so for its workers."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self._folder = folder
        self._environ = environ
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])

    def __enter__(self) -> Self:
        self.data = Path(tempfile.mkdtemp(prefix="node-", dir=self._folder))
        run = Path(tempfile.mkdtemp(prefix="run-", dir=self._folder))
        self.client = NodeClient(run / "control.sock")
        arguments = ["--data", self.data, "--run", run, "--port", str(self.port)]
        with (self.data / "bench.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleetfn_node", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environ},
            )
        wait_for(self._answers, "the node to answer")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(LIMIT)

    def deploy(
        self, name: str, files: Mapping[str, str], spec: Mapping[str, Any], environment: Environment = LOCAL
    ) -> None:
        """`files`: their texts; `spec`: as below `spec:` of function.yaml."""
        head = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}}
        function = msgspec.convert({**head, "spec": spec}, Function)
        packed = io.BytesIO()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            for file, text in files.items():
                (Path(folder) / file).write_text(text)
            source.pack(Path(folder), packed)
        request = DeployRequest(function=function, environment=environment, dry_run=False)
        with self.client.deploy(request, [packed.getvalue()]) as lines:
            *_, last = lines
        if last.refusal is not None:
            raise RuntimeError(f"{name} cannot be deployed: {last.refusal}")

    def asleep(self, *names: str) -> None:
        """Until these functions sleep, paused or not; none named: all there are."""
        wait_for(lambda: self._sleep(names), f"{', '.join(names) or 'all functions'} to sleep")

    def _sleep(self, names: tuple[str, ...]) -> bool:
        found = self.client.functions()
        asked = [each for each in found if not names or each.name in names]
        return all(each.phase in {"sleeping", "paused"} and not each.workers for each in asked)

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the node ended: {(self.data / 'bench.log').read_text()}")
        try:
            return bool(self.client.node().url)
        except NotRunningError:
            return False


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {LIMIT:.0f} s for {what}")
        time.sleep(0.05)
