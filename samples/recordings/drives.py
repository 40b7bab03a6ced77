"""The recorded drives that ship with the PyPI package fastsim 2.1.5 (Apache-2.0).

`fastsim/resources/cycles/cmap_subset/<vehicle>/<day>.csv` holds speed once a second, logged in real cars of a 2007
travel survey over one to several days; parked time is absent. Times carry no zone; they are taken as UTC.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

MPH = 0.44704
"""Metres per second in one mile per hour (exact)."""


@dataclass(frozen=True)
class Day:
    """One car's day: `times` (UTC, ascending, gaps where it was parked) and `speeds` (m/s), of equal length."""

    vehicle: str
    times: list[datetime]
    speeds: list[float]


def recordings() -> Path:
    """The folder of recordings, without importing fastsim (which takes seconds)."""
    spec = importlib.util.find_spec("fastsim")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "Error: the recordings come with the package fastsim, which is not installed here.\n\n"
            "Hint: pip install -r samples/recordings/requirements.txt"
        )
    return Path(spec.submodule_search_locations[0]) / "resources" / "cycles" / "cmap_subset"


def fleet(count: int, start: date, days: int) -> list[Day]:
    """Days of `count` cars, each car's first recorded day moved to `start`, its later ones following; at most `days`.

    The package has 22 cars. Further ones drive the same recordings again, each half an hour later than the one before.
    """
    folders = sorted(folder for folder in recordings().iterdir() if folder.is_dir())
    found: list[Day] = []
    for number in range(count):
        round_, index = divmod(number, len(folders))
        folder = folders[index]
        name = f"{folder.name.replace('_', '-')}" + (f"-{round_}" if round_ else "")
        for offset, file in enumerate(sorted(folder.glob("2*.csv"))[:days]):
            found.append(_read(name, file, start + timedelta(days=offset), timedelta(minutes=30 * round_)))
    return [day for day in found if day.times]


def _read(vehicle: str, file: Path, day: date, later: timedelta) -> Day:
    times: list[datetime] = []
    speeds: list[float] = []
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            moment = datetime.strptime(row["timestamp"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            moved = datetime.combine(day, moment.time(), UTC) + later
            if times and moved <= times[-1]:
                continue  # the logger's clock went back
            times.append(moved)
            speeds.append(float(row["speed_mph"]) * MPH)
    return Day(vehicle, times, speeds)
