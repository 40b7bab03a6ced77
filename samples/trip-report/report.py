"""The fleet's day: what the trips of one calendar day add up to, as values, as a table in the log, as files.

The day is the one before the scheduled instant, so running a fire again writes the same day again.
"""

import itertools
import logging
import os
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
from fleetfn import Config, Context, Tick
from handler import Settings, Trip, Trips
from page import clock, night_hours, number, page

log = logging.getLogger("trip-report")


class Car(msgspec.Struct):
    """One vehicle's day. Distances in km, energy in kWh, times in seconds; None where nothing can be said."""

    vehicle: str
    model: str
    trips: int
    distance: float
    driving: float
    energy: float
    per_100_km: float | None
    harsh: int
    harsh_per_100_km: float | None
    night_share: float
    longest_stop: float
    longest_stop_begin: datetime | None
    hours: list[float]


class Fleet(msgspec.Struct):
    day: date
    timezone: str
    night: tuple[int, int]
    """Hours at which it begins and ends."""
    cars: list[Car]
    distance: float
    driving: float
    energy: float
    per_100_km: float | None
    harsh: int
    harsh_per_100_km: float | None
    night_share: float
    longest_stop: float
    longest_stop_vehicle: str
    hours: list[float]


@dataclass(frozen=True)
class Day:
    """From midnight to midnight in the zone: 23 to 25 hours."""

    day: date
    zone: ZoneInfo

    @property
    def begin(self) -> float:
        return datetime.combine(self.day, time(), self.zone).timestamp()

    @property
    def end(self) -> float:
        return datetime.combine(self.day + timedelta(days=1), time(), self.zone).timestamp()


def daily(tick: Tick, ctx: Context, settings: Config[Settings]) -> Fleet:
    zone = ZoneInfo(settings.timezone)
    day = Day(tick.at.astimezone(zone).date() - timedelta(days=1), zone)
    cars = []
    for vehicle, book in ctx.states(Trips):
        trips = [trip for trip in book.trips if day.begin <= trip.start < day.end]
        if trips:
            cars.append(car(vehicle, book.model, trips, settings, zone))
    fleet = sum_up(day, cars, settings)
    keep(fleet, folder(settings))
    log.info("%s", table(fleet))
    return fleet


def car(vehicle: str, model: str, trips: list[Trip], settings: Settings, zone: ZoneInfo) -> Car:
    """A trip belongs to the day it began in."""
    distance = sum(trip.distance for trip in trips)
    energy = sum(trip.energy for trip in trips)
    hours = [sum(trip.hours.get(hour, 0.0) for trip in trips) for hour in range(24)]
    harsh = sum(trip.harsh for trip in trips)
    stop, began = max(
        ((later.start - earlier.end, earlier.end) for earlier, later in itertools.pairwise(trips)),
        default=(0.0, 0.0),
    )
    enough = distance >= settings.least
    return Car(
        vehicle=vehicle,
        model=model,
        trips=len(trips),
        distance=round(distance, 2),
        driving=sum(hours),
        energy=round(energy, 3),
        per_100_km=round(energy / distance * 100, 2) if enough else None,
        harsh=harsh,
        harsh_per_100_km=round(harsh / distance * 100, 2) if enough else None,
        night_share=night_share(hours, settings),
        longest_stop=stop,
        longest_stop_begin=datetime.fromtimestamp(began, zone) if stop else None,
        hours=hours,
    )


def night_share(hours: list[float], settings: Settings) -> float:
    """Of the driving time, 0 to 1."""
    at_night = sum(hours[hour] for hour in night_hours(settings.night))
    return round(at_night / sum(hours), 4) if sum(hours) else 0.0


def sum_up(day: Day, cars: list[Car], settings: Settings) -> Fleet:
    distance, energy = sum(car.distance for car in cars), sum(car.energy for car in cars)
    hours = [sum(car.hours[hour] for car in cars) for hour in range(24)]
    harsh = sum(car.harsh for car in cars)
    longest = max(cars, key=lambda car: car.longest_stop, default=None)
    enough = distance >= settings.least
    return Fleet(
        day=day.day,
        timezone=settings.timezone,
        night=settings.night,
        cars=sorted(cars, key=lambda car: -car.distance),
        distance=round(distance, 1),
        driving=sum(hours),
        energy=round(energy, 2),
        per_100_km=round(energy / distance * 100, 2) if enough else None,
        harsh=harsh,
        harsh_per_100_km=round(harsh / distance * 100, 2) if enough else None,
        night_share=night_share(hours, settings),
        longest_stop=longest.longest_stop if longest else 0.0,
        longest_stop_vehicle=longest.vehicle if longest and longest.longest_stop else "",
        hours=hours,
    )


def table(fleet: Fleet) -> str:
    head = [
        f"{fleet.day}: {len(fleet.cars)} cars, {fleet.distance:.1f} km, {clock(fleet.driving)} driven",
        f"{'vehicle':<14}{'trips':>6}{'km':>9}{'kWh/100km':>11}{'harsh/100km':>13}{'night':>8}{'longest stop':>14}",
    ]
    rows = [
        f"{each.vehicle:<14}{each.trips:>6}{each.distance:>9.1f}{number(each.per_100_km):>11}"
        f"{number(each.harsh_per_100_km):>13}{each.night_share:>8.0%}{clock(each.longest_stop):>14}"
        for each in fleet.cars
    ]
    return "\n".join(head + rows)


def folder(settings: Settings) -> Path:
    return Path(os.environ.get("TRIP_REPORTS") or settings.folder).expanduser()


def keep(fleet: Fleet, where: Path) -> None:
    """`fleet-<day>.json` and `.html`: replaced whole, so that nobody reads half a page."""
    where.mkdir(parents=True, exist_ok=True)
    whole = msgspec.json.format(msgspec.json.encode(fleet))
    for suffix, text in ((".json", whole), (".html", page(fleet).encode())):
        fresh = where / f".fleet-{fleet.day}{suffix}.{os.getpid()}"
        fresh.write_bytes(text)
        fresh.replace(where / f"fleet-{fleet.day}{suffix}")
