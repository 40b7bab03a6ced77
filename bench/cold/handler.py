"""What cold starts run: one file, the same for each trigger and for the bare fork."""

from __future__ import annotations

import os
import socket

import msgspec
from fleetfn import State, Tick


class Frame(msgspec.Struct):
    vehicle: str
    ts: str
    temperature_max: float


class Hottest(msgspec.Struct):
    celsius: float = 0.0


def answer(frame: Frame) -> dict[str, str]:
    return {"vehicle": frame.vehicle}


def keep(frame: Frame, state: State[Hottest]) -> dict[str, str]:
    state.value.celsius = max(state.value.celsius, frame.temperature_max)
    return {"vehicle": frame.vehicle}


def tell(_frame: Frame) -> None:
    _seen()


def fired(tick: Tick) -> None:
    _seen(str(tick.at.timestamp()))


def _seen(what: str = "seen") -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(what.encode(), os.environ["FN_BENCH_SEEN"])
