"""What the handlers of all peers take and give, in pydantic models."""

from pydantic import BaseModel


class Frame(BaseModel):
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


class Frames(BaseModel):
    vehicle: str
    frames: list[Frame]


class Seen(BaseModel):
    vehicle: str
    hottest: float


KINDS = {"fleet.frame": Frame, "fleet.frames": Frames}
"""Type of a CloudEvent -> its data."""


def seen(data: Frame | Frames) -> Seen:
    """What every handler does."""
    if isinstance(data, Frame):
        return Seen(vehicle=data.vehicle, hottest=data.temperature_max)
    return Seen(vehicle=data.vehicle, hottest=max(each.temperature_max for each in data.frames))
