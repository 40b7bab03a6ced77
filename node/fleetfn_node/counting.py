"""A function's counters since its first deploy, summed over workers past and present.

Kept in a small file now and then: best effort, after a kill -9 the last seconds may be missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
from fleetfn_runtime.channel import Stats
from fleetfn_spec.control import Counters


class Kept(msgspec.Struct):
    counters: Counters = Counters()
    last_error: str = ""
    last_error_time: float | None = None
    last_activation: float | None = None


class Tally:
    def __init__(self, path: Path, changed: Callable[[], None] = lambda: None) -> None:
        """`changed` is called whenever there is something to save."""
        self._path = path
        self._changed = changed
        self._saved = True
        self.kept = Kept()
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            self.kept = msgspec.json.decode(path.read_bytes(), type=Kept)

    def add(self, stats: Stats) -> None:
        self.kept.counters = _sum(self.kept.counters, stats.counters)
        if stats.last_error:
            self.kept.last_error, self.kept.last_error_time = stats.last_error, stats.last_error_time
        self._touch()

    def error(self, text: str, at: float) -> None:
        """What kept the function from running, outside its handlers."""
        self.kept.last_error, self.kept.last_error_time = text, at
        self._touch()

    def activated(self, at: float) -> None:
        self.kept.last_activation = at
        self.kept.counters = _sum(self.kept.counters, Counters(cold_starts=1))
        self._touch()

    def save(self) -> None:
        """Blocking, a few hundred bytes; nothing where nothing changed."""
        if not self._saved:
            self._saved = True
            with contextlib.suppress(OSError):
                aside = self._path.with_suffix(".new")
                aside.write_bytes(msgspec.json.encode(self.kept))
                aside.replace(self._path)

    def _touch(self) -> None:
        self._saved = False
        self._changed()


def _sum(one: Counters, other: Counters) -> Counters:
    pairs = zip(msgspec.structs.astuple(one), msgspec.structs.astuple(other), strict=True)
    return Counters(**dict(zip(Counters.__struct_fields__, (a + b for a, b in pairs), strict=True)))
