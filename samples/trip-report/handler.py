"""Trips out of telemetry: one frame after the other is added to its vehicle's current trip.

A trip ends where no frame came for `gap` seconds. Distance is the odometer's, so that a lost frame costs nothing;
energy is power over time. A frame that is older than the last one (sent late, or twice) is counted and left out.
"""

from datetime import datetime
from zoneinfo import ZoneInfo

from fleetfn import Config, Response, Snapshot, State
from msgspec import Struct, field

STEP = 30.0
"""Seconds that one frame may stand for at most when its power is counted."""

STANDSTILL = 3.0
"""km/h below which a car stands."""

FASTEST = 250.0 / 3600
"""km per second: an odometer that runs faster was replaced or misread."""


class Frame(Struct):
    """`brake`: hardest deceleration since the frame before, m/s2. Power in kW, positive out of the battery."""

    vehicle: str
    ts: datetime
    speed: float
    odometer: float
    power: float
    brake: float = 0.0
    model: str = ""


class Settings(Struct):
    timezone: str
    night: tuple[int, int]
    gap: float
    harsh: float
    least: float
    keep: int
    folder: str


class Trip(Struct):
    """Times are Unix seconds; distance in km, energy in kWh, `standing` the longest standstill within, in seconds."""

    start: float
    end: float
    distance: float = 0.0
    energy: float = 0.0
    harsh: int = 0
    standing: float = 0.0
    hours: dict[int, float] = field(default_factory=dict)
    """Seconds driven in each hour of the day, in the zone of the settings."""


class Trips(Struct):
    model: str = ""
    trips: list[Trip] = field(default_factory=list)
    """Oldest first; the last one may still go on."""
    last: float = 0.0
    odometer: float = 0.0
    stands_since: float | None = None
    late: int = 0


def drive(frame: Frame, state: State[Trips], settings: Config[Settings]) -> None:
    """Add a frame."""
    book, now = state.value, frame.ts.timestamp()
    if now <= book.last:
        book.late += 1
        return
    seconds = now - book.last
    if not book.trips or seconds > settings.gap:
        book.trips.append(Trip(now, now))
        book.stands_since = None
    else:
        go_on(book, frame, seconds, settings)
    book.model, book.last, book.odometer = frame.model, now, frame.odometer
    oldest = now - settings.keep * 86_400
    book.trips = [trip for trip in book.trips if trip.end >= oldest]


def go_on(book: Trips, frame: Frame, seconds: float, settings: Settings) -> None:
    trip, now = book.trips[-1], frame.ts.timestamp()
    trip.end = now
    went = frame.odometer - book.odometer
    if 0 <= went <= seconds * FASTEST + 0.1:
        trip.distance += went
    trip.energy += frame.power * min(seconds, STEP) / 3600
    trip.harsh += frame.brake >= settings.harsh
    hour = frame.ts.astimezone(ZoneInfo(settings.timezone)).hour
    trip.hours[hour] = trip.hours.get(hour, 0.0) + seconds
    if frame.speed >= STANDSTILL:
        book.stands_since = None
    else:
        book.stands_since = book.stands_since or now
        trip.standing = max(trip.standing, now - book.stands_since)


def show(trips: Snapshot[Trips]) -> Trips | Response:
    return trips.value if trips.exists else Response(404, {"error": "no frame of this vehicle yet"})
