"""The functions that the Kafka benchmark runs; a function.yaml beside a copy of this file names one of them."""

import msgspec
from fleetfn import State
from kafka_tally import Tally
from payloads import Frame, Frames

tally = Tally()
hot = 60.0


class Pack(msgspec.Struct):
    records: int = 0
    hottest: float = 0.0


def look(frame: Frame) -> None:
    warns(frame)
    tally.one()


async def look_async(frame: Frame) -> None:
    warns(frame)
    tally.one()


def look_large(frames: Frames) -> None:
    warns(frames.frames[-1])
    tally.one()


def keep(frame: Frame, state: State[Pack]) -> None:
    add(state.value, frame)
    tally.one()


async def keep_async(frame: Frame, state: State[Pack]) -> None:
    add(state.value, frame)
    tally.one()


def keep_large(frames: Frames, state: State[Pack]) -> None:
    add(state.value, frames.frames[-1])
    tally.one()


def warns(frame: Frame) -> bool:
    return frame.temperature_max > hot and frame.speed > 0


def add(pack: Pack, frame: Frame) -> None:
    pack.records += 1
    pack.hottest = max(pack.hottest, frame.temperature_max)
