"""Tyre pressures for the recorded drives: JSON lines that `fn send --recording` replays over MQTT.

    python samples/recordings/tyres.py --vehicles 22 --faults slow,fast,silent,psi > tyres.jsonl

When a car drives is recorded; what its tyres do is a model of ours, since no pressures were recorded: a sensor speaks
once a minute while its wheel turns, and pressure follows the tyre's temperature, which driving raises. Its constants
are assumed. Faults are put in on purpose and said so on standard error.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import drives

WHEELS = ("fl", "fr", "rl", "rr")
PLACARD = 250.0  # kPa above the atmosphere, cold: what the sample's function.yaml assumes of every car
EVERY = 60  # seconds between a sensor's words while its wheel turns
AMBIENT = 8.0  # degrees Celsius: January
WARM = 24.0  # kelvin above ambient that a long drive brings
SLOW_WARMING = 1200.0  # seconds to two thirds of that
PER_KELVIN = 1.0  # kPa: about 10 kPa for 10 kelvin
NOISE = 0.8  # kPa, one standard deviation
ASLEEP = 120  # seconds that sensors need to wake after the wheels turn
PARKED = 300  # seconds without a recorded second
PSI = 6.894757  # kPa


@dataclass(frozen=True)
class Fault:
    kind: str
    vehicle: str
    wheel: str
    start: datetime
    what: str

    def line(self) -> dict[str, Any]:
        return {**asdict(self), "start": self.start.isoformat()}


Wheels = dict[str, float | None]


def slow(wheels: Wheels, wheel: str, since: float) -> None:
    """A nail: one tyre loses 2 kPa an hour."""
    wheels[wheel] = (wheels[wheel] or 0.0) - 2.0 * since / 3600


def fast(wheels: Wheels, wheel: str, since: float) -> None:
    """A torn tyre loses 30 kPa a minute, down to nothing."""
    wheels[wheel] = max((wheels[wheel] or 0.0) - 30.0 * since / 60, 0.0)


def low(wheels: Wheels, wheel: str, since: float) -> None:
    """A tyre that was filled to two thirds only."""
    wheels[wheel] = (wheels[wheel] or 0.0) - PLACARD / 3


def silent(wheels: Wheels, wheel: str, since: float) -> None:
    """A sensor's battery is empty: it says nothing any more, while the car drives."""
    wheels[wheel] = None


def psi(wheels: Wheels, wheel: str, since: float) -> None:
    """A gateway that reports pounds per square inch instead of kilopascals; nothing is wrong with the tyres."""
    for name, pressure in wheels.items():
        if pressure is not None:
            wheels[name] = pressure / PSI


KINDS: dict[str, Callable[[Wheels, str, float], None]] = {
    "slow": slow,
    "fast": fast,
    "low": low,
    "silent": silent,
    "psi": psi,
}


def lines(day: drives.Day, faults: list[Fault], seed: int) -> Iterator[dict[str, Any]]:
    """The day's messages of one car. `pressure` in kPa (but for `psi`), None while a sensor has not spoken yet."""
    chance = random.Random(f"{seed}/{day.vehicle}/{day.times[0]}")
    filled = {wheel: PLACARD + chance.uniform(-6, 6) for wheel in WHEELS}
    since, warm, before = day.times[0], 0.0, day.times[0]
    said: datetime | None = None
    for moment, speed in zip(day.times, day.speeds, strict=True):
        gap = (moment - before).total_seconds()
        if gap > PARKED:
            since, said = moment, None
            warm *= 0.5 ** (gap / 1800)
        warm += (WARM * min(speed / 20, 1.0) - warm) * min(gap, 5.0) / SLOW_WARMING
        before = moment
        if said is not None and (moment - said).total_seconds() < EVERY:
            continue
        said = moment
        awake = (moment - since).total_seconds() >= ASLEEP
        temperature = AMBIENT + warm
        wheels: Wheels = {
            wheel: filled[wheel] + PER_KELVIN * (temperature - 20.0) + chance.gauss(0, NOISE) if awake else None
            for wheel in WHEELS
        }
        for fault in faults:
            if awake and moment >= fault.start:
                KINDS[fault.kind](wheels, fault.wheel, (moment - fault.start).total_seconds())
        yield _line(day.vehicle, moment, speed, temperature, wheels)


def _line(vehicle: str, moment: datetime, speed: float, temperature: float, wheels: Wheels) -> dict[str, Any]:
    return {
        "key": vehicle,
        "data": {
            "vehicle": vehicle,
            "ts": moment.isoformat().replace("+00:00", "Z"),
            "speed": round(speed * 3.6, 1),
            "wheels": {
                wheel: {
                    "pressure": None if pressure is None else round(pressure, 2),
                    "temperature": None if pressure is None else round(temperature, 1),
                }
                for wheel, pressure in wheels.items()
            },
        },
    }


def plan(days: list[drives.Day], kinds: list[str]) -> list[Fault]:
    """One fault per kind, each in another car: those that drive over most of a day come first."""
    spans = sorted(days, key=lambda day: day.times[0] - day.times[-1])
    vehicles = list(dict.fromkeys(day.vehicle for day in spans))
    if len(kinds) > len(vehicles):
        raise SystemExit(f"Error: {len(kinds)} faults need as many cars.\n\nHint: raise --vehicles.")
    planned = []
    for number, (kind, vehicle) in enumerate(zip(kinds, vehicles, strict=False)):
        first = min((day for day in days if day.vehicle == vehicle), key=lambda day: day.times[0])
        start = first.times[0] if kind in ("slow", "low", "psi") else first.times[len(first.times) // 2]
        planned.append(Fault(kind, vehicle, WHEELS[number % 4], start, (KINDS[kind].__doc__ or "").strip()))
    return planned


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, default=22, help="cars (22 are recorded; more drive the same again)")
    parser.add_argument("--days", type=int, default=1, help="recorded days per car, at most (default 1)")
    parser.add_argument("--start", type=date.fromisoformat, default=date(2026, 1, 5), help="first day (YYYY-MM-DD)")
    parser.add_argument("--faults", default="", help="kinds to put in, one car each: " + ",".join(KINDS))
    parser.add_argument("--seed", type=int, default=1, help="same seed, same output")
    parser.add_argument("--truth", type=Path, help="write the faults put in to this file, as JSON")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")
    chosen = parser.parse_args()
    unknown = [kind for kind in chosen.faults.split(",") if kind and kind not in KINDS]
    if unknown:
        parser.error(f"unknown fault {unknown[0]!r}; known: {', '.join(KINDS)}")
    if chosen.vehicles < 1 or chosen.days < 1:
        parser.error("--vehicles and --days are 1 or more")
    return chosen


def main() -> None:
    chosen = options()
    days = drives.fleet(chosen.vehicles, chosen.start, chosen.days)
    planned = plan(days, [kind for kind in chosen.faults.split(",") if kind])
    for fault in planned:
        text = f"put in on purpose: {fault.kind} in {fault.vehicle} ({fault.wheel}) at {fault.start:%H:%M:%S}"
        print(f"{text}: {fault.what}", file=sys.stderr)
    found = [
        line
        for day in days
        for line in lines(day, [fault for fault in planned if fault.vehicle == day.vehicle], chosen.seed)
    ]
    found.sort(key=lambda line: line["data"]["ts"])
    with chosen.output.open("w") if chosen.output else sys.stdout as out:
        out.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in found)
    if chosen.truth:
        chosen.truth.write_text(json.dumps([fault.line() for fault in planned], indent=1) + "\n")
    print(f"{len(found)} messages of {len({day.vehicle for day in days})} cars", file=sys.stderr)


if __name__ == "__main__":
    main()
