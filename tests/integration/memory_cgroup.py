"""A memory limit of the kernel's own for tests: a control group that processes enter by writing their pid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from running_node import wait_for

ROOT = Path("/sys/fs/cgroup")
ENTER = "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))"


class NoCgroupError(Exception):
    """Why this machine lets us make none."""


class MemoryCgroup:
    """A folder of its own below `parent`, version 1 or 2."""

    def __init__(self, parent: Path, version: int) -> None:
        self.path = parent / f"fleetfn-test-{os.getpid()}"
        self.version = version

    def make(self, limit: int) -> None:
        """`limit`: bytes, swap included. Raises OSError."""
        self.path.mkdir()
        if self.version == 1:
            (self.path / "memory.limit_in_bytes").write_text(str(limit))
            with suppress(OSError):  # kernels without swap accounting have no such file
                (self.path / "memory.memsw.limit_in_bytes").write_text(str(limit))
        else:
            (self.path / "memory.max").write_text(str(limit))
            with suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")
        subprocess.run([sys.executable, "-c", ENTER, str(self.path)], check=True, capture_output=True)

    def kills(self) -> int:
        """Processes that the kernel has killed for want of memory."""
        file = self.path / ("memory.oom_control" if self.version == 1 else "memory.events")
        counts = dict(line.split() for line in file.read_text().splitlines())
        return int(counts["oom_kill"])

    def remove(self) -> None:
        """Once those in it have ended."""
        wait_for(self._removed, what=f"the end of {self.path}")

    def _removed(self) -> bool:
        with suppress(FileNotFoundError):
            try:
                self.path.rmdir()
            except OSError:  # the last process is not reaped yet
                return False
        return True


@contextmanager
def memory_cgroup(limit: int) -> Iterator[MemoryCgroup]:
    """One that was tried. Raises NoCgroupError."""
    reasons = []
    for parent, version in _parents():
        group = MemoryCgroup(parent, version)
        try:
            group.make(limit)
        except (OSError, subprocess.CalledProcessError) as error:
            reasons.append(f"{parent}: {error}")
            group.remove()
        else:
            try:
                yield group
            finally:
                group.remove()
            return
    raise NoCgroupError("; ".join(reasons) or f"no memory controller below {ROOT}")


def _parents() -> Iterator[tuple[Path, int]]:
    """Where a group may be made: below our own, or at the top."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        base, version = (ROOT / "memory", 1) if "memory" in controllers.split(",") else (ROOT, 2)
        if version == 1 or not controllers:
            yield from ((each, version) for each in (base / own.lstrip("/"), base) if _has_memory(each, version))


def _has_memory(folder: Path, version: int) -> bool:
    if version == 1:
        return (folder / "memory.limit_in_bytes").exists()
    with suppress(OSError):
        return "memory" in (folder / "cgroup.subtree_control").read_text().split()
    return False
