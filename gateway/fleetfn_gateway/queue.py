"""The durable queue: what waits to be delivered, what is held, and what was given up on, in one SQLite file.

Whatever is asked at the same moment shares one commit; within it, calls of a kind share their statements.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from fleetfn.errors import StoreError
from fleetfn_plumbing.sqlite_file import SqliteFile
from fleetfn_spec.gateway import TriggerRows
from fleetfn_triggers.inbox import Answer, Arrival, Claim, Claimed, Letter, Offer, Row, Rows, Which

from fleetfn_gateway import (
    queue_burials,
    queue_claims,
    queue_counts,
    queue_dropping,
    queue_letters,
    queue_offers,
    queue_puts,
    queue_rows,
)
from fleetfn_gateway.queue_commits import Commits, Done, Work
from fleetfn_gateway.queue_heads import Heads
from fleetfn_gateway.queue_names import Names
from fleetfn_gateway.queue_schema import SCHEMA
from fleetfn_gateway.queue_space import FullError, Space, free_on_disk
from fleetfn_gateway.queue_transaction import Transaction

__all__ = ["FullError", "Queue"]

T = TypeVar("T")

_NO_NOTES: Mapping[str, bytes] = {}


class Queue:
    """Implements ports Inbox, DeadLetters and Notes, and Lanes, what dispatch needs. Use on one loop; one per file."""

    def __init__(
        self,
        path: Path,
        *,
        quota: int,
        clock: Callable[[], float] = time.time,
        free: Callable[[Path], int] = free_on_disk,
    ) -> None:
        self._clock = clock
        self._file = SqliteFile(path, SCHEMA)
        try:
            with self._file.errors("opened"):
                self._names = Names(self._file.writer)
                self._space = Space(path, quota, free)
                self._space.measure(self._file.writer)
                self._commits = Commits(self._file, self._names, self._space, clock)
                self._reader = self._file.connect(reading=True)
        except BaseException:
            self._file.close()
            raise
        self._heads = Heads(self._reader, self._names, clock)
        self.taken = self.refused = 0
        """Arrivals since it was opened: those that it has, and those for which there was no room."""
        self.on_ready: Callable[[str], None] | None = None
        """Called on the loop with a function one of whose lanes may have become ready."""
        self.on_coming: Callable[[str, str], None] | None = None
        """Called on the loop with a function and a trigger, before an arrival that can run is written, or is due."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        quota: int,
        clock: Callable[[], float] = time.time,
        free: Callable[[Path], int] = free_on_disk,
    ) -> Queue:
        """Open without holding up the loop. `quota`: bytes that the file and its log may have."""
        return await asyncio.to_thread(cls, path, quota=quota, clock=clock, free=free)

    @property
    def file(self) -> str:
        """The file's id: its rows' own positions are in the stream `inbox:<id>`."""
        return self._names.file

    # Inbox

    async def put(self, arrivals: Sequence[Arrival], *, notes: Mapping[str, bytes] = _NO_NOTES) -> list[int]:
        """See Inbox, and Notes (notes.py)."""
        if not arrivals and not notes:
            return []
        for function, trigger in {(each.function, each.trigger) for each in arrivals if not each.problem}:
            self.announce(function, trigger)
        plain = [queue_rows.plain_keyed(each) for each in arrivals]
        job = queue_puts.Put(plain, [queue_rows.encode_event(each.event) for each in plain], notes)
        try:
            sequences: list[int] = await self._commits.submit(
                job, lambda: self._tell({each.function for each in arrivals})
            )
        except FullError:
            self.refused += len(arrivals)
            raise
        self.taken += len(arrivals)
        return sequences

    async def offer(self, offers: Sequence[Offer]) -> list[Answer]:
        if not offers:
            return []
        plain = [queue_rows.plain_keyed(each) for each in offers]
        job = queue_offers.Offering(plain, [queue_rows.encode_event(each.event) for each in plain])
        answers: list[Answer] = await self._commits.submit(job, lambda: self._tell({each.function for each in offers}))
        return answers

    async def bury(self, letters: Sequence[Letter]) -> list[int]:
        if not letters:
            return []
        plain = [queue_rows.plain_keyed(each) for each in letters]
        job = queue_burials.Burial(plain, [queue_rows.encode_event(each.event) for each in plain])
        sequences: list[int] = await self._commits.submit(job, lambda: self._tell({each.function for each in letters}))
        return sequences

    async def claim(self, claim: Claim) -> Claimed:
        return await self._work(lambda transaction: queue_claims.claim(transaction, claim))

    async def passed(self, function: str, trigger: str, stream: str, offsets: Mapping[int, int]) -> None:
        await self._work(lambda transaction: queue_claims.passed(transaction, function, trigger, stream, offsets))

    # DeadLetters

    async def dead(self, which: Which, *, after: int | None = None, limit: int = 100) -> Rows:
        return await asyncio.to_thread(self._scan, lambda c: queue_letters.page(c, self._names, which, after, limit))

    async def count(self, which: Which) -> int:
        return await asyncio.to_thread(self._scan, lambda c: queue_letters.count(c, self._names, which))

    async def letters_of(self, which: Which) -> set[tuple[str, str]]:
        """Functions and triggers of these dead letters."""
        return await asyncio.to_thread(self._scan, lambda c: queue_letters.triggers(c, self._names, which))

    async def left(self, function: str, trigger: str, limit: int) -> list[Row]:
        """Rows of that trigger that wait and are not in flight, in order."""
        numbers = self._numbers(function, [trigger])
        rows = await asyncio.to_thread(self._scan, lambda c: queue_rows.waiting(c, self._names, numbers, limit))
        return [row for row in rows if self._heads.owner(row.sequence) is None]

    def announce(self, function: str, trigger: str) -> None:
        """See FeedInbox (feed.py)."""
        if self.on_coming is not None:
            self.on_coming(function, trigger)

    async def get(self, sequence: int) -> Row | None:
        found = await asyncio.to_thread(self._scan, lambda c: queue_rows.read(c, self._names, [sequence]))
        return found[0] if found else None

    async def redrive(self, which: Which, *, limit: int | None = None) -> int:
        """See DeadLetters. A commit per `queue_letters.STEP` letters."""
        return await self._step_by_step(queue_letters.redrive, which, limit)

    async def discard(self, which: Which) -> int:
        """See DeadLetters. A commit per `queue_letters.STEP` letters."""
        return await self._step_by_step(queue_letters.discard, which, None)

    async def _step_by_step(self, step: Callable[..., list[int]], which: Which, limit: int | None) -> int:
        """Through those that there are now, each once."""
        count, after = 0, 0
        last = await self._work(lambda transaction: transaction.last)
        while limit is None or count < limit:
            size = queue_letters.STEP if limit is None else min(queue_letters.STEP, limit - count)
            call = functools.partial(step, which=which, after=after, last=last, limit=size)
            found = await self._work(call, self._tell_all)
            count += len(found)
            if len(found) < size:
                break
            after = found[-1]
        return count

    # Dispatch

    def ready(self, function: str, triggers: Iterable[str]) -> int:
        """Rows that may be taken now, counted as far as queue_heads.COUNT_LIMIT. Raises StoreError."""
        with self._reading():
            return self._heads.count(self._numbers(function, triggers))

    async def take(self, function: str, triggers: Iterable[str], rows: int, size: int, behind: int = 0) -> list[Row]:
        """Heads of ready lanes, which are in flight from now on: triggers by turns, of each the oldest first. Each may
        be followed by the rows that are next in its lane, `behind` of them in all.

        `size`: bytes of their events at most, but for a first row. Raises StoreError.
        """
        with self._reading():
            return self._heads.take(self._numbers(function, triggers), rows, size, behind)

    async def done(self, sequences: Sequence[int]) -> None:
        """They are handled: forget them, but for what tells their repeats. Raises StoreError; nothing is done then."""
        if not sequences:
            return
        owners = {owner for each in sequences if (owner := self._heads.owner(each)) is not None}
        await self._commits.submit(Done(sequences), lambda: self._landed(sequences, owners))

    def _landed(self, sequences: Sequence[int], owners: Iterable[str]) -> None:
        for sequence in sequences:
            self._heads.end(sequence)
        self._tell(owners)

    def release(self, sequence: int, after: float = 0.0) -> None:
        """No longer in flight: not done, or changed by an offer or a burial. If it is still the head of its lane, it
        may be taken again `after` seconds from now.
        """
        owner = self._heads.owner(sequence)
        self._heads.end(sequence, after)
        if owner is not None:
            self._tell({owner})

    def next_due(self, function: str, triggers: Iterable[str]) -> float | None:
        """Seconds until another row may be taken, if nothing else happens. Raises StoreError."""
        with self._reading():
            return self._heads.next_due(self._numbers(function, triggers))

    # Notes

    def note(self, name: str) -> bytes | None:
        with self._reading():
            found = self._reader.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    async def forget(self, prefix: str) -> None:
        query = "DELETE FROM note WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1"
        await self._work(lambda transaction: transaction.connection.execute(query, (prefix,)).rowcount)

    # What there is

    def counts(self) -> dict[str, dict[str, TriggerRows]]:
        """By function, by trigger; those without any row are left out. Raises StoreError."""
        with self._reading():
            return queue_counts.counts(self._reader, self._names, self._heads, self._clock)

    @property
    def bytes(self) -> int:
        """What quota and free disk are about: the file without its freed pages, and its log."""
        return self._space.used

    @property
    def quota(self) -> int:
        return self._space.quota

    @property
    def accepting(self) -> bool:
        return self._refusal() is None

    @property
    def problem(self) -> str:
        """Why it takes no more, and what to do; '' where it does."""
        refusal = self._refusal()
        return "" if refusal is None else f"{refusal.message}: {refusal.hint}"

    def _refusal(self) -> StoreError | None:
        try:
            self._file.check()
        except StoreError as gone:
            return gone
        return self._space.refusal()

    async def expire(self, older_than: float) -> int:
        """Drop dead letters buried more than so many seconds ago; how many. Those that park a lane wait for people."""
        count = 0
        before = self._clock() - older_than
        while True:
            dropped = await self._work(lambda transaction: queue_letters.expire(transaction, before))
            count += dropped
            if dropped < queue_letters.STEP:
                return count

    async def drop(self, function: str) -> None:
        """The function is deleted: forget its rows and dead letters."""
        self._heads.land(self._names.matching(function, None))
        while await self._work(lambda transaction: queue_dropping.drop(transaction, function)):
            pass

    async def close(self) -> None:
        """Commit what was submitted, then close the file."""
        await self._commits.close()
        self._reader.close()
        self._file.close()

    def _tell(self, functions: Iterable[str]) -> None:
        if self.on_ready is not None:
            for function in functions:
                self.on_ready(function)

    def _tell_all(self) -> None:
        self._tell(self._names.functions())

    def _numbers(self, function: str, triggers: Iterable[str]) -> list[int]:
        known = self._names.of(function)
        return [known[name] for name in triggers if name in known]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._file.errors("read"):
            yield

    def _scan(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """In another thread."""
        with self._file.scan() as connection:
            return read(connection)

    async def _work(self, call: Callable[[Transaction], T], then: Callable[[], None] | None = None) -> T:
        result: T = await self._commits.submit(Work(call), then)
        return result
