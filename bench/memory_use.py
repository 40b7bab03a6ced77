"""What a process and all below it use: memory counted once where it is shared, and processor time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MIB = 1024 * 1024


def memory(pid: int) -> float:
    """MiB of the process and all below it: PSS, so that a page which several share counts once in all."""
    return sum(_pss(each) for each in tree(pid)) / MIB


def threads(pid: int) -> dict[tuple[int, int], float]:
    """Processor seconds that each thread of the process and of all below it has had, to the nanosecond (`schedstat`).

    The usual counters are of clock ticks: whoever runs at a tick has all of it. What a timer wakes runs right at
    ticks, so of a node that only looks up now and then they may tell twice as much (0.030 s where it was 0.015 s).
    """
    return {(each, thread): _had(each, thread) for each in tree(pid) for thread in _threads(each)}


def seconds_since(before: dict[tuple[int, int], float], pid: int) -> float:
    """Of the threads that are there now. What ended meanwhile is not in it: for what has nothing to do."""
    return sum(had - before.get(thread, 0.0) for thread, had in threads(pid).items())


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    below: dict[int, list[int]] = {}
    for child, parent in _parents():
        below.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:
        found += below.get(each, [])
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields:
            yield int(folder.name), int(fields[1])


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0  # gone meanwhile
    return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


def _threads(pid: int) -> list[int]:
    try:
        return [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []  # gone meanwhile


def _had(pid: int, thread: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
