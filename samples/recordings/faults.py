"""Thermal faults, put into healthy recordings on purpose: the recorded cars have none.

Each fault is a change of some minutes of one car's frames. What was put where is printed and can be written to a file,
so that a test knows which alerts to expect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pack import Frame


@dataclass(frozen=True)
class Fault:
    kind: str
    vehicle: str
    start: Any
    seconds: int
    what: str

    def line(self) -> dict[str, Any]:
        return {**asdict(self), "start": self.start.isoformat()}


def heat(frame: Frame, since: float) -> None:
    """The warmest probe climbs 0.15 K/s to 66 degrees Celsius, stays, and cools: over-temperature without runaway."""
    rise = min(since * 0.15, 42.0) if since < 600 else max(42.0 - (since - 600) * 0.15, 0.0)
    frame.temperature_max += rise


def runaway(frame: Frame, since: float) -> None:
    """One cell runs away: its voltage collapses by 30 % within 10 s, its probe climbs 1.5 K/s up to 200 degrees."""
    frame.cell_min *= 1 - 0.30 * min(since / 10, 1.0)
    frame.temperature_max = min(frame.temperature_max + max(since - 5, 0) * 1.5, 200.0)


def spread(frame: Frame, since: float) -> None:
    """One weak cell sags by 0.4 V."""
    frame.cell_min -= 0.4 * min(since / 60, 1.0)


def probe(frame: Frame, since: float) -> None:
    """A probe's wire breaks: it reads 210 degrees at once, the end of its scale, while the voltages stay calm."""
    frame.temperature_max = 210.0


KINDS: dict[str, tuple[Callable[[Frame, float], None], int]] = {
    "heat": (heat, 900),
    "runaway": (runaway, 180),
    "spread": (spread, 600),
    "probe": (probe, 300),
}
"""Kind -> (what it does to a frame, how many seconds it lasts)."""
