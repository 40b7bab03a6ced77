"""`kubectl` for tests: what a user sees, and nothing of our own between."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


class Kubectl:
    """`kubectl` on the cluster, in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str = "default") -> None:
        self._command = ["kubectl", f"--kubeconfig={kubeconfig}", f"--namespace={namespace}"]
        self.namespace = namespace

    def __call__(self, *arguments: str, given: str | None = None) -> str:
        """What it prints; AssertionError with its complaint where it fails."""
        done = subprocess.run(
            [*self._command, *arguments], input=given, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def read(self, *arguments: str) -> Any:
        return json.loads(self("get", *arguments, "--output=json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self("apply", "--server-side", "--filename=-", given=json.dumps(listed))

    def await_pod(self, name: str, condition: str = "condition=Ready", seconds: int = 180) -> None:
        self("wait", f"--for={condition}", f"--timeout={seconds}s", f"pod/{name}")

    def run(self, pod: str, script: str) -> str:
        """What a Python script prints in a pod."""
        return self("exec", "--stdin", pod, "--", "python3", "-", given=script)

    def start(self, pod: str, script: str) -> subprocess.Popen[str]:
        """A Python script that goes on in a pod; what it prints is read from it."""
        command = [*self._command, "exec", pod, "--", "python3", "-c", script]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def exec(self, pod: str, *command: str, container: str) -> str:
        """What a command prints in a pod's container."""
        return self("exec", pod, f"--container={container}", "--", *command)
