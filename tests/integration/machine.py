"""A machine of a test's own: `fn` as a user types it, on a node in the test's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fleetfn_node.child import WORKER
from kafka_broker import eventually
from running_node import free_port

FN = Path(sys.executable).parent / "fn"

ENVIRONMENTS = """
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- name: local
  target: {{node: {{}}}}
  connections:
  - {{name: kafka, kafka: {{brokers: ["{brokers}"]}}}}
"""


def use_broker(folder: Path, brokers: str) -> None:
    """Functions in and below the folder meet this Kafka."""
    (folder / "environments.yaml").write_text(ENVIRONMENTS.format(brokers=brokers))


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = int(free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = folder / "data"
        self.environ = {**os.environ, "FN_DATA": str(self.data), "FN_PORT": str(self.port), "FN_NODE": "default"}

    def run(self, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(FN), *arguments]
        where = folder or self.folder
        return subprocess.run(
            command, cwd=where, env=self.environ, capture_output=True, text=True, timeout=180, check=False
        )

    def fn(self, *arguments: str, folder: Path | None = None) -> str:
        done = self.run(*arguments, folder=folder)
        assert done.returncode == 0, f"fn {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.fn(*arguments, "-o", "json"))

    def node(self) -> int:
        return int(self.json("version")["node"]["pid"])

    def parents(self) -> list[psutil.Process]:
        return self._below("fleetfn_node.parent")

    def workers(self) -> list[psutil.Process]:
        """From the process table: what warm parents forked for a function, and workers that were started unforked."""
        forked = [child for parent in self.parents() for child in _children(parent) if _name(child) == WORKER]
        return forked + self._below("fleetfn_node.child")

    def asleep(self) -> None:
        eventually(lambda: not self.workers(), 60)

    def _below(self, module: str) -> list[psutil.Process]:
        return [child for child in _children(psutil.Process(self.node())) if module in " ".join(_line(child))]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.run("down")


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [child for child in process.children() if _lives(child)]
    except psutil.NoSuchProcess:
        return []


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False  # ended since it was listed: its siblings count all the same


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
