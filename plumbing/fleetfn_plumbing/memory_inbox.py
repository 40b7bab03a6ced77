"""An inbox in memory: the same answers as the gateway's durable queue, in plain Python, gone with the process.

For tests of whatever uses an inbox, and the model that the durable one is checked against.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from fleetfn.errors import StoreError
from fleetfn.position import At, Position
from fleetfn_triggers.inbox import INBOX, REMEMBER, Answer, Arrival, Claim, Claimed, Letter, Offer, Row, Rows, Which

Place = tuple[str, str, str, int]
"""Function, trigger, stream and partition."""

Lane = tuple[str, str, str | None]

_NO_NOTES: Mapping[str, bytes] = {}


@dataclass(slots=True)
class _Kept:
    """`place`: where in Kafka it came from; a redriven row keeps it, though its position is the inbox' own."""

    row: Row
    parks: bool = False
    source: str | None = None
    place: Place | None = None

    @property
    def lane(self) -> Lane:
        return self.row.function, self.row.trigger, self.row.key


class MemoryInbox:
    """Ports Inbox and DeadLetters, a gateway's notes, and its side that delivers: `take`, `done`, `release`.

    `refusal`: raised by whatever would write, while it is set: the inbox does not answer, or is full.
    """

    def __init__(self, clock: Callable[[], float] = time.time, *, file: str = "memory") -> None:
        self.refusal: StoreError | None = None
        self._clock = clock
        self._stream = f"{INBOX}{file}"
        self.last = 0
        """The highest sequence ever given."""
        self._kept: dict[int, _Kept] = {}
        self._positions: dict[tuple[str, str, Position], int] = {}
        self._sources: dict[tuple[str, str, str], int] = {}
        self._gone: dict[tuple[str, str, str], float] = {}
        self._epochs: dict[Place, int] = {}
        self._passed: dict[Place, int] = {}
        self._notes: dict[str, bytes] = {}
        self._flying: dict[int, Lane] = {}
        self._later: dict[int, float] = {}

    @property
    def rows(self) -> list[Row]:
        """All there are, dead ones included, in order of sequence."""
        return [self._shown(sequence) for sequence in self._kept]

    # Inbox

    async def put(self, arrivals: Sequence[Arrival], *, notes: Mapping[str, bytes] = _NO_NOTES) -> list[int]:
        self._check()
        self._notes.update(notes)
        return [self._put(arrival) for arrival in arrivals]

    def _put(self, arrival: Arrival) -> int:
        source = (arrival.function, arrival.trigger, arrival.source or "")
        self._forget_sources()
        if arrival.source is not None and source in self._sources:
            return self._sources[source]
        fields = {name: getattr(arrival, name) for name in ("function", "trigger", "key", "event", "raw")}
        if arrival.problem:
            fields |= {"status": "dead", "reason": "unreadable", "detail": arrival.problem}
        sequence = self._insert(None, fields)
        if arrival.source is not None:
            self._kept[sequence].source = arrival.source
            self._sources[source] = sequence
        return sequence

    def _insert(self, position: Position, fields: Mapping[str, Any]) -> int:
        self.last += 1
        foreign = position is not None and not self._is_own(position)
        given = {"status": "waiting", "attempts": 0, "due": None, "created": self._clock(), **fields}
        row = Row(sequence=self.last, position=position if foreign else At(self._stream, 0, self.last), **given)
        place = None
        if foreign:
            self._positions[row.function, row.trigger, position] = self.last
            if isinstance(position, At):
                place = (row.function, row.trigger, position.stream, position.partition)
        self._kept[self.last] = _Kept(row, place=place)
        return self.last

    def _is_own(self, position: Position) -> bool:
        return isinstance(position, At) and position.stream == self._stream

    def _known(self, item: Offer | Letter) -> int | None:
        """The sequence of what has that position, or has had it."""
        if isinstance(item.position, At) and self._is_own(item.position):
            return item.position.offset if item.position.offset <= self.last else None
        return None if item.position is None else self._positions.get((item.function, item.trigger, item.position))

    async def offer(self, offers: Sequence[Offer]) -> list[Answer]:
        self._check()
        return [self._offer(offer) for offer in offers]

    def _offer(self, offer: Offer) -> Answer:
        if isinstance(offer.position, At):
            place = (offer.function, offer.trigger, offer.position.stream, offer.position.partition)
            if 0 < offer.epoch < self._epochs.get(place, 0):
                return "stale"
        known = self._known(offer)
        if known is not None:
            kept = self._kept.get(known)
            if kept is not None and kept.row.status == "waiting" and offer.epoch == 0:
                kept.row = msgspec.structs.replace(kept.row, attempts=offer.attempts, due=offer.due)
            return "queued"
        if offer.due is None and not self._members((offer.function, offer.trigger, offer.key)):
            return "free"
        names = ("function", "trigger", "key", "event", "attempts", "due")
        self._insert(offer.position, {name: getattr(offer, name) for name in names})
        return "queued"

    def _members(self, lane: Lane) -> list[int]:
        """What has a place in the lane, in order."""
        if lane[2] is None:
            return []
        return [
            sequence
            for sequence, kept in self._kept.items()
            if kept.lane == lane and (kept.row.status == "waiting" or kept.parks)
        ]

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        self._check()
        return [self._bury(letter) for letter in letters]

    def _bury(self, letter: Letter) -> int:
        fields = msgspec.structs.asdict(letter)
        park = fields.pop("park") and letter.key is not None
        position = fields.pop("position")
        known = self._known(letter)
        if known is None:
            known = self._insert(position, {**fields, "status": "dead"})
            self._kept[known].parks = park
        elif known in self._kept and self._kept[known].row.status == "waiting":
            kept = self._kept[known]
            names = ("attempts", "created", "revision", "reason", "detail", "failure")
            changed = {name: fields[name] for name in names}
            kept.row = msgspec.structs.replace(kept.row, **changed, status="dead", due=None)
            kept.parks = park and kept.row.key is not None
        return known

    async def claim(self, claim: Claim) -> Claimed:
        self._check()
        places = {partition: (claim.function, claim.trigger, claim.stream, partition) for partition in claim.partitions}
        for partition, place in places.items():
            self._epochs[place] = self._epochs.get(place, 0) + 1
            committed = claim.partitions[partition]
            if committed is not None:
                self._pass(place, committed, again=committed < self._passed.get(place, 0))
        held = {
            kept.row.key
            for kept in self._kept.values()
            if kept.place in places.values() and (kept.row.status == "waiting" or kept.parks)
        }
        epochs = {partition: self._epochs[place] for partition, place in places.items()}
        return Claimed(epochs=epochs, held=frozenset(key for key in held if key is not None))

    async def passed(self, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
        self._check()
        for partition, offset in offsets.items():
            place = (function, trigger, stream, partition)
            self._pass(place, max(offset, self._passed.get(place, 0)))

    def _pass(self, place: Place, offset: int, *, again: bool = False) -> None:
        """`again`: the group was put back, what comes again is to be run again."""
        self._passed[place] = offset
        for (function, trigger, position), sequence in list(self._positions.items()):
            if not isinstance(position, At) or place != (function, trigger, position.stream, position.partition):
                continue
            if self._is_gone(sequence, position) and (again or position.offset < offset):
                del self._positions[function, trigger, position]

    def _is_gone(self, sequence: int, position: Position) -> bool:
        """A letter that was redriven as another row has left its place, too."""
        return sequence not in self._kept or self._kept[sequence].row.position != position

    def _is_passed(self, function: str, trigger: str, position: Position) -> bool:
        if not isinstance(position, At):
            return False
        return position.offset < self._passed.get((function, trigger, position.stream, position.partition), 0)

    def _forget_sources(self) -> None:
        before = self._clock() - REMEMBER
        for source in [source for source, gone in self._gone.items() if gone < before]:
            del self._gone[source], self._sources[source]

    async def close(self) -> None: ...

    # DeadLetters

    async def dead(self, which: Which, *, after: int | None = None, limit: int = 100) -> Rows:
        found = [sequence for sequence in self._matching(which) if sequence > (after or 0)]
        rows = tuple(self._shown(sequence) for sequence in found[:limit])
        return Rows(rows, rows[-1].sequence if len(found) > limit else None)

    async def count(self, which: Which) -> int:
        return len(self._matching(which))

    async def get(self, sequence: int) -> Row | None:
        return self._shown(sequence) if sequence in self._kept else None

    def _shown(self, sequence: int) -> Row:
        kept = self._kept[sequence]
        if not kept.parks:
            return kept.row
        behind = [each for each in self._members(kept.lane) if each > sequence and not self._kept[each].parks]
        return msgspec.structs.replace(kept.row, parked=len(behind))

    def _matching(self, which: Which) -> list[int]:
        names = ("function", "trigger", "key", "reason")
        wanted = {name: value for name in names if (value := getattr(which, name)) is not None}
        return [
            sequence
            for sequence, kept in self._kept.items()
            if kept.row.status == "dead"
            and all(getattr(kept.row, name) == value for name, value in wanted.items())
            and (which.before is None or kept.row.created < which.before)
            and (not which.sequences or sequence in which.sequences)
        ]

    async def redrive(self, which: Which, *, limit: int | None = None) -> int:
        self._check()
        found = self._matching(which)[:limit]
        for sequence in found:
            self._redrive(sequence)
        return len(found)

    def _redrive(self, sequence: int) -> None:
        kept = self._kept[sequence]
        cleared = {"reason": "", "detail": "", "revision": "", "failure": None, "attempts": 0, "status": "waiting"}
        row = msgspec.structs.replace(kept.row, **cleared)
        if kept.parks:
            kept.row, kept.parks = row, False
            return
        self.last += 1
        position = At(self._stream, 0, self.last)
        row = msgspec.structs.replace(row, sequence=self.last, position=position, created=self._clock())
        self._kept[self.last] = _Kept(row, source=kept.source, place=kept.place)
        if kept.source is not None:
            self._sources[row.function, row.trigger, kept.source] = self.last
        kept.source = None
        self._drop(sequence)

    async def discard(self, which: Which) -> int:
        self._check()
        found = self._matching(which)
        for sequence in found:
            self._drop(sequence)
        return len(found)

    def _drop(self, sequence: int) -> None:
        kept = self._kept.pop(sequence)
        row = kept.row
        if kept.source is not None:
            self._gone[row.function, row.trigger, kept.source] = self._clock()
        if self._is_passed(row.function, row.trigger, row.position):
            self._positions.pop((row.function, row.trigger, row.position), None)

    # Notes

    def note(self, name: str) -> bytes | None:
        return self._notes.get(name)

    async def forget(self, prefix: str) -> None:
        self._check()
        self._notes = {name: value for name, value in self._notes.items() if not name.startswith(prefix)}

    # The side that delivers

    def ready(self, function: str, triggers: Iterable[str]) -> int:
        return len(self._ready(function, set(triggers)))

    def _ready(self, function: str, triggers: set[str]) -> list[int]:
        now = self._clock()
        found = []
        for sequence, kept in self._kept.items():
            row = kept.row
            if row.function != function or row.trigger not in triggers or row.status == "dead":
                continue
            first = row.key is None or self._members(kept.lane)[0] == sequence
            taken = sequence in self._flying or (row.key is not None and kept.lane in self._flying.values())
            if first and not taken and (row.due or 0) <= now and self._later.get(sequence, 0) <= now:
                found.append(sequence)
        return found

    async def take(self, function: str, triggers: Iterable[str], rows: int, size: int, behind: int = 0) -> list[Row]:
        """Heads of lanes that are due, each followed by rows that are next in its lane, `behind` of them in all. In
        flight from now on. `size`: bytes of data at most, but for a first row.
        """
        taken: list[Row] = []
        heads = self._ready(function, set(triggers))[:rows]
        for sequence in [each for head in heads for each in (head, *self._next(head, behind // len(heads)))]:
            kept = self._kept[sequence]
            size -= len(kept.row.event.data or b"")
            if taken and size < 0:
                break
            self._flying[sequence] = kept.lane
            taken.append(kept.row)
        return taken

    def _next(self, head: int, most: int) -> list[int]:
        """As far as nothing among them has to wait."""
        now, kept = self._clock(), self._kept[head]

        def at_once(sequence: int) -> bool:
            row = self._kept[sequence].row
            return row.status == "waiting" and max(row.due or 0, self._later.get(sequence, 0)) <= now

        lane = self._members(kept.lane) if kept.row.key is not None else []
        return list(itertools.takewhile(at_once, lane[1 : most + 1]))

    def restart(self) -> None:
        """What was in flight or put off is so no more."""
        self._flying.clear()
        self._later.clear()

    async def done(self, sequences: Sequence[int]) -> None:
        self._check()
        for sequence in sequences:
            self._flying.pop(sequence, None)
            if sequence in self._kept and self._kept[sequence].row.status == "waiting":
                self._drop(sequence)

    def release(self, sequence: int, after: float = 0.0) -> None:
        if self._flying.pop(sequence, None) is not None and after > 0:
            self._later[sequence] = self._clock() + after

    def next_due(self, function: str, triggers: Iterable[str]) -> float | None:
        """Seconds until another row may be taken, if nothing else happens."""
        now, names = self._clock(), set(triggers)
        waits = []
        for sequence, kept in self._kept.items():
            row = kept.row
            first = row.key is None or self._members(kept.lane)[:1] == [sequence]
            if row.function == function and row.trigger in names and row.status == "waiting" and first:
                waits.append(max(row.due or 0, self._later.get(sequence, 0)) - now)
        return min((wait for wait in waits if wait > 0), default=None)

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal
