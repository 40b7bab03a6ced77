"""A function's workers as its dispatch sees them: what is in flight at each, and who gets a row."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b

from fleetfn_plumbing.http_client import HttpClient
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_triggers.inbox import Row

from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.resting import Rests

_BACKOFF = (0.05, 5.0)
"""First and longest seconds that a worker is left alone after failures."""

STALE = 3.0
"""Seconds after which a worker that was neither named nor heard gets nothing: its socket may be another's by now."""

BATCH = 128
"""Rows of one push: more would not be cheaper per row, and a worker tells of them in one answer. Those of a lane are
pushed together even so: two pushes could overtake each other.
"""

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one push, but for one row that is larger, and for the rows behind it."""

AHEAD = 0.1
"""Seconds of its work that a worker has in flight: some round trips, each with two commits."""

MOST = 4096
"""First rows of lanes in flight at one worker, however quick it is."""

BYTES = 32 * 1024 * 1024
"""Bytes in flight at one worker, but for one row that is larger."""

_OVERHEAD = 512
"""Bytes of a row beside its data, about."""


def size(row: Row) -> int:
    return _OVERHEAD + len(row.event.data or b"")


class Worker:
    """One delivery socket. `concurrency`: keys that it handles at the same time.

    It gets several rows per key that it can handle, so that it need not wait for more when some are done, or as many as
    it handled lately in `AHEAD` seconds; and more open pushes than keys, so that those whose row waits for a retry do
    not use them up. As many rows again may come behind others of their key: counted apart, so that a few long lanes
    leave room for the first rows of others.
    """

    def __init__(
        self, socket: str, concurrency: int, *, now: float, client_at: Callable[[str], HttpClient] = UnixClient
    ) -> None:
        self.socket = socket
        self.client = client_at(socket)
        self.rows = self.pushes = 0
        """First rows of lanes in flight at most, and rows behind them; open pushes at most: each is a connection."""
        self._counted_from = now
        self._ended = 0
        """Rows that came back since then."""
        self.handles(concurrency)
        self.named = True
        """The owner's last answer had it, and it has not failed since."""
        self.seen = now
        """When it was last named, or told something; monotonic."""
        self.open = 0
        self.first = 0
        """First rows of lanes, as they were pushed, that are in flight."""
        self._behind: set[int] = set()
        """The others in flight."""
        self.bytes = 0
        self.rests = Rests()
        self._failures = Backoff(*_BACKOFF)
        self._not_before = 0.0

    def handles(self, concurrency: int) -> None:
        """So many keys from now on."""
        self._least = self.rows = min(max(4 * concurrency, 64), MOST)
        self.pushes = min(2 * concurrency + 16, 512)

    @property
    def in_flight(self) -> int:
        return self.first + len(self._behind)

    @property
    def room_behind(self) -> int:
        """Rows that it may get behind the first of their lanes."""
        return max(0, self.rows - len(self._behind))

    def room(self, now: float, *, alone: bool = False) -> int:
        """First rows of lanes that it may get now. `alone`: each by a push of its own."""
        if not self.named or now < self._not_before or (not self.open and now - self.seen > STALE):
            return 0
        if self.open >= self.pushes or self.bytes >= BYTES:
            return 0
        self._keep_pace(now)
        room = max(0, self.rows - self.first)
        return min(room, self.pushes - self.open) if alone else room

    def rest(self, now: float) -> float:
        """Seconds until it may be tried again, though nobody names it anew."""
        return self._not_before - now if self.named else 0.0

    def _keep_pace(self, now: float) -> None:
        past = now - self._counted_from
        if past >= AHEAD:
            self.rows = min(max(self._least, int(self._ended * AHEAD / past)), MOST)
            self._counted_from, self._ended = now, 0

    def failed(self, now: float) -> float:
        """Leave it alone until it is named again, but for so many seconds at least."""
        self.named = False
        wait = self._failures.failed()
        self._not_before = now + wait
        return wait

    def heard(self, now: float) -> None:
        self.seen = now
        self._failures.reset()

    def begin(self, rows: Sequence[Row]) -> None:
        """A push."""
        behind = [row.sequence for lane in lanes(rows) for row in lane[1:]]
        self.open += 1
        self.first += len(rows) - len(behind)
        self._behind.update(behind)
        self.bytes += sum(map(size, rows))
        for row in rows:
            self.rests.begin(row)

    def ended(self, row: Row) -> None:
        self._ended += 1
        if row.sequence in self._behind:
            self._behind.discard(row.sequence)
        else:
            self.first -= 1
        self.bytes -= size(row)
        self.rests.ended(row)


def lanes(rows: Iterable[Row]) -> list[list[Row]]:
    """Those that follow each other in their lane."""
    found: list[list[Row]] = []
    for (_, key), each in itertools.groupby(rows, key=lambda row: (row.trigger, row.key)):
        if key is None:
            found.extend([row] for row in each)
        else:
            found.append(list(each))
    return found


def spread(rows: Sequence[Row], room: dict[Worker, int]) -> dict[Worker, list[Row]]:
    """Who gets what; `room`: lanes that each worker takes, all in all enough.

    A lane tends to stay with its worker, where its record is at hand and nobody else writes it. One without room is
    passed over.
    """
    if len(room) == 1:
        return {worker: list(rows) for worker in room}
    left = dict(room)
    shares: dict[Worker, list[Row]] = {worker: [] for worker in room}
    for lane in lanes(rows):
        worker = max((each for each, count in left.items() if count > 0), key=_fondness(lane[0]))
        left[worker] -= 1
        shares[worker] += lane
    return shares


def _fondness(row: Row) -> Callable[[Worker], bytes]:
    """Rendezvous hashing: workers that come or go move only the lanes they get or had, and a gateway that starts again
    finds the lanes where it left them (`hash` of a string differs by process).
    """
    lane = f"{row.sequence}" if row.key is None else f"{row.trigger}\0{row.key}"
    return lambda worker: blake2b(f"{worker.socket}\0{lane}".encode(), digest_size=8).digest()


def batches(rows: Sequence[Row], most: int = BATCH) -> list[list[Row]]:
    """Rows of one push each."""
    found: list[list[Row]] = []
    taken = 0
    for lane in lanes(rows):
        cost = sum(map(size, lane))
        if not found or len(found[-1]) >= most or taken + cost > BATCH_BYTES:
            found.append([])
            taken = 0
        found[-1] += lane
        taken += cost
    return found
