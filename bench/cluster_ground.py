"""What a cluster's benchmarks stand on: a namespace with functions by `fn deploy`, and a bare Deployment beside them.

tests/cluster/in.sh says by its variables where the cluster and its brokers are.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster_api import LIMIT, Api, wait
from setting import ROOT

HANDLERS = Path(__file__).parent / "cluster"
BARE, BARER = "bare", "barer"
"""Deployments: a plain pod, and one without the volume that holds its token."""
PORT = 8080

_BARE = """
from http.server import *
class Bare(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("", 8080), Bare).serve_forever()
"""


def named(variable: str) -> str:
    if not (value := os.environ.get(variable, "")):
        raise SystemExit(f"{variable} is not set; run it so: make bench-cluster")
    return value


class Signs:
    """Handlers say by a datagram that they ran."""

    def __init__(self, towards: str) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))
            self.host: str = probe.getsockname()[0]
        self._sock.bind((self.host, 0))
        self._sock.settimeout(LIMIT)
        self.place = f"{self.host}:{self._sock.getsockname()[1]}"

    def forget(self) -> None:
        """Those of before: what is delivered twice says so twice."""
        self._sock.setblocking(False)
        try:
            while self._sock.recv(4096):
                pass
        except BlockingIOError:
            self._sock.settimeout(LIMIT)

    def next(self) -> bytes:
        return self._sock.recv(4096)

    def close(self) -> None:
        self._sock.close()


class Ground:
    """Functions are those of cluster/handler.py, one trigger each."""

    def __init__(self, folder: Path, api: Api, signs: Signs) -> None:
        self.api = api
        self.kafka, self.mosquitto = named("FN_E2E_KAFKA"), named("FN_E2E_MOSQUITTO")
        self._folder = folder
        self._base = _base_image(named("FN_E2E_REGISTRY"))
        target = {
            "namespace": api.namespace,
            "registry": f"{named('FN_E2E_REGISTRY')}/{api.namespace}",
            "insecure": True,
            "base": self._base,
            "env": {"FN_BENCH_SIGNS": signs.place},
            "egress": [{"cidr": f"{signs.host}/32"}],
            "keda": {"polling": "1s"},
            "dapr": {"image": os.environ.get("FN_BENCH_DAPRD", "daprio/daprd:1.14.0")},
        }
        connections = [
            {"name": "kafka", "kafka": {"brokers": [self.kafka]}},
            {"name": "mqtt", "mqtt": {"url": f"mqtt://{self.mosquitto}"}},
        ]
        redis = [{"name": "redisHost", "value": named("FN_E2E_REDIS")}]
        state = {"dapr": {"component": "bench", "type": "state.redis", "metadata": redis}}
        environments = [
            {"name": name, "target": {"kubernetes": place}, "connections": connections, "state": state}
            for name, place in (("bench", target), ("add-on", {**target, "addOn": {}}))
        ]
        _write(folder / "environments.yaml", "Environments", environments=environments)

    def deploy(
        self, name: str, trigger: dict[str, Any], handler: str, *, environment: str = "bench", **spec: Any
    ) -> str:
        """By `fn`; its name."""
        folder = self._folder / name
        folder.mkdir()
        (folder / "handler.py").write_text((HANDLERS / "handler.py").read_text())
        told = {"handler": f"handler:{handler}", "triggers": [trigger], "scale": {"idle": "1s"}, **spec}
        _write(folder / "function.yaml", "Function", metadata={"name": name}, spec=told)
        environ = {**os.environ, "FN_ENV": environment}
        if wheel := os.environ.get("FN_E2E_WHEEL"):
            environ["FN_DEPLOY_FLEETFN"] = wheel
        command = [Path(sys.executable).parent / "fn", "deploy", folder]
        done = subprocess.run(command, env=environ, cwd=self._folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"fn deploy {name}: {done.stderr}")
        return name

    def add_bare(self, name: str, **pod: Any) -> None:
        """A Deployment of the functions' base image that sleeps, all else as Kubernetes has it where nothing is said:
        without probes it is ready as soon as it runs. `pod`: what is said.
        """
        container = {"name": name, "image": self._base, "command": ["python3", "-c", _BARE]}
        whole = {"containers": [container], "terminationGracePeriodSeconds": 0, **pod}
        template = {"metadata": {"labels": {"app": name}}, "spec": whole}
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        self.api.call("POST", self.api.path("apps/v1", "deployments"), body)

    def rest(self, function: str = "") -> None:
        """Until no pod of the namespace is left but its gateway's, and a function's Service leads to that."""
        self.api.wait(lambda: not self.api.pods, "no pods")
        if function:
            wait(lambda: self.api.led_to(function)[1] != PORT, f"the Service of {function} leads to its gateway")


def _base_image(registry: str) -> str:
    """As tests/e2e/prepare.py has pushed it."""
    script = ROOT / "scripts" / "base_image.sh"
    archive = Path(subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    return f"{registry}/e2e/python:{archive.stem.removeprefix('base-image-')}"


def _write(file: Path, kind: str, **content: Any) -> None:
    """JSON is YAML."""
    file.write_text(json.dumps({"apiVersion": "fleetfn.dev/v1alpha1", "kind": kind, **content}))
