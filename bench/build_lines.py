"""Images: `fn build --push` by both builders, beside `docker build` of a Dockerfile written with care."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from image_ground import Ground
from image_subjects import ByBuildpacks, ByDirect, ByDocker, Subject
from results import Line
from setting import Setting
from turns import as_line, side_by_side

FLOOR = "docker build"
MEGABYTE = 1_000_000


def lines(setting: Setting) -> Iterator[Line]:
    with Ground(setting) as ground:
        by_hand = ByDocker(ground)
        subjects: Mapping[str, Subject] = {
            "FleetFn, direct": ByDirect(ground),
            "FleetFn, buildpacks": ByBuildpacks(ground),
            FLOOR: by_hand,
        }
        yield from _timed("build, first", subjects, _first, setting)
        by_hand.check()
        yield from _timed("build, unchanged", subjects, _unchanged, setting)
        yield from _timed("build, after one line", subjects, _edited, setting)
        yield from _looked_up("image size, compressed", "MB", subjects, lambda name: ground.size(name) / MEGABYTE)
        yield from _looked_up(
            "image size above the base, compressed", "MB", subjects, lambda name: sum(ground.layers(name)) / MEGABYTE
        )
        yield from _looked_up("layers above the base", "", subjects, lambda name: float(len(ground.layers(name))))


def _timed(
    line: str, subjects: Mapping[str, Subject], measure: Callable[[Subject], float], setting: Setting
) -> list[Line]:
    bound = {name: partial(measure, subject) for name, subject in subjects.items()}
    return side_by_side(line, "s", bound, floor=FLOOR, runs=setting.runs)


def _first(subject: Subject) -> float:
    subject.forget()
    return subject.build()


def _unchanged(subject: Subject) -> float:
    return subject.build()


def _edited(subject: Subject) -> float:
    subject.edit()
    return subject.build()


def _looked_up(line: str, unit: str, subjects: Mapping[str, Subject], look: Callable[[str], float]) -> list[Line]:
    """Of the images built last; the same in every run."""
    found = {name: [look(subject.reference)] for name, subject in subjects.items()}
    return [as_line(line, name, unit, each, found[FLOOR]) for name, each in found.items()]
