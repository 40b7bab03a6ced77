"""Notes how old each event is when it is handled: since the instant at which it was to be sent."""

import time
from pathlib import Path

import msgspec
from fleetfn import Config, State


class Frame(msgspec.Struct):
    """One second of a car."""

    vehicle: str
    ts: str
    speed: float
    soc: float
    temperature_max: float


class Timed(msgspec.Struct):
    """`due`: by the machine's monotonic clock. `of`: events of the run, whose ages go to a file of its name."""

    run: str
    of: int
    due: float
    frame: Frame


class Folder(msgspec.Struct):
    ages: str


class Car(msgspec.Struct):
    frames: int = 0
    hottest: float = 0.0


_ages: dict[str, list[float]] = {}


def keep(event: Timed, state: State[Car], folder: Config[Folder]) -> None:
    car = state.value
    car.frames += 1
    car.hottest = max(car.hottest, event.frame.temperature_max)
    ages = _ages.setdefault(event.run, [])
    ages.append(time.monotonic() - event.due)
    if len(ages) == event.of:
        written = Path(folder.ages) / f"{event.run}.part"
        written.write_bytes(msgspec.json.encode(_ages.pop(event.run)))
        written.rename(written.with_suffix(".json"))
