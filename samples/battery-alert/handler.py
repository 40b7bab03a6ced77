"""Battery alerts: over-temperature with its rate of rise, cell spread, thermal runaway; once per alarm and vehicle.

An alarm latches: it is told when it begins and when it gets worse, never again, and ends only after the pack has been
calm for a while. Frames that arrive late (re-sent after a gap in coverage) are recorded and raise no alarm: nobody
should be woken for yesterday.
"""

from datetime import datetime
from statistics import median

from fleetfn import Config, Response, Snapshot, State
from msgspec import Struct, field

WINDOW = 60.0
"""Seconds of history that rates and the usual cell voltage are taken from."""

SCALE = (-40.0, 205.0)
"""Degrees Celsius that a probe can tell; at the ends of its scale its wire is open or shorted."""

BACK = 20.0
"""Kelvin around the last trusted temperature within which a probe that had jumped is believed again."""

CALM_VOLTAGE = 0.1
"""Share by which the lowest cell voltage may change between frames without telling of a real event."""


class Reading(Struct):
    """One frame. Temperatures in degrees Celsius, cell voltages in volt, current in ampere (either sign)."""

    vehicle: str
    ts: datetime
    temperature_max: float
    cell_max: float
    cell_min: float
    current: float
    resent: bool = False


class Limits(Struct):
    warm: float
    hot: float
    clear: float
    rise: float
    voltage_drop: float
    spread: float
    spread_clear: float
    rest_current: float
    spread_frames: int
    probe_step: float
    calm: float


class Pack(Struct):
    """What is remembered of a vehicle. `level`: 0 calm, 1 trend, 2 alarm, 3 runaway. Times are Unix seconds."""

    level: int = 0
    reason: str = ""
    since: float = 0.0
    last: float = 0.0
    calm_since: float | None = None
    hottest: float = -273.15
    frames: int = 0
    late: int = 0
    probe_faults: int = 0
    trusted: float | None = None
    """The last temperature before a probe jumped; None while it is believed."""
    wide_frames: int = 0
    recent: list[tuple[float, float, float]] = field(default_factory=list)
    """(time, highest temperature, lowest cell voltage) of the last `WINDOW` seconds."""


class Alert(Struct):
    vehicle: str
    level: int
    reason: str
    ts: datetime
    temperature_max: float
    rise: float
    """Kelvin per second."""
    spread: float
    """Volt."""


def watch(reading: Reading, state: State[Pack], limits: Config[Limits]) -> Alert | None:
    pack, now = state.value, reading.ts.timestamp()
    pack.frames += 1
    if reading.resent or now <= pack.last:
        pack.late += 1
        return None
    before = [sample for sample in pack.recent if sample[0] > now - WINDOW]
    pack.last = now
    if probe_is_broken(reading, pack, now, before, limits):
        pack.probe_faults += 1
        return None
    pack.hottest = max(pack.hottest, reading.temperature_max)
    pack.recent = [*before, (now, reading.temperature_max, reading.cell_min)]
    rise = rate_of_rise(pack.recent)
    level, reason = judge(reading, pack, before, rise, limits)
    if level > pack.level:
        pack.level, pack.reason, pack.since, pack.calm_since = level, reason, now, None
        spread = reading.cell_max - reading.cell_min
        return Alert(
            reading.vehicle, level, reason, reading.ts, reading.temperature_max, round(rise, 2), round(spread, 3)
        )
    release(reading, pack, now, limits)
    return None


def judge(
    reading: Reading, pack: Pack, before: list[tuple[float, float, float]], rise: float, limits: Limits
) -> tuple[int, str]:
    spread = reading.cell_max - reading.cell_min
    wide = spread > limits.spread and abs(reading.current) <= limits.rest_current
    if wide:
        pack.wide_frames += 1
    elif abs(reading.current) <= limits.rest_current:
        pack.wide_frames = 0  # under load nothing is learned about the spread
    usual = median(sample[2] for sample in before) if before else reading.cell_min
    dropped = usual - reading.cell_min >= limits.voltage_drop * usual
    if rise >= limits.rise and (dropped or reading.temperature_max >= limits.hot):
        return 3, "thermal runaway: " + ("cell voltage collapsed, " if dropped else "") + f"rising {rise:.1f} K/s"
    if reading.temperature_max >= limits.hot:
        return 2, f"over temperature: {reading.temperature_max:.1f} degrees Celsius"
    if pack.wide_frames >= limits.spread_frames:
        return 2, f"cell spread: {spread * 1000:.0f} mV near rest"
    if reading.temperature_max >= limits.warm and rise > 0:
        return 1, f"warm and rising: {reading.temperature_max:.1f} degrees Celsius"
    return 0, ""


def rate_of_rise(recent: list[tuple[float, float, float]]) -> float:
    """Kelvin per second over the last three frames: one noisy frame is not a trend."""
    if len(recent) < 3:
        return 0.0
    (begin, cold, _), (end, warm, _) = recent[-3], recent[-1]
    return (warm - cold) / (end - begin)


def probe_is_broken(
    reading: Reading, pack: Pack, now: float, before: list[tuple[float, float, float]], limits: Limits
) -> bool:
    """Off the scale, or after a step that no pack can make while the cell voltages stayed calm, until it is back."""
    if not SCALE[0] < reading.temperature_max < SCALE[1]:
        return True
    if pack.trusted is not None and abs(reading.temperature_max - pack.trusted) < BACK:
        pack.trusted = None
    if pack.trusted is None and before:
        then, temperature, _ = before[-1]
        if abs(reading.temperature_max - temperature) / (now - then) >= limits.probe_step:
            pack.trusted = temperature
    calm = not before or abs(reading.cell_min - before[-1][2]) < CALM_VOLTAGE * before[-1][2]
    return pack.trusted is not None and calm


def release(reading: Reading, pack: Pack, now: float, limits: Limits) -> None:
    """End the alarm once the pack has been below the lower limits for `calm` seconds."""
    spread = reading.cell_max - reading.cell_min
    if not pack.level or reading.temperature_max > limits.clear or spread > limits.spread_clear:
        pack.calm_since = None
        return
    pack.calm_since = pack.calm_since or now
    if now - pack.calm_since >= limits.calm:
        pack.level, pack.reason, pack.wide_frames, pack.calm_since = 0, "", 0, None


def show(pack: Snapshot[Pack]) -> Pack | Response:
    return pack.value if pack.exists else Response(404, {"error": "no frame of this vehicle yet"})
