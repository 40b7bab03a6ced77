"""The node of a run, by `fn` as a user types it, and its processes as the process table shows them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

FN = Path(sys.executable).parent / "fn"


class Node:
    def __init__(self, data: Path, port: int, mutant: Path | None) -> None:
        """`mutant`: a folder of Python's path that changes the product as it is imported; see mutants/."""
        self.data = data
        self.port = port
        path = os.pathsep.join(filter(None, (mutant and str(mutant), os.environ.get("PYTHONPATH"))))
        self._env = {**os.environ, "PYTHONPATH": path, "FN_DATA": str(data), "FN_PORT": str(port), "FN_NODE": "soak"}

    def fn(self, *arguments: str) -> str:
        """Raises RuntimeError where it fails."""
        done = subprocess.run(
            [str(FN), *arguments], env=self._env, capture_output=True, text=True, timeout=200, check=False
        )
        if done.returncode:
            raise RuntimeError(f"fn {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}".strip())
        return done.stdout

    @property
    def id(self) -> str:
        return (self.data / "id").read_text().strip()

    def workers(self, function: str) -> list[psutil.Process]:
        """Orphans included: a worker works in the folder of its revision."""
        folder = self.data / "functions" / function
        return sorted(self._which(lambda each: Path(each.cwd()).is_relative_to(folder)), key=_age)

    def parents(self) -> list[psutil.Process]:
        found = self._below_node("fleetfn_node.parent")
        return [each for each in found if each.ppid() == self._node_pid()]

    def gateways(self) -> list[psutil.Process]:
        return self._which(lambda each: "fleetfn_gateway" in each.cmdline() and self._is_mine(each))

    def nodes(self) -> list[psutil.Process]:
        return self._which(lambda each: "fleetfn_node" in each.cmdline() and self._is_mine(each))

    def everything(self) -> list[psutil.Process]:
        """The node first: what it no longer sees it cannot start anew."""
        workers = self._which(lambda each: Path(each.cwd()).is_relative_to(self.data / "functions"))
        below = [child for node in self.nodes() for child in node.children(recursive=True)]
        return list(dict.fromkeys([*self.nodes(), *below, *self.gateways(), *workers]))

    def _is_mine(self, process: psutil.Process) -> bool:
        return any(str(self.data) in word for word in process.cmdline())

    def _below_node(self, module: str) -> list[psutil.Process]:
        return self._which(lambda each: module in each.cmdline())

    def _node_pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((self.data / "node.json").read_text())["pid"])
        return None

    @staticmethod
    def _which(is_meant: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
        return list(_those(is_meant))


def _those(is_meant: Callable[[psutil.Process], bool]) -> Iterator[psutil.Process]:
    for each in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if each.status() != psutil.STATUS_ZOMBIE and is_meant(each):
                yield each


def _age(process: psutil.Process) -> float:
    return float(process.create_time())
