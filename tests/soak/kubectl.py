"""A namespace by `kubectl`, and its pods' processes as the process table shows them, where its node is this machine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    uid: str
    labels: dict[str, str]

    def processes(self) -> list[psutil.Process]:
        """The oldest first; none where the node is another machine. Each is in control groups with the pod's uid."""
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                groups = Path(f"/proc/{each.pid}/cgroup").read_text()
                if (self.uid in groups or self.uid.replace("-", "_") in groups) and each.cmdline():
                    found.append(each)
        return sorted(found, key=lambda each: float(each.create_time()))


class Kubectl:
    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._command = ["kubectl", f"--kubeconfig={kubeconfig}"]
        self.namespace = namespace

    def __call__(self, *arguments: str, namespace: str | None = None) -> str:
        """What it prints. Raises RuntimeError."""
        return self.bytes(*arguments, namespace=namespace).decode()

    def bytes(self, *arguments: str, namespace: str | None = None) -> bytes:
        where = f"--namespace={namespace or self.namespace}"
        try:
            done = subprocess.run(
                [*self._command, where, *arguments], capture_output=True, timeout=60, check=False, env=os.environ
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"kubectl {' '.join(arguments)[:200]}: no answer") from error
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)[:200]}: {done.stderr.decode().strip()}")
        return done.stdout

    def pods(self, selector: str, namespace: str | None = None) -> list[Pod]:
        """The oldest first; those that are being ended, too."""
        text = self("get", "pods", f"--selector={selector}", "--output=json", namespace=namespace)
        items: list[dict[str, Any]] = json.loads(text)["items"]
        items.sort(key=lambda item: str(item["metadata"]["creationTimestamp"]))
        metas = [item["metadata"] for item in items]
        return [Pod(meta["name"], meta["uid"], meta.get("labels", {})) for meta in metas]

    def delete_at_once(self, pod: Pod, namespace: str | None = None) -> str:
        """Nothing of it is waited for: its processes get SIGKILL."""
        self("delete", "pod", pod.name, "--grace-period=0", "--force", "--wait=false", namespace=namespace)
        return f"{pod.name} deleted"
