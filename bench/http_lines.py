"""Typed HTTP events: FleetFn's worker alone and through the front door, beside servers one would use instead.

One frame of recorded telemetry (or ten, 3 KB) is the data of a CloudEvent in binary mode, sent by 32 connections, one
request after the other. All servers run at once; while one is measured the others are idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count

import http_load
import http_servers
import payloads
from http_load import Load
from http_servers import BY_HAND, DOOR, FASTAPI, FLOOR, FRAMEWORK, KNATIVE, SERVERS, WORKER
from results import Line
from setting import Setting
from turns import Subject, side_by_side

VEHICLES = 1000
"""That state is kept of."""

PORT = 19600
"""And some behind it."""

ASYNC = "FleetFn worker alone, async def"
SERVED_BY = {ASYNC: WORKER}


def lines(setting: Setting) -> Iterator[Line]:
    http_load.need_wrk()
    small, large = payloads.small(VEHICLES), payloads.large()
    frame = Load("/frame", "fleet.frame", (small[-1][1],))
    ten = Load("/frames", "fleet.frames", (large[-1][1],))
    later = Load("/async/frame", "fleet.frame", frame.bodies)
    kept = Load("/state/frame", "fleet.frame", tuple(_of(n, vehicle, body) for n, (vehicle, body) in enumerate(small)))
    anew = Load("/frame", "fleet.frame", frame.bodies, reconnect=True)
    with ExitStack() as stack:
        servers = _Servers(setting, stack)
        ours, peers = (FLOOR, WORKER, DOOR), (FASTAPI, FRAMEWORK, KNATIVE)
        yield from servers.line("HTTP, an event of 300 B", frame, (*ours, ASYNC, *peers), {ASYNC: later})
        yield from servers.line("HTTP, an event of 3 KB", ten, (*ours, *peers))
        yield from servers.line("HTTP, a connection per event", anew, (*ours, FASTAPI))
        yield from servers.line("HTTP with State, 1,000 vehicles", kept, (BY_HAND, WORKER, DOOR))


def _of(number: int, vehicle: str, body: bytes) -> bytes:
    """The frame, of a vehicle of its own: so few were recorded that they would wait for each other."""
    return body.replace(f'"vehicle":"{vehicle}"'.encode(), f'"vehicle":"{vehicle}/{number}"'.encode())


class _Servers:
    """All of one run."""

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        self._setting = setting
        self._folder = setting.folder / "http"
        self._folder.mkdir()
        self._runs = count()
        self._ports: dict[str, int] = {}
        peers = setting.peers if setting.with_peers else None
        for port, (name, server) in zip(count(PORT), SERVERS.items()):
            if peers is not None or not server.peer:
                stack.enter_context(http_servers.serving(name, port, self._folder, peers))
                self._ports[name] = port

    def line(
        self, line: str, load: Load, subjects: Sequence[str], other: Mapping[str, Load] | None = None
    ) -> list[Line]:
        """The first of `subjects` is the floor. `other`: what a subject is sent instead."""
        found = {
            name: self._subject(name, (other or {}).get(name, load))
            for name in subjects
            if SERVED_BY.get(name, name) in self._ports
        }
        return side_by_side(line, "requests/s", found, floor=subjects[0], runs=self._setting.runs)

    def _subject(self, name: str, load: Load) -> Subject:
        server = SERVED_BY.get(name, name)
        port = self._ports[server]
        http_servers.check(server, port, load)
        quick = self._setting.quick
        return lambda: http_load.measure(load, port, self._folder, run=next(self._runs), quick=quick)
