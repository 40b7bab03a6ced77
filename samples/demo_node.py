"""The demo's machine: a node of its own in a temporary folder, and `fn` as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


class DemoNode:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environ = {
            **os.environ,
            "FN_DATA": str(folder / "node"),
            "FN_PORT": str(self.port),
            "FN_NODE": "demo",
            "TRIP_REPORTS": str(self.reports),
        }

    def fn(self, *arguments: str, quiet: bool = False) -> str:
        """Run `fn` as a user would; its output, or the end of the demo with what it said."""
        if not quiet:
            say(f"$ fn {' '.join(arguments)}")
        command = [str(Path(sys.executable).parent / "fn"), *arguments]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        if done.returncode and not quiet:
            raise SystemExit(f"{done.stdout}{done.stderr}\nError: fn {arguments[0]} failed ({done.returncode}).")
        return done.stdout

    def info(self) -> dict[str, Any]:
        return dict(json.loads(self.fn("version", "-o", "json", quiet=True))["node"])

    def status(self, function: str) -> dict[str, Any]:
        return dict(json.loads(self.fn("describe", function, "-o", "json", quiet=True)))

    def handled(self, function: str) -> int:
        return int(self.status(function)["counters"]["done"])

    def workers(self) -> list[int]:
        """Workers of this demo's functions, from the process table: grandchildren of the node, by a warm parent. What
        is not named a worker is its spare, of no function yet, or has not even a name.
        """
        table = dict(_processes())
        node = self.info()["pid"]
        parents = {pid for pid, (parent, _, line) in table.items() if parent == node and "fleetfn_node.parent" in line}
        return [pid for pid, (parent, name, line) in table.items() if (parent in parents and name == "fn-worker") or
                (parent == node and "fleetfn_node.child" in line)]  # fmt: skip

    def asleep(self) -> None:
        self.until("asleep", lambda: not self.workers(), 60)
        self.show_workers()

    def show_workers(self) -> None:
        say(f"workers in the process table: {len(self.workers())}")

    def until(self, what: str, true: Callable[[], bool], seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not true():
            if time.monotonic() > limit:
                say(self.fn("list", quiet=True))
                for each in json.loads(self.fn("list", "-o", "json", quiet=True)):
                    say(self.fn("describe", each["name"], quiet=True))
                    say(self.fn("logs", each["name"], "--level", "warning", quiet=True)[-4000:])
                raise SystemExit(f"Error: waited {seconds:.0f} s, but not: {what}.")
            time.sleep(0.1)


def say(text: str) -> None:
    print(text.rstrip(), flush=True)


def title(text: str) -> None:
    say(f"\n== {text} " + "=" * max(2, min(shutil.get_terminal_size().columns, 100) - len(text) - 4))


def _processes() -> Iterator[tuple[int, tuple[int, str, str]]]:
    """(pid, (parent's pid, name, command line)) of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            name = (folder / "comm").read_text().strip()
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # gone meanwhile
        yield int(folder.name), (parent, name, line)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
