"""What a benchmark found: lines of a table, and of bench/results/latest.json."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).parent / "results" / "latest.json"


class Line(msgspec.Struct, frozen=True):
    """One subject's figure. Several subjects share a `line` (what was measured); one of them is its floor."""

    line: str
    subject: str
    value: float
    """Median of `runs`, in `unit`."""
    unit: str
    floor: float | None
    """The bare library's median in the same line; None where a line has none."""
    ratio: float | None
    """Median of the ratios to the floor, each of one turn: above 1 is faster where the unit is a rate, slower where it
    is a time.
    """
    runs: tuple[float, ...]


def keep(lines: list[Line], path: Path = LATEST) -> None:
    """Write them; lines measured before, and not this time, stay."""
    measured = {line.line for line in lines}
    before = msgspec.json.decode(path.read_bytes(), type=list[Line]) if path.exists() else []
    kept = [line for line in before if line.line not in measured]
    path.parent.mkdir(exist_ok=True)
    text = msgspec.json.format(msgspec.json.encode(sorted([*kept, *lines], key=lambda line: line.line)), indent=1)
    path.write_bytes(text + b"\n")


def show(lines: list[Line]) -> None:
    table = Table("line", "subject", "value", "unit", "ratio", "runs")
    last = ""
    for line in lines:
        if last and line.line != last:
            table.add_section()
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        runs = " ".join(_figure(run) for run in line.runs)
        table.add_row("" if line.line == last else line.line, line.subject, _figure(line.value), line.unit, ratio, runs)
        last = line.line
    Console(width=150).print(table)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004 - digits that mean something
