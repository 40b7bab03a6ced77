"""From speed to battery telemetry.

Power and state of charge come from fastsim's own model of a measured car (2022 Tesla Model 3 RWD, 2022 Renault Zoe).
Voltages and temperatures are not in that model: they come from the lumped pack below, whose constants are plain
assumptions of ours, good enough to look like a healthy pack, and measured on none.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from drives import Day

MODELS = {"model-3": "2022_Tesla_Model_3_RWD.csv", "zoe": "2022_Renault_Zoe_ZE50_R135.csv"}
CELLS = {"model-3": 106, "zoe": 96}
"""Cells in series: assumed; they only scale pack voltage to cell voltage."""

CELL_EMPTY, CELL_FULL = 3.2, 4.1  # V at rest, straight line over state of charge
RESISTANCE = 0.09  # ohm, whole pack
HEAT_CAPACITY = 250e3  # J/K, whole pack
COOLING = 120.0  # W/K to the coolant
COOLANT = 24.0  # degrees Celsius
SPREAD_IDLE, SPREAD_LOADED = 0.008, 0.0002  # V between cells: at rest, and more per ampere
HOT_SPOT = 0.004  # K per ampere between the warmest and the coldest probe
FULL = 0.95  # state of charge in the morning, and where charging ends
CHARGE_RATE = 0.2 / 3600  # per second of parking: an 11 kW wall box on some 55 kWh
PARKED = 300  # seconds without a frame
PIECE = 900  # seconds simulated at a time, so that a drive can end when the battery does
EMPTY = 0.15  # state of charge at which the rest of a drive is left out


@dataclass
class Frame:
    """One second of one car. Current is positive out of the battery (discharging)."""

    vehicle: str
    model: str
    time: Any
    speed: float  # km/h
    odometer: float  # km since the recording's first day
    soc: float  # percent
    power: float  # kW out of the battery
    voltage: float  # V
    current: float  # A
    cell_max: float  # V
    cell_min: float  # V
    temperature_max: float  # degrees Celsius
    temperature_min: float


class Cars:
    """fastsim, imported once: it takes seconds and prints advice on other packages."""

    def __init__(self) -> None:
        noise = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
            warnings.simplefilter("ignore")
            import fastsim  # noqa: PLC0415 - seconds of import
            from fastsim import cycle, vehicle  # noqa: PLC0415 - slow, and only a pack needs it

            # Its audit of energy assumes that a cycle begins at rest; our pieces of a drive do not.
            logging.disable(logging.WARNING)
            self._rust = fastsim.fastsimrust
            self._cycle = cycle.Cycle
            self._cars = {name: vehicle.Vehicle.from_file(file).to_rust() for name, file in MODELS.items()}

    def drive(self, model: str, speeds: list[float], charge: float) -> tuple[list[float], list[float]]:
        """Power out of the battery (kW) and state of charge (0..1), second by second, beginning at `charge`."""
        seconds = [float(second) for second in range(len(speeds))]
        flat = [0.0] * len(seconds)
        cycle = self._cycle.from_dict(
            {"time_s": seconds, "mps": speeds, "grade": flat, "road_type": flat, "name": "recording"}
        )
        run = self._rust.RustSimDrive(cycle.to_rust(), self._cars[model])
        run.sim_drive(charge)
        return run.ess_kw_out_ach.tolist(), run.soc.tolist()  # list() would copy all for each item


def frames(cars: Cars, day: Day, model: str, odometer: float) -> Iterator[Frame]:
    """The day's frames, drive by drive; the day starts with a full battery and parking charges it."""
    charge, warmth, parked_since = FULL, COOLANT, None
    for times, speeds in _drives(day):
        if parked_since is not None:
            parked = (times[0] - parked_since).total_seconds()
            charge = min(charge + parked * CHARGE_RATE, FULL)
            warmth = COOLANT + (warmth - COOLANT) * 0.5 ** (parked / 3600)
        parked_since = times[-1]
        for begin in range(0, len(times) - 1, PIECE):
            if charge < EMPTY:
                break  # petrol cars were recorded, too: this battery would not have come so far
            piece = slice(begin, begin + PIECE)
            for frame in _drive(cars, day.vehicle, model, times[piece], speeds[piece], charge, warmth, odometer):
                yield frame
                charge, warmth, odometer = frame.soc / 100, frame.temperature_min, frame.odometer


def _drive(
    cars: Cars, vehicle: str, model: str, times: list[Any], speeds: list[float],
    charge: float, warmth: float, odometer: float,
) -> Iterator[Frame]:  # fmt: skip
    powers, socs = cars.drive(model, speeds, charge)
    cells = CELLS[model]
    for moment, speed, power, soc in zip(times, speeds, powers, socs, strict=True):
        rest = cells * (CELL_EMPTY + (CELL_FULL - CELL_EMPTY) * soc)
        current = power * 1000 / rest
        warmth += (current * current * RESISTANCE - COOLING * (warmth - COOLANT)) / HEAT_CAPACITY
        odometer += speed / 1000
        voltage = rest - current * RESISTANCE
        spread = SPREAD_IDLE + SPREAD_LOADED * abs(current)
        yield Frame(
            vehicle, model, moment, speed * 3.6, odometer, soc * 100, power, voltage, current,
            voltage / cells + spread / 2, voltage / cells - spread / 2, warmth + HOT_SPOT * abs(current), warmth,
        )  # fmt: skip


def _drives(day: Day) -> Iterator[tuple[list[Any], list[float]]]:
    """Pieces of a day between parkings. Shorter gaps are holes in the log, not parking."""
    begin = 0
    for index in range(1, len(day.times) + 1):
        if index == len(day.times) or (day.times[index] - day.times[index - 1]).total_seconds() > PARKED:
            if index - begin > 1:  # fastsim needs two seconds
                yield day.times[begin:index], day.speeds[begin:index]
            begin = index
