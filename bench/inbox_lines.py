"""The gateway's queue by itself: taking rows in, having them delivered, and what a long queue costs.

Beside puts and deliveries: a bare SQLite table in WAL with synchronous=FULL that gets and loses the same events, in
transactions of as many rows. It keeps no order per key, no counters and no dead letters.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import payloads
from fleetfn.event import Event
from fleetfn_gateway.queue import Queue
from fleetfn_triggers.inbox import Arrival, Letter, Which
from mqtt_talk import on_loop
from results import Line
from setting import Setting
from turns import Subject, as_line, say, side_by_side

QUOTA = 1 << 40
TRIGGERS = ("live",)
KEYS = 10_000

ROWS = 100_000
LONG = 1_000_000
LETTERS = 1000

BATCH = 1000
"""Rows of a call of put, and of the bare table's transaction."""

CALLERS = 200
"""That put a row each and wait for it: they share commits."""

TAKEN = 250
"""Rows of one take: about what a worker has in flight."""

COMMITS = 4
"""Of what is done, that a dispatch waits for at the same time."""

LOOKS = 20

BARE = "bare SQLite table"
OURS = "FleetFn, the queue"


def lines(setting: Setting) -> Iterator[Line]:
    folder, count = setting.folder, setting.count(ROWS)
    events = [_event(number, data) for number, (_, data) in enumerate(islice(cycle(payloads.small()), count))]
    for line, batch, callers in (
        (f"durable queue: put, {BATCH:,} a call", BATCH, 1),
        (f"durable queue: put, {CALLERS} callers of 1", 1, CALLERS),
    ):
        subjects: dict[str, Subject] = {
            BARE: partial(_bare_puts, folder, events, batch * callers),
            OURS: partial(_puts, folder, events, batch, callers),
        }
        yield from side_by_side(line, "rows/s", subjects, floor=BARE, runs=setting.runs)
    subjects = {BARE: partial(_bare_deliveries, folder, events), OURS: partial(_deliveries, folder, events)}
    yield from side_by_side(
        f"durable queue: take and done, {TAKEN} at once", "rows/s", subjects, floor=BARE, runs=setting.runs
    )
    yield from on_loop(_looks(folder, events, setting.runs))
    yield on_loop(_starts(folder, events, setting.count(LONG), setting.runs))


def _event(number: int, data: bytes) -> Event[bytes | None]:
    return Event(id=f"live/{number}", source="mqtt:live", type="live", datacontenttype="application/json", data=data)


def _arrival(number: int, event: Event[bytes | None], keys: int = KEYS) -> Arrival:
    return Arrival(function="f", trigger="live", key=f"LSV{number % keys:014}", event=event)


def _file(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder)) / "rows.db"


def _with_queue(path: Path, work: Callable[[Queue], Awaitable[float]]) -> float:
    async def run() -> float:
        queue = await Queue.open(path, quota=QUOTA)
        figure = await work(queue)
        await queue.close()
        return figure

    return on_loop(run())


# Puts


def _puts(folder: Path, events: Sequence[Event[bytes | None]], batch: int, callers: int) -> float:
    return _with_queue(_file(folder), lambda queue: _put(queue, events, batch, callers))


async def _put(queue: Queue, events: Sequence[Event[bytes | None]], batch: int, callers: int) -> float:
    """Rows a second; callers wait for each batch."""
    arrivals = [_arrival(number, event) for number, event in enumerate(events)]
    starts = iter(range(0, len(arrivals), batch))

    async def caller() -> None:
        for start in starts:
            await queue.put(arrivals[start : start + batch])

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(arrivals) / (time.perf_counter() - begun)


class _BareTable:
    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL").fetchall()
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE row (sequence INTEGER PRIMARY KEY, key TEXT, body BLOB)")

    def put(self, rows: Sequence[tuple[str | None, bytes | None]], batch: int) -> None:
        for start in range(0, len(rows), batch):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO row (key, body) VALUES (?, ?)", rows[start : start + batch])
            self._connection.execute("COMMIT")

    def take_all(self, batch: int) -> None:
        query = "SELECT sequence, key, body FROM row ORDER BY sequence LIMIT ?"
        while rows := self._connection.execute(query, (batch,)).fetchall():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM row WHERE sequence = ?", [(row[0],) for row in rows])
            self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


def _bare_rows(events: Sequence[Event[bytes | None]]) -> list[tuple[str | None, bytes | None]]:
    return [(arrival.key, arrival.event.data) for arrival in map(_arrival, range(len(events)), events)]


def _bare_puts(folder: Path, events: Sequence[Event[bytes | None]], batch: int) -> float:
    rows, table = _bare_rows(events), _BareTable(_file(folder))
    begun = time.perf_counter()
    table.put(rows, batch)
    rate = len(rows) / (time.perf_counter() - begun)
    table.close()
    return rate


# Deliveries


def _deliveries(folder: Path, events: Sequence[Event[bytes | None]]) -> float:
    async def deliver(queue: Queue) -> float:
        await _put(queue, events, BATCH, 1)
        return await _deliver(queue, len(events))

    return _with_queue(_file(folder), deliver)


async def _deliver(queue: Queue, total: int) -> float:
    """Rows a second, to a worker that has them done at once."""
    begun, left = time.perf_counter(), total
    finishing: set[asyncio.Future[None]] = set()
    while left > 0:
        rows = await queue.take("f", TRIGGERS, min(TAKEN, left), QUOTA)
        left -= len(rows)
        if rows:
            finishing.add(asyncio.ensure_future(queue.done([row.sequence for row in rows])))
        if len(finishing) >= COMMITS or not rows:
            _, finishing = await asyncio.wait(finishing, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*finishing)
    return total / (time.perf_counter() - begun)


def _bare_deliveries(folder: Path, events: Sequence[Event[bytes | None]]) -> float:
    table = _BareTable(_file(folder))
    table.put(_bare_rows(events), BATCH)
    begun = time.perf_counter()
    table.take_all(TAKEN)
    rate = len(events) / (time.perf_counter() - begun)
    table.close()
    return rate


# A long queue


async def _looks(folder: Path, events: Sequence[Event[bytes | None]], runs: int) -> list[Line]:
    """What is asked of it again and again while it is long."""
    queue = await Queue.open(_file(folder), quota=QUOTA)
    await _put(queue, events, BATCH, 1)
    await queue.bury([_letter(number, event) for number, event in enumerate(events[:LETTERS])])

    async def take() -> None:
        for row in await queue.take("f", TRIGGERS, TAKEN, QUOTA):
            queue.release(row.sequence)

    async def counts() -> None:
        queue.counts()

    async def letters() -> None:
        await queue.dead(Which())

    asked = {f"take of {TAKEN}": take, "counts": counts, "first page of letters": letters}
    line = f"durable queue: {len(events):,} rows of {KEYS:,} keys wait"
    figures: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(runs):
        say(f"{line}, {turn + 1} of {runs}")
        for name, ask in asked.items():
            begun = time.perf_counter()
            for _ in range(LOOKS):
                await ask()
            figures[name].append((time.perf_counter() - begun) * 1000 / LOOKS)
    await queue.close()
    return [as_line(line, name, "ms", found) for name, found in figures.items()]


def _letter(number: int, event: Event[bytes | None]) -> Letter:
    return Letter(
        function="f",
        trigger="live",
        key=f"D{number}",
        event=event,
        position=None,
        attempts=5,
        revision="r",
        reason="attempts",
        detail="ValueError: out of range",
        failure=None,
        created=time.time(),
    )


async def _starts(folder: Path, events: Sequence[Event[bytes | None]], total: int, runs: int) -> Line:
    """Until what waits is counted and the first row is taken."""
    line = f"durable queue: a start with {total:,} rows"
    say(f"{line}: writing them")
    path = _file(folder)
    queue = await Queue.open(path, quota=QUOTA)
    for start in range(0, total, BATCH):
        numbers = range(start, min(start + BATCH, total))
        await queue.put([_arrival(number, events[number % len(events)], total // 10) for number in numbers])
    await queue.close()
    figures = []
    for turn in range(runs):
        say(f"{line}, {turn + 1} of {runs}")
        begun = time.perf_counter()
        queue = await Queue.open(path, quota=QUOTA)
        queue.counts()
        await queue.take("f", TRIGGERS, 1, QUOTA)
        figures.append((time.perf_counter() - begun) * 1000)
        await queue.close()
    return as_line(line, OURS, "ms", figures)
