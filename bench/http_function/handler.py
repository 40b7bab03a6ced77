"""The handlers that are measured: a typed payload in, a typed reply out, hardly any work between."""

import msgspec
from fleetfn import State


class Frame(msgspec.Struct):
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


class Seen(msgspec.Struct):
    vehicle: str
    hottest: float


class Count(msgspec.Struct):
    frames: int = 0
    hottest: float = -273.15


def frame(frame: Frame) -> Seen:
    return Seen(frame.vehicle, frame.temperature_max)


async def later(frame: Frame) -> Seen:
    return Seen(frame.vehicle, frame.temperature_max)


def frames(batch: Frames) -> Seen:
    return Seen(batch.vehicle, max(each.temperature_max for each in batch.frames))


def counted(frame: Frame, state: State[Count]) -> Seen:
    count = state.value
    count.frames += 1
    count.hottest = max(count.hottest, frame.temperature_max)
    return Seen(frame.vehicle, count.hottest)
