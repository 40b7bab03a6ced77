"""Keeps what a namespace's pods say: where its node is this machine, their logs are linked before they go with them."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

PODS = (Path("/var/lib/fleetfn-cluster/pod-logs"), Path("/var/log/pods"))
"""Of the cluster of tests/cluster, and of most others."""
LOOK = 0.5


class PodLogs(threading.Thread):
    def __init__(self, namespace: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self._namespace = namespace
        self._folder = folder
        self._over = threading.Event()
        folder.mkdir()

    def run(self) -> None:
        while not self._over.wait(LOOK):
            for file in (file for folder in PODS for file in folder.glob(f"{self._namespace}_*/*/*.log")):
                container = file.parent
                _, pod, uid = container.parent.name.split("_")
                kept = self._folder / f"{pod}-{uid[:4]}-{container.name}-{file.name}"
                with contextlib.suppress(OSError):  # it is kept already, or gone, or on another disk
                    kept.hardlink_to(file)

    def close(self) -> None:
        self._over.set()
        self.join()
