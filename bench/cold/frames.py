"""A handler that needs numpy and pandas."""

from __future__ import annotations

import msgspec
import numpy as np
import pandas as pd


class Frame(msgspec.Struct):
    vehicle: str
    ts: str
    temperature_max: float


def answer(frame: Frame) -> dict[str, str]:
    last = pd.Series(np.array([frame.temperature_max]), index=[frame.ts])
    return {"vehicle": frame.vehicle, "hottest": str(last.max())}
