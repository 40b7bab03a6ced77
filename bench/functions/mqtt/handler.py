"""Frames of MQTT messages, with State and without. Notes when it had the first and the last."""

import time
from pathlib import Path

import msgspec
from fleetfn import Config, State


class Frame(msgspec.Struct):
    """One second of a car."""

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
    temperature_max: float
    temperature_min: float


class Goal(msgspec.Struct):
    """`count` messages are sent; when they are handled, seconds from the first to the last go to `file`."""

    count: int
    file: str


class Car(msgspec.Struct):
    frames: int = 0
    hottest: float = 0.0


PROBE = "probe"
"""Vehicle of a frame that is sent to find out whether frames arrive."""

_times: list[float] = []


def look(frame: Frame, goal: Config[Goal]) -> None:
    _handled(frame, goal)


def keep(frame: Frame, state: State[Car], goal: Config[Goal]) -> None:
    car = state.value
    car.frames += 1
    car.hottest = max(car.hottest, frame.temperature_max)
    _handled(frame, goal)


def _handled(frame: Frame, goal: Goal) -> None:
    if frame.vehicle == PROBE:
        Path(goal.file).with_suffix(".probe").touch()
        return
    _times.append(time.perf_counter())
    if len(_times) == goal.count:
        seconds = _times[-1] - _times[0]
        _times.clear()
        written = Path(goal.file).with_suffix(".part")
        written.write_text(str(seconds))
        written.rename(goal.file)
