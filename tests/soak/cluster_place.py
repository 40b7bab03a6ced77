"""A namespace of a real cluster as the place of a run: the one of tests/cluster, or that which FN_E2E_KUBECONFIG names.

Functions keep their state through Dapr's sidecars in a Redis of the run's own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from soak import schedule
from soak.functions import Functions, Setting
from soak.judge import dapr_documents
from soak.kubectl import Kubectl, Pod
from soak.node import FN
from soak.pace import Pace
from soak.place import Act
from soak.plan import CLUSTER_SIZES
from soak.pod_logs import PodLogs
from soak.processes import STOPPED, await_, kill, stand_still
from soak.redis_store import RedisStore
from soak.schedule import Action

ENVIRONMENT = "soak"
SIDECAR = "docker.io/daprio/daprd:1.14.0"

WORKERS = "fleetfn.dev/part=worker"
GATEWAYS = "fleetfn.dev/part=gateway"
WORKER = "fleetfn_runtime"
GATEWAY_PROCESS = "fleetfn_gateway.cluster"
"""Words of commands."""

SCALERS = "app=keda-operator"
SCALERS_ARE_IN = "keda"

GATEWAY = "fleetfn-gateway-0"
INBOX = "/data/inbox.db"
PYTHON = "/layers/fleetfn_python/dependencies/bin/python"
COUNT = "print(inbox.execute('SELECT coalesce(sum(waiting), 0) FROM trigger_rows').fetchone()[0])"
COPY = "sys.stdout.buffer.write(inbox.serialize())"
"""Programs that are run in the gateway's pod, which has Python and no sqlite3."""

CODE = "/workspace"
RUNTIME = "/layers/fleetfn_python/runtime"
"""Of an image: the function's folder, and FleetFn."""

FROZEN = 16.0
"""Seconds: longer than Kafka waits for a silent member of a group; see brokers.py."""

FN_LIMIT = 400
ASLEEP = 90.0
"""Seconds that all may take to be done and go to sleep, while nothing is sent."""


class ClusterPlace:
    """Implements Place."""

    sizes = CLUSTER_SIZES

    def __init__(self, seed: int, folder: Path, port: int, mutant: Path | None, base: str) -> None:
        """`port`: of Redis; `base`: image with Python to build on."""
        self._kubeconfig = _named("FN_E2E_KUBECONFIG")
        self._registry = _named("FN_E2E_REGISTRY")
        namespace = f"soak-{seed}-{time.time_ns() % 16**6:06x}"
        self._kubectl = Kubectl(self._kubeconfig, namespace)
        self._folder = folder
        self._mutant = mutant
        self._base = base
        self.host = self._own_address()
        self._redis = RedisStore(folder / "redis", self.host, port)
        self._logs = PodLogs(namespace, folder / "logs")
        self._env = {**os.environ, "KUBECONFIG": self._kubeconfig, "FN_ENV": ENVIRONMENT}
        self._started = False

    def deck(self, size: str) -> tuple[str, ...]:
        return schedule.CLUSTER_SHORT if size == "short" else schedule.CLUSTER

    def acts(self) -> dict[str, Act]:
        return {
            "kill worker": self._kill_worker,
            "delete worker": self._delete_worker,
            "kill sidecar": self._kill_sidecar,
            "kill gateway": self._kill_gateway,
            "delete gateway": self._delete_gateway,
            "delete scaler": self._delete_scaler,
            "kill store": self._kill_store,
            "stop gateway": self._stop_gateway,
            "stop worker": self._stop_worker,
            "freeze worker": self._freeze_worker,
            "sleep": self._sleep,
        }

    def setting(self) -> Setting:
        target = {
            "namespace": self._kubectl.namespace,
            "registry": f"{self._registry}/{self._kubectl.namespace}",
            "insecure": True,
            "base": self._base,
            "keda": {"polling": "2s"},
            "dapr": {"image": SIDECAR},
            "gateway": {"storage": "1Gi"},
            "env": self._variables(),
        }
        redis = [{"name": "redisHost", "value": self._redis.address}]
        state = {"component": "vehicles", "type": "state.redis", "version": "v1", "metadata": redis}
        environment = {"name": ENVIRONMENT, "target": {"kubernetes": target}, "state": {"dapr": state}}
        beside = () if self._mutant is None else (self._mutant.parent,)
        return Setting(environment, least=0, others=2, concurrency=16, beside=beside)

    def start(self) -> None:
        self._redis.start()
        if not self._started:
            self._started = True
            self._kubectl("create", "namespace", self._kubectl.namespace)
            self._logs.start()

    def fn(self, *arguments: str) -> str:
        """Environments are looked for from where it is started."""
        done = subprocess.run(
            [str(FN), *arguments],
            cwd=self._folder / "functions",
            env=self._env,
            capture_output=True,
            text=True,
            timeout=FN_LIMIT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"fn {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}".strip())
        return done.stdout

    def front(self) -> str:
        address = self._kubectl("get", "service", "chains", "--output=jsonpath={.spec.clusterIP}")
        return f"{address}:80"

    def group(self, function: str, trigger: str) -> str:
        return f"{ENVIRONMENT}/{self._kubectl.namespace}/{function}/{trigger}"

    def left(self) -> dict[str, int]:
        found = {"in the inbox": -1, **{f"unsent of {name}": -1 for name in ("chains", "audit")}}
        with contextlib.suppress(RuntimeError):
            found["in the inbox"] = int(self._in_gateway(COUNT))
        with contextlib.suppress(OSError):
            documents = self._documents()
            for name in ("chains", "audit"):
                records = dapr_documents.kept(documents, self._app(name))
                found[f"unsent of {name}"] = sum(record.unsent > 0 for record in records)
        return found

    def facts(self) -> dict[str, Any]:
        return {"apps": {name: self._app(name) for name in ("chains", "audit")}}

    def end(self, folder: Path) -> None:
        """Pods go on: they have nothing to do."""
        inbox = folder / "data" / "gateway" / "inbox.db"
        inbox.parent.mkdir(parents=True)
        inbox.write_bytes(self._in_gateway(COPY))
        with contextlib.closing(sqlite3.connect(inbox)) as copy:
            copy.execute("PRAGMA journal_mode=DELETE")  # it says that it has a log beside it
        with (folder / "data" / "documents.jsonl").open("w") as out:
            for key, data in self._documents().items():
                out.write(json.dumps({"key": key, "data": base64.b64encode(data).decode()}) + "\n")

    def down(self) -> None:
        if self._started:
            with contextlib.suppress(RuntimeError):
                self._kubectl("delete", "namespace", self._kubectl.namespace, "--wait=false")
            self._logs.close()
        self._redis.kill()

    def _app(self, function: str) -> str:
        """What keys of a function begin with in the store."""
        return f"{self._kubectl.namespace}.{function}"

    def _documents(self) -> dict[str, bytes]:
        return self._redis.documents(f"{self._kubectl.namespace}.*")

    def _variables(self) -> dict[str, str]:
        if self._mutant is None:
            return {}
        return {"PYTHONPATH": f"{CODE}/{self._mutant.parent.name}/{self._mutant.name}:{RUNTIME}"}

    def _own_address(self) -> str:
        """Of this machine, as the cluster reaches it."""
        text = subprocess.run(
            ["kubectl", f"--kubeconfig={self._kubeconfig}", "config", "view", "--minify", "--output=json"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        host = urlsplit(json.loads(text)["clusters"][0]["cluster"]["server"]).hostname
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((host, 9))
            return str(sock.getsockname()[0])

    def _in_gateway(self, program: str) -> bytes:
        program = f"import sqlite3, sys; inbox = sqlite3.connect('file:{INBOX}?mode=ro', uri=True); {program}"
        return self._kubectl.bytes("exec", GATEWAY, "--", PYTHON, "-I", "-S", "-c", program)

    # Disorder

    def _workers(self, *, keeps_state: bool = False) -> list[Pod]:
        """Of `chains`, where it has any."""
        pods = self._kubectl.pods(WORKERS)
        names = ("chains", "audit") if keeps_state else Functions.names
        of = {name: [pod for pod in pods if pod.labels["fleetfn.dev/function"] == name] for name in names}
        return of["chains"] or [pod for found in of.values() for pod in found]

    def _kill_worker(self, action: Action, _: Pace) -> str:
        """Not the process that began its container: that one waits for the worker, and passes its end on."""
        return self._strike(self._workers(), WORKER, action)

    def _kill_sidecar(self, action: Action, _: Pace) -> str:
        return self._strike(self._workers(keeps_state=True), "daprd", action)

    def _kill_gateway(self, action: Action, _: Pace) -> str:
        return self._strike(self._kubectl.pods(GATEWAYS), GATEWAY_PROCESS, action)

    def _delete_worker(self, action: Action, _: Pace) -> str:
        return self._delete(self._workers(), action)

    def _delete_gateway(self, action: Action, _: Pace) -> str:
        return self._delete(self._kubectl.pods(GATEWAYS), action)

    def _delete_scaler(self, *_: object) -> str:
        pods = self._kubectl.pods(SCALERS, SCALERS_ARE_IN)
        return ", ".join(self._kubectl.delete_at_once(pod, SCALERS_ARE_IN) for pod in pods) or "nobody was there"

    def _kill_store(self, *_: object) -> str:
        self._redis.kill()
        self._redis.start()
        return "killed and started"

    def _stop_gateway(self, action: Action, pace: Pace) -> str:
        return _stand_still(self._kubectl.pods(GATEWAYS), GATEWAY_PROCESS, action, pace)

    def _stop_worker(self, action: Action, pace: Pace) -> str:
        return _stand_still(self._workers(), WORKER, action, pace)

    def _freeze_worker(self, action: Action, pace: Pace) -> str:
        """So long that others have its partitions when it goes on."""
        return _stand_still(self._workers(), WORKER, action, pace, FROZEN)

    def _sleep(self, _: Action, pace: Pace) -> str:
        """Nothing is sent until nobody is there any more."""
        pace.hold()
        began = time.monotonic()
        try:
            await_("all asleep", ASLEEP, lambda: not self._kubectl.pods(WORKERS))
            return f"all were asleep after {time.monotonic() - began:.0f} s"
        finally:
            pace.go_on()

    def _delete(self, pods: Sequence[Pod], action: Action) -> str:
        return self._kubectl.delete_at_once(pods[action.pick(len(pods))]) if pods else "nobody was there"

    def _strike(self, pods: Sequence[Pod], word: str, action: Action) -> str:
        """Where no pod's processes can be seen, one goes."""
        if not any(pod.processes() for pod in pods):
            return self._delete(pods, action)
        pod, found = _one(pods, word, action)
        return f"{word} of {pod}: {kill(found)}"


def _stand_still(pods: Sequence[Pod], word: str, action: Action, pace: Pace, seconds: float = STOPPED) -> str:
    pod, found = _one(pods, word, action)
    return f"{word} of {pod}: {stand_still(found, pace, seconds)}"


def _one(pods: Sequence[Pod], word: str, action: Action) -> tuple[str, list[psutil.Process]]:
    """Of those pods that have a process whose command has this word: its name, and the youngest such process."""
    found = [(pod.name, [each for each in pod.processes() if _runs(each, word)][-1:]) for pod in pods]
    alive = [one for one in found if one[1]]
    return alive[action.pick(len(alive))] if alive else ("no pod", [])


def _runs(process: psutil.Process, word: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(word in part for part in process.cmdline())
    return False


def _named(variable: str) -> str:
    value = os.environ.get(variable)
    if not value:
        raise SystemExit(f"{variable} is not set; run it so: tests/cluster/in.sh python -m soak --place cluster")
    return value
