"""A cluster's API server, as far as benchmarks need it: what becomes of pods is noted at the moment it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
from fleetfn_gateway.cluster import kube_access

LIMIT = 120.0
"""Seconds that anything may take which a benchmark waits for."""


def now() -> float:
    """Seconds, as cluster/handler.py has them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait(condition: Callable[[], Any], what: str) -> None:
    """Raises RuntimeError."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {LIMIT:.0f} s")
        time.sleep(0.05)


class Pod:
    """When each was first told of it; None: not yet."""

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        self.created = now()
        self.scheduled: float | None = None
        self.addressed: float | None = None
        self.ready: float | None = None
        self.address = ""


class Api:
    """Of one namespace, which is made, and deleted with its block."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        access = kube_access.by_kubeconfig(kubeconfig)
        self.namespace = namespace
        self.host = httpx.URL(access.url).host
        self.pods: dict[str, Pod] = {}
        self.woken: dict[str, float] = {}
        """By Deployment: when it was last scaled from zero."""
        self._replicas: dict[str, int] = {}
        self._news = threading.Condition()
        self._stack = ExitStack()
        token = access.token()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = self._stack.enter_context(
            httpx.Client(base_url=access.url, verify=access.context or False, headers=headers, timeout=LIMIT)
        )

    def __enter__(self) -> Self:
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._stack.callback(self.call, "DELETE", f"/api/v1/namespaces/{self.namespace}")
        self._follow(self.path("v1", "pods"), self._pod)
        self._follow(self.path("apps/v1", "deployments"), self._deployment)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def path(self, version: str, plural: str, name: str = "") -> str:
        root = "/api/v1" if version == "v1" else f"/apis/{version}"
        return f"{root}/namespaces/{self.namespace}/{plural}/{name}".rstrip("/")

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Raises RuntimeError."""
        content = None if body is None else json.dumps(body).encode()
        reply = self._client.request(method, path, content=content, headers={"content-type": kind})
        if reply.is_error:
            raise RuntimeError(f"{method} {path}: {reply.status_code} {reply.text[:500]}")
        return reply.json()

    def scale(self, deployment: str, replicas: int) -> None:
        path = self.path("apps/v1", "deployments", deployment)
        self.call("PATCH", f"{path}/scale", {"spec": {"replicas": replicas}}, "application/merge-patch+json")

    def address_of(self, service: str, namespace: str = "") -> str:
        path = f"/api/v1/namespaces/{namespace or self.namespace}/services/{service}"
        found: str = self.call("GET", path)["spec"]["clusterIP"]
        return found

    def led_to(self, function: str) -> tuple[list[str], int]:
        """Addresses and port that a function's Service leads to."""
        found = self.call("GET", self.path("discovery.k8s.io/v1", "endpointslices", f"{function}-fleetfn"))
        return [each["addresses"][0] for each in found["endpoints"] or []], found["ports"][0]["port"]

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """The first true value, looked for with each news."""
        end = time.monotonic() + LIMIT
        with self._news:
            while not (found := condition()):
                if not self._news.wait(max(0.0, min(1.0, end - time.monotonic()))) and time.monotonic() > end:
                    raise RuntimeError(f"{what}: not within {LIMIT:.0f} s")
        return found

    def of(self, deployment: str) -> list[Pod]:
        return [each for each in self.pods.values() if each.deployment == deployment]

    def _follow(self, path: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
        threading.Thread(target=self._watch, args=(path, tell), daemon=True).start()

    def _watch(self, path: str, tell: Callable[[str, dict[str, Any]], None]) -> None:
        try:
            with self._client.stream("GET", path, params={"watch": "1", "timeoutSeconds": "7200"}, timeout=None) as got:
                for line in got.iter_lines():
                    event = json.loads(line)
                    with self._news:
                        tell(event["type"], event["object"])
                        self._news.notify_all()
        except (httpx.HTTPError, RuntimeError):
            return  # the run has ended

    def _pod(self, kind: str, told: dict[str, Any]) -> None:
        name, labels, status = told["metadata"]["name"], told["metadata"].get("labels", {}), told["status"]
        if kind == "DELETED":
            self.pods.pop(name, None)
            return
        if labels.get("fleetfn.dev/part", "worker") != "worker":
            return
        pod = self.pods.setdefault(name, Pod(labels.get("fleetfn.dev/function") or labels.get("app", "")))
        conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
        if conditions.get("PodScheduled") == "True" and pod.scheduled is None:
            pod.scheduled = now()
        if (address := status.get("podIP", "")) and pod.addressed is None:
            pod.address, pod.addressed = address, now()
        if conditions.get("Ready") == "True" and pod.ready is None:
            pod.ready = now()

    def _deployment(self, kind: str, told: dict[str, Any]) -> None:
        name, replicas = told["metadata"]["name"], told["spec"].get("replicas", 1)
        if replicas and not self._replicas.get(name):
            self.woken[name] = now()
        self._replicas[name] = 0 if kind == "DELETED" else replicas
