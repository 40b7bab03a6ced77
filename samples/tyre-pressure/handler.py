"""Tyre warnings per wheel: low (with hysteresis), fast loss, slow leak, a sensor that fell silent; each told once.

Pressures are compared at one temperature, since a cold night is no leak. Sensors sleep while a car is parked: what they
do not say is no news, until the car has driven for a while. A vehicle that reports in other units than kPa is
understood as long as its wheels agree with each other.
"""

from datetime import datetime
from statistics import linear_regression, median

from fleetfn import Config, Context, Response, Snapshot, State
from msgspec import Struct, field

UNITS = {"kPa": 1.0, "psi": 6.894757, "bar": 100.0, "Pa": 0.001}
"""kPa in one of each."""

PLAUSIBLE = (0.5, 1.5)
"""Shares of the placard between which the middle one of a car's wheels lies: four tyres do not go flat at once."""

STALE = 300.0
"""Seconds between two messages after which the car was parked."""

SAMPLE_EVERY = 900.0
SAMPLES = 96
"""A wheel's history for slow leaks: one sample in so many seconds, so many of them."""


class Wheel(Struct):
    """As it comes. `pressure` above the atmosphere; None: the sensor has not spoken."""

    pressure: float | None = None
    temperature: float | None = None
    """Degrees Celsius."""


class Message(Struct):
    vehicle: str
    ts: datetime
    speed: float
    """km/h"""
    wheels: dict[str, Wheel]


class Limits(Struct):
    placard: float
    low: float
    clear: float
    confirm: float
    per_kelvin: float
    cold: float
    fast: float
    slow: float
    slow_hours: float
    slow_loss: float
    silent: float


class Tyre(Struct):
    """What is remembered of a wheel. Pressures in kPa at the cold temperature, times in Unix seconds."""

    pressure: float | None = None
    at: float = 0.0
    low_since: float | None = None
    low: bool = False
    losing: bool = False
    leaking: bool = False
    silent_for: float = 0.0
    """Seconds driven since it spoke."""
    silent: bool = False
    history: list[tuple[float, float]] = field(default_factory=list)
    """(time, pressure less that of the middle one of the other wheels)."""


class Car(Struct):
    tyres: dict[str, Tyre] = field(default_factory=dict)
    unit: str = ""
    last: float = 0.0
    late: int = 0
    implausible: int = 0


class Warning(Struct):  # noqa: A001 - the word for it
    vehicle: str
    wheel: str
    kind: str
    """low, fast, slow, silent"""
    text: str
    ts: datetime
    pressure: float | None


def watch(message: Message, state: State[Car], limits: Config[Limits], ctx: Context) -> None:
    car, now = state.value, message.ts.timestamp()
    if now <= car.last:
        car.late += 1
        return
    drove = now - car.last if message.speed > 0 and now - car.last <= STALE else 0.0
    car.last = now
    spoken = [wheel.pressure for wheel in message.wheels.values() if wheel.pressure is not None]
    unit = unit_of(spoken, limits)
    if spoken and unit is None:
        car.implausible += 1
        return
    car.unit = unit or car.unit
    pressures = {name: cold(wheel, car.unit, limits) for name, wheel in message.wheels.items()}
    for name, pressure in pressures.items():
        tyre = car.tyres.setdefault(name, Tyre())
        if pressure is None:
            found = listen(tyre, drove, limits)
        else:
            others = [other for wheel, other in pressures.items() if wheel != name and other is not None]
            found = judge(tyre, pressure, others, now, limits)
        if found is not None:
            kind, text = found
            ctx.emit("warnings", Warning(message.vehicle, name, kind, text, message.ts, rounded(pressure)))


def unit_of(spoken: list[float], limits: Limits) -> str | None:
    """The unit in which the middle one of the wheels is a pressure that a tyre can have; None: in none."""
    least, most = (share * limits.placard for share in PLAUSIBLE)
    return next((unit for unit, kpa in UNITS.items() if spoken and least <= median(spoken) * kpa <= most), None)


def cold(wheel: Wheel, unit: str, limits: Limits) -> float | None:
    """KPa that the tyre would have at the cold temperature."""
    if wheel.pressure is None:
        return None
    warmer = 0.0 if wheel.temperature is None else wheel.temperature - limits.cold
    return wheel.pressure * UNITS[unit] - warmer * limits.per_kelvin


def judge(tyre: Tyre, pressure: float, others: list[float], now: float, limits: Limits) -> tuple[str, str] | None:
    """What is new about a wheel that has spoken: kind and words, the worst first."""
    before, since = tyre.pressure, now - tyre.at
    tyre.pressure, tyre.at = pressure, now
    tyre.silent_for, tyre.silent = 0.0, False
    is_low, leaks = low(tyre, pressure, now, limits), leak(tyre, pressure, others, now, limits)
    rate = (before - pressure) / since * 60 if before is not None and since <= STALE else 0.0
    if rate >= limits.fast and not tyre.losing:
        tyre.losing = True
        return "fast", f"losing {rate:.0f} kPa a minute, {pressure:.0f} kPa left: stop"
    if is_low:
        return "low", f"{pressure:.0f} kPa, {pressure / limits.placard:.0%} of the placard"
    if leaks and not (tyre.low or tyre.losing):
        return "slow", f"losing {leaks:.1f} kPa an hour, {pressure:.0f} kPa left"
    return None


def low(tyre: Tyre, pressure: float, now: float, limits: Limits) -> bool:
    """True once, when it has been low for long enough."""
    if pressure >= limits.clear * limits.placard:
        tyre.low, tyre.losing, tyre.low_since = False, False, None
    elif pressure > limits.low * limits.placard:
        tyre.low_since = None
    elif not tyre.low:
        tyre.low_since = tyre.low_since or now
        tyre.low = now - tyre.low_since >= limits.confirm
        return tyre.low
    return False


def leak(tyre: Tyre, pressure: float, others: list[float], now: float, limits: Limits) -> float | None:
    """How many kPa an hour, once: by the line through its pressure less the others', which weather changes alike."""
    if len(others) < 2 or (tyre.history and now - tyre.history[-1][0] < SAMPLE_EVERY):
        return None
    difference = pressure - median(others)
    if tyre.history and difference - tyre.history[-1][1] > limits.slow_loss:
        tyre.history, tyre.leaking = [], False  # somebody pumped it up
    tyre.history = [*tyre.history, (now, difference)][-SAMPLES:]
    hours = [(moment - tyre.history[0][0]) / 3600 for moment, _ in tyre.history]
    if len(hours) < 3 or hours[-1] < limits.slow_hours or tyre.leaking:
        return None
    slope = linear_regression(hours, [value for _, value in tyre.history]).slope
    if -slope < limits.slow or -slope * hours[-1] < limits.slow_loss:
        return None
    tyre.leaking = True
    return -slope


def listen(tyre: Tyre, drove: float, limits: Limits) -> tuple[str, str] | None:
    """A wheel that has not spoken: news after a while of driving, never of a parked car."""
    tyre.silent_for = tyre.silent_for + drove if drove else 0.0
    if tyre.silent or tyre.silent_for < limits.silent:
        return None
    tyre.silent = True
    return "silent", f"no word from its sensor in {tyre.silent_for / 60:.0f} minutes of driving"


def rounded(pressure: float | None) -> float | None:
    return None if pressure is None else round(pressure, 1)


def show(car: Snapshot[Car]) -> Car | Response:
    return car.value if car.exists else Response(404, {"error": "no message of this vehicle yet"})
