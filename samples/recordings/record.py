"""Turn recorded drives into battery telemetry: JSON lines that `fn send --recording` replays.

    python samples/recordings/record.py --vehicles 22 --every 10 --faults heat,runaway,spread,probe > telemetry.jsonl

One line is `{"key": vehicle, "data": {...}}`, in order of time. The drives are real; drives.py and pack.py tell what
is recorded, what is fastsim's and what is assumed. Faults are put in on purpose and said so on standard error.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import drives
import faults
import pack


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, default=22, help="cars (22 are recorded; more drive the same again)")
    parser.add_argument("--days", type=int, default=1, help="recorded days per car, at most (default 1)")
    parser.add_argument("--start", type=date.fromisoformat, default=date(2026, 1, 5), help="first day (YYYY-MM-DD)")
    parser.add_argument("--every", type=int, default=1, help="keep one frame in so many seconds (default 1)")
    parser.add_argument("--faults", default="", help="kinds to put in, one car each: " + ",".join(faults.KINDS))
    parser.add_argument("--late", type=float, default=0.0, help="share of frames sent minutes late, marked re-sent")
    parser.add_argument("--duplicates", type=float, default=0.0, help="share of frames sent twice with the same id")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same output")
    parser.add_argument("--truth", type=Path, help="write the faults put in to this file, as JSON")
    parser.add_argument("--output", type=Path, help="file to write (default: standard output)")
    chosen = parser.parse_args()
    unknown = [kind for kind in chosen.faults.split(",") if kind and kind not in faults.KINDS]
    if unknown:
        parser.error(f"unknown fault {unknown[0]!r}; known: {', '.join(faults.KINDS)}")
    for name in ("late", "duplicates"):
        if not 0 <= getattr(chosen, name) <= 1:
            parser.error(f"--{name} is a share from 0 to 1, not {getattr(chosen, name)}")
    if chosen.vehicles < 1 or chosen.days < 1 or chosen.every < 1:
        parser.error("--vehicles, --days and --every are 1 or more")
    return chosen


def plan(days: list[drives.Day], kinds: list[str]) -> list[faults.Fault]:
    """One fault per kind, each in another car, a third into its first day; cars with the longest days come first."""
    longest = sorted(days, key=lambda day: -len(day.times))
    chosen: list[faults.Fault] = []
    for kind in kinds:
        taken = {fault.vehicle for fault in chosen}
        day = next((day for day in longest if day.vehicle not in taken), None)
        if day is None:
            raise SystemExit(f"Error: {len(kinds)} faults need as many cars.\n\nHint: raise --vehicles.")
        change, seconds = faults.KINDS[kind]
        start = day.times[len(day.times) // 3]
        chosen.append(faults.Fault(kind, day.vehicle, start, seconds, (change.__doc__ or "").strip()))
    return chosen


def telemetry(
    days: list[drives.Day], chosen: argparse.Namespace, planned: list[faults.Fault]
) -> Iterator[dict[str, Any]]:
    """Every car's lines merged in order of sending; each carries the time it is sent at as `_sent`."""
    cars = pack.Cars()
    streams, odometers = [], {}
    for day in days:
        model = list(pack.MODELS)[hash_of(day.vehicle) % len(pack.MODELS)]
        begin = odometers.get(day.vehicle, 0.0)
        odometers[day.vehicle] = begin + sum(day.speeds) / 1000
        streams.append(_lines(cars, day, model, begin, chosen, planned))
    return heapq.merge(*streams, key=lambda line: line["_sent"])


def _lines(
    cars: pack.Cars,
    day: drives.Day,
    model: str,
    odometer: float,
    chosen: argparse.Namespace,
    planned: list[faults.Fault],
) -> Iterator[dict[str, Any]]:
    chance = random.Random(f"{chosen.seed}/{day.vehicle}/{day.times[0]}")
    waiting: list[tuple[Any, int, dict[str, Any]]] = []
    before, hardest = None, 0.0
    for number, frame in enumerate(pack.frames(cars, day, model, odometer)):
        if before is not None and (seconds := (frame.time - before.time).total_seconds()) <= 2:
            hardest = max(hardest, (before.speed - frame.speed) / 3.6 / seconds)
        before = frame
        mine = [fault for fault in planned if fault.vehicle == frame.vehicle]
        for fault in mine:
            since = (frame.time - fault.start).total_seconds()
            if 0 <= since < fault.seconds:
                faults.KINDS[fault.kind][0](frame, since)
        if number % chosen.every:
            continue
        while waiting and waiting[0][0] <= frame.time:
            yield heapq.heappop(waiting)[2]
        line = _line(frame, number, frame.time, hardest)
        hardest = 0.0
        if chance.random() < chosen.late:
            sent = frame.time + timedelta(seconds=chance.randint(60, 600))
            line["data"]["resent"] = True
            heapq.heappush(waiting, (sent, number, {**line, "_sent": sent}))
            continue
        yield line
        if chance.random() < chosen.duplicates:
            yield line
    for _, _, line in sorted(waiting, key=lambda item: item[:2]):
        yield line


def _line(frame: pack.Frame, number: int, sent: Any, hardest: float) -> dict[str, Any]:
    stamp = frame.time.isoformat().replace("+00:00", "Z")
    return {
        "_sent": sent,
        "key": frame.vehicle,
        "data": {
            "id": f"{frame.vehicle}/{frame.time:%Y%m%d}/{number}",
            "vehicle": frame.vehicle,
            "model": frame.model,
            "ts": stamp,
            "speed": round(frame.speed, 1),
            "brake": round(hardest, 2),
            "odometer": round(frame.odometer, 3),
            "soc": round(frame.soc, 2),
            "power": round(frame.power, 2),
            "voltage": round(frame.voltage, 1),
            "current": round(frame.current, 1),
            "cell_max": round(frame.cell_max, 3),
            "cell_min": round(frame.cell_min, 3),
            "temperature_max": round(frame.temperature_max, 1),
            "temperature_min": round(frame.temperature_min, 1),
            "resent": False,
        },
    }


def hash_of(text: str) -> int:
    """A number that is the same in every run (str.__hash__ is not)."""
    return sum(text.encode())


def main() -> None:
    chosen = options()
    days = drives.fleet(chosen.vehicles, chosen.start, chosen.days)
    planned = plan(days, [kind for kind in chosen.faults.split(",") if kind])
    for fault in planned:
        print(
            f"put in on purpose: {fault.kind} in {fault.vehicle} at {fault.start:%H:%M:%S}: {fault.what}",
            file=sys.stderr,
        )
    count = 0
    out = chosen.output.open("w") if chosen.output else sys.stdout
    with out:
        for line in telemetry(days, chosen, planned):
            out.write(json.dumps({"key": line["key"], "data": line["data"]}, separators=(",", ":")) + "\n")
            count += 1
    if chosen.truth:
        chosen.truth.write_text(json.dumps([fault.line() for fault in planned], indent=1) + "\n")
    print(f"{count} frames of {len({day.vehicle for day in days})} cars", file=sys.stderr)


if __name__ == "__main__":
    main()
