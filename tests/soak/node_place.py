"""A node as the place of a run."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import psutil

from soak import schedule
from soak.brokers import LOOPBACK
from soak.functions import Functions, Setting
from soak.node import Node
from soak.pace import Pace
from soak.place import Act
from soak.plan import SIZES
from soak.processes import kill, stand_still
from soak.schedule import Action

ANSWER = 2.0


class NodePlace:
    """Implements Place."""

    sizes = SIZES
    host = LOOPBACK

    def __init__(self, folder: Path, port: int, mutant: Path | None) -> None:
        """`port`: of the front door."""
        self._node = Node(folder / "data", port, mutant)

    def deck(self, size: str) -> tuple[str, ...]:
        return schedule.SHORT if size == "short" else schedule.DECK

    def acts(self) -> dict[str, Act]:
        return {
            "kill worker": self._kill_worker,
            "kill parent": lambda action, _: kill(_some(self._node.parents(), action)),
            "kill gateway": lambda *_: kill(self._node.gateways()),
            "kill node": self._kill_node,
            "kill all": lambda *_: kill(self._node.everything()) + self._up(),
            "stop gateway": lambda _, pace: stand_still(self._node.gateways(), pace),
            "stop worker": lambda action, pace: stand_still(_some(self._workers(), action), pace),
        }

    def setting(self) -> Setting:
        return Setting({"name": "local", "target": {"node": {}}}, least=1)

    def start(self) -> None:
        self._node.fn("up")

    def fn(self, *arguments: str) -> str:
        return self._node.fn(*arguments)

    def front(self) -> str:
        return f"{self.host}:{self._node.port}"

    def group(self, function: str, trigger: str) -> str:
        return f"local/{self._node.id}/{function}/{trigger}"

    def left(self) -> dict[str, int]:
        data = self._node.data
        waiting = _count(data / "gateway" / "inbox.db", "SELECT coalesce(sum(waiting), 0) FROM trigger_rows")
        found = {"in the inbox": waiting}
        for name in ("chains", "audit"):
            file = data / "functions" / name / "state.db"
            found[f"unsent of {name}"] = _count(file, "SELECT count(*) FROM record WHERE unsent = 1")
        return found

    def facts(self) -> dict[str, Any]:
        return {}

    def end(self, folder: Path) -> None:  # noqa: ARG002 - its data is there
        self._node.fn("down")

    def down(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._node.fn("down")
        for each in self._node.everything():
            each.kill()

    def _kill_worker(self, action: Action, _: Pace) -> str:
        return kill(_some(self._node.workers("chains") or self._workers(), action))

    def _kill_node(self, *_: object) -> str:
        """Alone: what it leaves behind ends by itself, while the next node starts."""
        return kill(self._node.nodes()) + self._up()

    def _workers(self) -> list[psutil.Process]:
        return [each for name in Functions.names for each in self._node.workers(name)]

    def _up(self) -> str:
        self._node.fn("up")
        return "; up again"


def _some(processes: list[psutil.Process], action: Action) -> list[psutil.Process]:
    return [processes[action.pick(len(processes))]] if processes else []


def _count(file: Path, query: str) -> int:
    try:
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=ANSWER)
    except sqlite3.Error:
        return -1
    with contextlib.closing(connection):
        try:
            return int(connection.execute(query).fetchone()[0])
        except sqlite3.Error:
            return -1
