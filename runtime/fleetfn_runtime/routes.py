"""Which function and trigger a request is for: path templates and methods.

Of two templates that match a path, the one that has a fixed segment where the other has a name wins, from left to
right. Two routes conflict where they take the same method at templates of equal shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleetfn_spec.function import Function
from fleetfn_triggers import paths

from fleetfn_runtime import http_head


@dataclass(frozen=True, slots=True)
class Route:
    function: str
    trigger: str
    template: str
    methods: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    route: Route
    params: dict[str, str]


@dataclass(frozen=True, slots=True)
class Absent:
    """No route. `allowed`: the methods that the path has routes for; empty: it has none at all."""

    allowed: tuple[str, ...] = ()


@dataclass(slots=True)
class _Branch:
    fixed: dict[str, _Branch] = field(default_factory=dict)
    named: _Branch | None = None
    routes: dict[str, tuple[Route, tuple[str, ...]]] = field(default_factory=dict)
    """Method -> route, and the names of its template's parts."""


class Routes:
    """A value: other routes are another `Routes`. Where two conflict, the earlier one has the request."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self.routes = tuple(routes)
        self._root = _Branch()
        self._fixed: dict[tuple[str, str], Match] = {}
        for route in self.routes:
            self._add(route)

    def match(self, method: str, raw_path: str) -> Match | Absent:
        """`raw_path` as it was sent, percent-encoded. HEAD goes where GET goes. Raises http_head.HeadError."""
        fixed = self._fixed.get((method, raw_path))
        if fixed is not None:
            return fixed
        if raw_path.startswith(paths.RESERVED):  # no names of a template's parts stand for these
            return Absent()
        segments = http_head.segments(raw_path)
        allowed: set[str] = set()
        found = _find(self._root, segments, 0, method, allowed)
        if found is None and method == "HEAD":
            found = _find(self._root, segments, 0, "GET", allowed)
        if found is None:
            return Absent(tuple(sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))))
        route, names = found
        values = (value for value, part in zip(segments, _parts(route.template), strict=True) if _is_named(part))
        return Match(route, dict(zip(names, values, strict=True)))

    def _add(self, route: Route) -> None:
        branch = self._root
        names = tuple(paths.names(route.template))
        for part in _parts(route.template):
            if _is_named(part):
                branch.named = branch.named or _Branch()
                branch = branch.named
            else:
                branch = branch.fixed.setdefault(part, _Branch())
        for method in route.methods:
            branch.routes.setdefault(method, (route, names))
            if not names:
                self._fixed.setdefault((method, route.template), Match(branch.routes[method][0], {}))


def of_function(function: Function) -> list[Route]:
    return [
        Route(function.name, trigger.name, trigger.http.path, tuple(trigger.http.methods))
        for trigger in function.spec.triggers
        if trigger.http is not None
    ]


def conflicts(new: Sequence[Route], others: Iterable[Route]) -> list[tuple[str, Route, Route]]:
    """(method, new route, other route) for what both would take."""
    taken = {(method, paths.shape(other.template)): other for other in others for method in other.methods}
    return [
        (method, route, taken[method, paths.shape(route.template)])
        for route in new
        for method in route.methods
        if (method, paths.shape(route.template)) in taken
    ]


def _find(
    branch: _Branch, segments: tuple[str, ...], at: int, method: str, allowed: set[str]
) -> tuple[Route, tuple[str, ...]] | None:
    if at == len(segments):
        allowed.update(branch.routes)
        return branch.routes.get(method)
    fixed = branch.fixed.get(segments[at])
    if fixed is not None and (found := _find(fixed, segments, at + 1, method, allowed)):
        return found
    if branch.named is not None and segments[at]:
        return _find(branch.named, segments, at + 1, method, allowed)
    return None


def _parts(template: str) -> list[str]:
    return template[1:].split("/")


def _is_named(part: str) -> bool:
    return part.startswith("{")
