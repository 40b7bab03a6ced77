"""Subjects side by side: each runs once a turn, so that whatever the machine does meanwhile meets all of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence

from results import Line

Subject = Callable[[], float]
"""Measures once; the figure, in the line's unit."""


def side_by_side(line: str, unit: str, subjects: Mapping[str, Subject], *, floor: str | None, runs: int) -> list[Line]:
    """`floor`: which of the subjects is the bare library. Who begins changes from turn to turn."""
    figures: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    for turn in range(runs):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            say(f"{line}: {name}, {turn + 1} of {runs}")
            figures[name].append(subjects[name]())
    return [as_line(line, name, unit, figures[name], figures[floor] if floor else None) for name in names]


def as_line(line: str, subject: str, unit: str, runs: Sequence[float], floor: Sequence[float] | None = None) -> Line:
    """Figures that were measured turn by turn, `floor` in the same turns."""
    ratio = None
    if floor:
        ratio = statistics.median(value / bare for value, bare in zip(runs, floor, strict=True))
    middle = statistics.median(floor) if floor else None
    return Line(line, subject, statistics.median(runs), unit, middle, ratio, tuple(runs))


def say(text: str) -> None:
    """What is under way, on standard error."""
    sys.stderr.write(f"\r\033[K{text}" if sys.stderr.isatty() else f"{text}\n")
    sys.stderr.flush()
