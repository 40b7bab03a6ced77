"""One HTML page of a fleet's day: figures, charts as SVG, a table. It needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from report import Car, Fleet

STYLE = """
:root { --ink: #16202b; --soft: #5b6878; --line: #dde3ea; --bar: #2f6fb0; --warn: #c2562b; --night: #eef1f6; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 0 auto; max-width: 1080px; padding: 32px 24px; }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 17px; margin: 36px 0 8px; }
p { margin: 4px 0 0; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 24px; }
.figure { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.figure b { display: block; font-size: 24px; font-weight: 600; } .figure span { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 36px; }
svg { width: 100%; height: auto; display: block; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .soft { fill: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { color: var(--soft); font-weight: 500; font-size: 13px; }
@media print { body { padding: 0; } h2, svg, tr { break-inside: avoid; } }
"""


def page(fleet: Fleet) -> str:
    """The whole document."""
    title = f"Fleet report for {fleet.day:%A, %d %B %Y}"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>{count(len(fleet.cars), "car")} drove; times in {escape(fleet.timezone)}. A trip counts for the day it began in.</p>
{figures(fleet)}
<h2>When the fleet drives</h2><p>Minutes driven in each hour of the day, all cars together; night shaded.</p>
{by_hour(fleet)}
<div class="pair">
<section><h2>Distance</h2><p>km, by car</p>{bars(fleet.cars, lambda car: car.distance, "var(--bar)")}</section>
<section><h2>Energy</h2><p>kWh per 100 km, by the battery; cars with a short day are left out</p>
{bars(fleet.cars, lambda car: car.per_100_km, "var(--bar)", mark=fleet.per_100_km)}</section>
<section><h2>Harsh braking</h2><p>Events per 100 km</p>
{bars(fleet.cars, lambda car: car.harsh_per_100_km, "var(--warn)", mark=fleet.harsh_per_100_km)}</section>
<section><h2>Longest stop</h2><p>Hours between two trips</p>
{bars(fleet.cars, lambda car: car.longest_stop / 3600 or None, "var(--bar)")}</section>
</div>
<h2>All cars</h2>{all_cars(fleet)}
</body></html>
"""


def figures(fleet: Fleet) -> str:
    stop = f"longest stop{': ' + fleet.longest_stop_vehicle if fleet.longest_stop_vehicle else ''}"
    shown = [
        (f"{fleet.distance:,.0f} km", "distance"),
        (clock(fleet.driving), "hours driven"),
        (number(fleet.per_100_km, " kWh"), "per 100 km"),
        (number(fleet.harsh_per_100_km), "harsh brakings per 100 km"),
        (f"{fleet.night_share:.0%}", "of the driving at night"),
        (clock(fleet.longest_stop), stop),
    ]
    return '<div class="figures">' + "".join(
        f'<div class="figure"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in shown
    ) + "</div>"  # fmt: skip


def by_hour(fleet: Fleet) -> str:
    """24 columns."""
    width, height, left, step = 1000, 190, 40, 40
    most = max(fleet.hours) / 60 or 1.0
    parts = [f'<svg viewBox="0 0 {width} {height + 30}" role="img" aria-label="Minutes driven by hour">']
    night = night_hours(fleet.night)
    for hour, seconds in enumerate(fleet.hours):
        x, minutes = left + hour * step, seconds / 60
        tall = minutes / most * (height - 30)
        if hour in night:
            parts.append(f'<rect x="{x}" y="0" width="{step}" height="{height}" fill="var(--night)"/>')
        parts.append(
            f'<rect x="{x + 5}" y="{height - tall:.1f}" width="{step - 10}" height="{tall:.1f}" fill="var(--bar)">'
            f"<title>{hour}:00 to {hour + 1}:00: {minutes:.0f} min</title></rect>"
        )
        if minutes >= 0.5:
            parts.append(
                f'<text x="{x + step / 2}" y="{height - tall - 5:.1f}" text-anchor="middle">{minutes:.0f}</text>'
            )
        parts.append(f'<text class="soft" x="{x + step / 2}" y="{height + 18}" text-anchor="middle">{hour}</text>')
    parts.append(f'<line x1="{left}" x2="{left + 24 * step}" y1="{height}" y2="{height}" stroke="var(--line)"/></svg>')
    return "".join(parts)


def bars(cars: list[Car], value: Callable[[Car], float | None], colour: str, mark: float | None = None) -> str:
    """One row a car, longest bar first; `mark`: the fleet's own value, as a line."""
    rows = sorted(((value(car), car.vehicle) for car in cars if value(car) is not None), reverse=True)
    if not rows:
        return "<p>Nothing to show.</p>"
    most = max(*(number for number, _ in rows), mark or 0.0) or 1.0
    left, room, high = 110, 300, 22
    parts = [f'<svg viewBox="0 0 470 {len(rows) * high + 18}" role="img">']
    for index, (number, vehicle) in enumerate(rows):
        y, long = index * high, number / most * room
        parts.append(
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(vehicle)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{max(long, 1):.1f}" height="14" rx="2" fill="{colour}"/>'
            f'<text class="soft" x="{left + room + 48}" y="{y + 15}" text-anchor="end">{number:.1f}</text>'
        )
    if mark is not None:
        x = left + mark / most * room
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{len(rows) * high}" stroke="var(--ink)" '
            f'stroke-dasharray="3 3"/><text class="soft" x="{x:.1f}" y="{len(rows) * high + 14}" '
            f'text-anchor="middle">fleet {mark:.1f}</text>'
        )
    return "".join(parts) + "</svg>"


def all_cars(fleet: Fleet) -> str:
    head = ("Vehicle", "Model", "Trips", "km", "Driven", "kWh", "kWh/100 km", "Harsh/100 km", "Night", "Longest stop")
    rows = [
        (
            car.vehicle,
            car.model,
            str(car.trips),
            f"{car.distance:.1f}",
            clock(car.driving),
            f"{car.energy:.1f}",
            number(car.per_100_km),
            number(car.harsh_per_100_km),
            f"{car.night_share:.0%}",
            clock(car.longest_stop) if car.longest_stop else "-",
        )
        for car in fleet.cars
    ]
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    heads = "".join(f"<th>{name}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def number(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:.1f}{unit}"


def clock(seconds: float) -> str:
    """Hours and minutes: 7:05."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def night_hours(night: tuple[int, int]) -> list[int]:
    """Hours of the day from the first of `night` until its second, over midnight where need be."""
    begin, end = night
    return [hour for hour in range(24) if (begin <= hour < end if begin <= end else hour >= begin or hour < end)]


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
