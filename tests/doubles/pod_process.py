"""A worker as a cluster's pod runs it, as a process of this machine; the test is its gateway, or starts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import yaml
from certificates import Authority
from fleetfn_plumbing import http_places
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec.cluster import GATEWAY
from tls_gateway import free_port

LIMIT = 60.0


class Cluster:
    """Certificates of a gateway and of functions, and where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.gateway = self.authority.issue(folder / "gateway-tls", GATEWAY, "localhost")
        self.port = free_port()

    @property
    def place(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, place: str, who: Path, name: str | None = None):
        return http_places.client(place, TlsFolder(who), name=name)


class Pod:
    """`function`: as function.yaml has it. `environments`: likewise, or none."""

    def __init__(self, cluster: Cluster, code: str, function: dict, environments: dict | None = None) -> None:
        self.cluster = cluster
        self.name = function["metadata"]["name"]
        self.folder = cluster.folder / f"{self.name}-code"
        self.folder.mkdir(exist_ok=True)
        (self.folder / "handler.py").write_text(code)
        (self.folder / "function.yaml").write_text(yaml.safe_dump(function))
        self.environments = cluster.folder / "environments.yaml"
        if environments is not None:
            self.environments.write_text(json.dumps(environments))
        self.certificates = cluster.authority.issue(cluster.folder / f"{self.name}-tls", self.name)
        self.volume = cluster.folder / f"{self.name}-data"
        self.volume.mkdir(exist_ok=True)
        self.door, self.delivery = free_port(), free_port()
        self.said: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    @property
    def place(self) -> str:
        return f"https://127.0.0.1:{self.delivery}"

    def client(self, who: Path | None = None):
        """Asks on the delivery port, as its gateway."""
        return self.cluster.client(self.place, who or self.cluster.gateway, self.name)

    def _command(self, *more: str) -> list[str]:
        return [
            *(sys.executable, "-m", "fleetfn_runtime", "--folder", str(self.folder), "--volume", str(self.volume)),
            *("--environments", str(self.environments), "--host", "127.0.0.1", "--port", str(self.door), *more),
        ]

    def _environ(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "TMPDIR": tempfile.gettempdir(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FLEETFN_GATEWAY": self.cluster.place,
            "FLEETFN_TLS": str(self.certificates),
            "FLEETFN_PLACE": "alerts",
            "FLEETFN_REVISION": "0123456789abcdef",
            "FLEETFN_DELIVERY_PORT": str(self.delivery),
            **({"FLEETFN_ENVIRONMENT": "prod"} if self.environments.exists() else {}),
            **more,
        }

    def start(self, **environ: str) -> Pod:
        self.said = said = []
        self.process = process = subprocess.Popen(
            self._command(), env=self._environ(**environ), stderr=subprocess.PIPE, text=True
        )

        def read() -> None:
            with process.stderr:
                said.extend(process.stderr)

        self._reader = threading.Thread(target=read)
        self._reader.start()
        return self

    def check(self, **environ: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        command = self._command("--check")
        done = subprocess.run(
            command, env=self._environ(**environ), capture_output=True, text=True, timeout=180, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """On its door."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.door}{path}", body, headers)
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - our own address
            return reply.read()

    def is_ready(self) -> bool:
        assert self._running.poll() is None, "".join(self.said)
        try:
            return self.ask("/-/readyz") != b""
        except OSError:
            return False

    def ready(self) -> Pod:
        limit = time.monotonic() + LIMIT
        while not self.is_ready():
            assert time.monotonic() < limit, "".join(self.said)
            time.sleep(0.02)
        return self

    def kill(self) -> None:
        for each in psutil.Process(self._running.pid).children(recursive=True):
            each.kill()
        self._running.kill()
        self._ended()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self._running.terminate()
        return self._ended()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        elif self.process is not None:
            self._ended()

    def _ended(self) -> int:
        code = self._running.wait(LIMIT)
        self._reader.join(LIMIT)
        return code

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self.process is not None
        return self.process
