"""Recorded telemetry as bytes: what every benchmark sends. Made once by samples/recordings, kept in .cache."""

from __future__ import annotations

import json
import subprocess
from itertools import groupby, islice
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".cache" / "bench-telemetry.jsonl"
RECORDINGS = ROOT / ".cache" / "recordings" / "bin" / "python"
TOGETHER = 10
"""Frames of one large payload: what a car that reports every ten seconds sends."""


class Frame(msgspec.Struct):
    """One second of a car; fields as samples/recordings writes them."""

    id: str
    vehicle: str
    model: str
    ts: str
    speed: float
    brake: float
    odometer: float
    soc: float
    power: float
    voltage: float
    current: float
    cell_max: float
    cell_min: float
    temperature_max: float
    temperature_min: float
    resent: bool


class Frames(msgspec.Struct):
    vehicle: str
    frames: list[Frame]


def small(count: int = 20_000) -> list[tuple[str, bytes]]:
    """(vehicle, one frame as JSON of some 350 B), at most `count`, in order of time."""
    with _kept().open() as file:
        rows = [json.loads(row) for row in islice(file, count)]
    return [(row["key"], _packed(row["data"])) for row in rows]


def large(count: int = 2_000) -> list[tuple[str, bytes]]:
    """(vehicle, ten frames in a row of it as JSON of some 3 KB)."""
    frames = sorted((json.loads(data) for _, data in small()), key=lambda frame: (frame["vehicle"], frame["ts"]))
    found: list[tuple[str, bytes]] = []
    for vehicle, theirs in groupby(frames, key=lambda frame: str(frame["vehicle"])):
        rows = list(theirs)
        parts = [rows[start : start + TOGETHER] for start in range(0, len(rows) - TOGETHER + 1, TOGETHER)]
        found.extend((vehicle, _packed({"vehicle": vehicle, "frames": part})) for part in parts)
    return found[:count]


def _packed(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _kept() -> Path:
    if not KEPT.exists():
        writing = KEPT.with_suffix(".part")
        record = [RECORDINGS, ROOT / "samples/recordings/record.py", "--vehicles", "22", "--every", "5"]
        subprocess.run([*record, "--output", writing], check=True)
        writing.rename(KEPT)
    return KEPT
