"""Lanes: serial per key, parallel across keys. A data structure without clock, thread or I/O.

An entry is *waiting* behind others of its key, *ready* (head of a lane that nobody runs), *out* (taken) or *held*
(head of a lane that waits until its due time). Entries that somebody waits for pass a held head: they come from
another source, so no order is broken, and nobody can wait that long. Entries without a key have a lane each. Every
step is O(1), but for held lanes (a heap, a look at what waits) and `sweep`.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Literal, Protocol, TypeVar


class Entry(Protocol):
    """What lanes hold. `kind` chooses the queue of ready lanes; `lane` is the lanes' own note.

    A head may take along entries that wait behind it (`more`), if both are of one kind and have `chains`: they are
    out with it, and finished with it.
    """

    key: str | None
    kind: int
    lane: Any
    chains: bool
    more: Any
    waits: bool
    """Somebody waits for it; it is never held."""


E = TypeVar("E", bound=Entry)

_State = Literal["ready", "out", "held", "gone"]


class Lane(Generic[E]):
    """`head` None: the key is seized, with nothing running. `parked`: the held entry that `passing` ones go past."""

    __slots__ = ("due", "head", "hold", "key", "parked", "passing", "state", "waiting")

    def __init__(self, key: str | None, head: E | None, state: _State) -> None:
        self.key = key
        self.head = head
        self.state = state
        self.waiting: deque[E] | None = None
        self.parked: E | None = None
        self.passing: deque[E] | None = None
        self.due = 0.0
        self.hold = 0
        """Counts holds: what the heap says of an earlier one is over."""


class Lanes(Generic[E]):
    def __init__(self, kinds: int) -> None:
        self._keyed: dict[str, Lane[E]] = {}
        self._ready: list[deque[Lane[E]]] = [deque() for _ in range(kinds)]
        self._held: list[tuple[float, int, Lane[E], int]] = []
        self._order = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        """Entries that are not finished, dropped or swept."""
        return self._size

    def put(self, entry: E) -> None:
        key = entry.key
        self._size += 1
        if key is not None:
            lane = self._keyed.get(key)
            if lane is not None:
                if entry.waits and (lane.state == "held" or lane.parked is not None):
                    self._pass(lane, entry)
                elif lane.waiting is None:
                    lane.waiting = deque((entry,))
                else:
                    lane.waiting.append(entry)
                return
        entry.lane = lane = Lane(key, entry, "ready")
        if key is not None:
            self._keyed[key] = lane
        self._ready[entry.kind].append(lane)

    def take(self, most: int, kind: int, chain: int = 1) -> list[E]:
        """Heads of up to `most` ready lanes, those first that have been ready longest. They are out until `finish`.

        `chain`: how many entries of its lane a head may come with, itself included.
        """
        queue = self._ready[kind]
        heads: list[E] = []
        while queue and len(heads) < most:
            lane = queue.popleft()
            head = lane.head
            if lane.state == "ready" and head is not None:
                lane.state = "out"
                head.more = _behind(lane.waiting, kind, chain - 1) if lane.waiting and head.chains else ()
                heads.append(head)
        return heads

    def take_behind(self, entry: E) -> None:
        """Let `entry`, which is out, take along all behind it that may come: of one kind, each having `chains`."""
        waiting = entry.lane.waiting
        if waiting:
            entry.more = (*entry.more, *_behind(waiting, entry.kind, len(waiting)))

    def behind(self, entry: E) -> int:
        """How many wait behind the head of a lane."""
        waiting = entry.lane.waiting
        return len(waiting) if waiting else 0

    def put_first(self, entries: Sequence[E]) -> None:
        """Entries of one key, before all that waits in its lane."""
        lane = self._keyed.get(entries[0].key or "")
        if lane is None:
            for entry in entries:
                self.put(entry)
            return
        self._size += len(entries)
        if lane.state == "ready" and lane.parked is None and lane.head is not None:
            lane.waiting = deque((*entries, lane.head, *(lane.waiting or ())))
            self._replace(lane)
            return
        if lane.waiting is None:
            lane.waiting = deque()
        lane.waiting.extendleft(reversed(entries))

    def put_back(self, entry: E, later: Sequence[E]) -> None:
        """Entries that `entry`, which is out, took along and that are not done: they wait behind it again."""
        lane: Lane[E] = entry.lane
        if lane.waiting is None:
            lane.waiting = deque()
        lane.waiting.extendleft(reversed(later))

    def finish(self, entry: E) -> None:
        """The entry is done with, and what it took along: the next one of its key is ready."""
        self._size -= 1 + len(entry.more)
        self._next(entry.lane)

    def hold(self, entry: E, due: float) -> None:
        """Keep the entry as head of its lane and make it ready again at `due` (see `wake`). Other lanes go on."""
        lane: Lane[E] = entry.lane
        lane.due = due
        self._hold(lane)
        if lane.waiting and any(later.waits for later in lane.waiting):
            passing = [later for later in lane.waiting if later.waits]
            lane.waiting = deque(later for later in lane.waiting if not later.waits)
            for later in passing:
                self._pass(lane, later)

    def wake(self, now: float) -> None:
        """Make held lanes ready that are due."""
        while self._held and self._held[0][0] <= now:
            _, _, lane, hold = heapq.heappop(self._held)
            if lane.state == "held" and lane.hold == hold and lane.head is not None:
                lane.state = "ready"
                self._ready[lane.head.kind].append(lane)

    def let_go(self, entry: E) -> bool:
        """Make a held entry ready before it is due; False where it is not held, or others pass it just now."""
        lane: Lane[E] = entry.lane
        if lane.state != "held" or lane.head is not entry:
            if lane.parked is entry:
                lane.due = 0.0
            return False
        lane.state = "ready"
        self._ready[entry.kind].append(lane)
        return True

    def next_due(self) -> float | None:
        """When the next held lane is to be woken."""
        while self._held and not _holds(self._held[0]):
            heapq.heappop(self._held)
        return self._held[0][0] if self._held else None

    def seize(self, key: str) -> bool:
        """Keep the lane of an idle key for yourself until `release`; False where the key has entries."""
        if key in self._keyed:
            return False
        self._keyed[key] = Lane(key, None, "out")
        return True

    def release(self, key: str) -> None:
        """End what `seize` began: entries that came meanwhile are ready."""
        self._next(self._keyed[key])

    def sweep(self, lost: Callable[[E], bool]) -> list[E]:
        """Take out every entry that is not out and for which `lost` says so."""
        swept: list[E] = []
        for lane in list(self._lanes()):
            for queue in (lane.waiting, lane.passing):
                if queue:
                    staying: list[E] = []
                    for entry in queue:
                        (swept if lost(entry) else staying).append(entry)
                    queue.clear()
                    queue.extend(staying)
            if lane.parked is not None and lost(lane.parked):
                swept.append(lane.parked)
                lane.waiting = deque((*(lane.passing or ()), *(lane.waiting or ())))
                lane.parked = lane.passing = None
            if lane.state in ("ready", "held") and lane.head is not None and lost(lane.head):
                swept.append(lane.head)
                self._replace(lane)
        self._size -= len(swept)
        return swept

    def held(self) -> Iterator[E]:
        """Entries that wait for their due time."""
        yield from (item[2].head for item in self._held if _holds(item) and item[2].head is not None)
        yield from (lane.parked for lane in self._keyed.values() if lane.parked is not None)

    def _lanes(self) -> Iterator[Lane[E]]:
        yield from self._keyed.values()
        for queue in self._ready:
            yield from (lane for lane in queue if lane.key is None)
        yield from (item[2] for item in self._held if item[2].key is None and _holds(item))

    def _replace(self, lane: Lane[E]) -> None:
        """The head is another one: what stands in ready queues or the heap for this lane no longer counts."""
        lane.state = "gone"
        fresh: Lane[E] = Lane(lane.key, None, "out")
        fresh.waiting, fresh.passing = lane.waiting, lane.passing
        fresh.parked, fresh.due = lane.parked, lane.due
        if lane.key is not None:
            self._keyed[lane.key] = fresh
            self._next(fresh)

    def _hold(self, lane: Lane[E]) -> None:
        lane.state = "held"
        lane.hold += 1
        heapq.heappush(self._held, (lane.due, next(self._order), lane, lane.hold))

    def _pass(self, lane: Lane[E], entry: E) -> None:
        """The lane's held entry steps aside."""
        if lane.parked is not None:
            if lane.passing is None:
                lane.passing = deque()
            lane.passing.append(entry)
            return
        lane.parked = lane.head
        self._set_head(lane, entry)

    def _next(self, lane: Lane[E]) -> None:
        waiting = lane.waiting
        if lane.parked is not None:
            if lane.passing:
                self._set_head(lane, lane.passing.popleft())
            else:
                lane.head, lane.parked = lane.parked, None
                lane.head.lane = lane
                self._hold(lane)
        elif waiting:
            self._set_head(lane, waiting.popleft())
        else:
            lane.state = "gone"
            lane.head = None  # lane and entry name each other, and would stay until garbage is collected
            if lane.key is not None:
                del self._keyed[lane.key]

    def _set_head(self, lane: Lane[E], head: E) -> None:
        lane.head = head
        head.lane = lane
        lane.state = "ready"
        self._ready[head.kind].append(lane)


def _holds(item: tuple[float, int, Lane[Any], int]) -> bool:
    return item[2].state == "held" and item[2].hold == item[3]


def _behind(waiting: deque[E], kind: int, most: int) -> list[E]:
    taken: list[E] = []
    while waiting and len(taken) < most:
        entry = waiting[0]
        if entry.kind != kind or not entry.chains:
            break
        taken.append(waiting.popleft())
    return taken
