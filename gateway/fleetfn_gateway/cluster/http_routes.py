"""Which HTTP trigger of a sleeping function a request is for: what is for none wakes nobody.

The worker decides by the same rules once it is awake (fleetfn_runtime.routes), with all the details of a path; here it
is enough to wake it where it might be for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from fleetfn_spec.function import Function, Trigger


class Absent(NamedTuple):
    """`allowed`: methods that the path is served for; none: it is not served at all."""

    path: str
    allowed: tuple[str, ...] = ()


def find(function: Function, method: str, target: str) -> Trigger | Absent:
    """`target`: as it was sent."""
    path = path_of(target)
    segments = [unquote(each) for each in path[1:].split("/")]
    matching = [each for each in function.spec.triggers if each.http is not None and _fits(each.http.path, segments)]
    matching.sort(key=_named_parts)
    asked = "GET" if method == "HEAD" else method
    for trigger in matching:
        if trigger.http is not None and {method, asked} & set(trigger.http.methods):
            return trigger
    allowed = {name for each in matching if each.http is not None for name in each.http.methods}
    return Absent(path, tuple(sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))))


def path_of(target: str) -> str:
    """Without host and query."""
    return target.partition("?")[0] if target.startswith("/") else urlsplit(target).path or "/"


def _fits(template: str, segments: Sequence[str]) -> bool:
    parts = template[1:].split("/")
    return len(parts) == len(segments) and all(
        bool(segment) if part.startswith("{") else part == segment
        for part, segment in zip(parts, segments, strict=True)
    )


def _named_parts(trigger: Trigger) -> tuple[bool, ...]:
    """The first template in order of these has fixed parts where others have names."""
    return () if trigger.http is None else tuple(part.startswith("{") for part in trigger.http.path.split("/"))
