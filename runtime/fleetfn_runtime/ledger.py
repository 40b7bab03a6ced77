"""What is in flight, noted in a file before a handler runs: attempts outlive the process that died of them.

The file is mapped into memory, so noting costs a microsecond and no system call. What is noted survives the process'
death by whatever means, not a power loss: then the marks alone decide, and at worst an attempt goes uncounted.
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
from fleetfn.errors import StoreError
from fleetfn.position import Position

log = logging.getLogger("fleetfn.ledger")

KEEP = 7 * 86400
"""Seconds after which a note that nobody came back to is dropped: its event was settled without a run."""

SLOT = 512
"""Bytes: a Kafka topic's longest name (249), its id and a trigger's name fit."""

SLOTS = 1024
"""Of one segment of the file; it grows by segments."""

_SEGMENT = SLOT * SLOTS
_PAGE = mmap.ALLOCATIONGRANULARITY
_MAGIC = b"FleetFn ledger 1"
_TOP = struct.Struct("<HI")
"""Length of the note (0: the slot is free), CRC of all that follows."""

_BODY = struct.Struct("<IH")
"""Unix seconds, attempts; then the note."""

_FREE = b"\0\0"


class _Note(msgspec.Struct, frozen=True, array_like=True):
    trigger: str
    position: Position


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Note).decode


class Ledger:
    """To be used by one process at a time (the owner of the function, or of a slot), from any of its threads.

    One may be for all workers of a function: then `read` and `keep` are for one process at a time, and each may
    `forget`.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._segments: list[mmap.mmap] = []
        self._free: deque[int] = deque()
        self._growing = threading.Lock()
        self._old: dict[tuple[str, Position], int] = {}
        self._suspects: dict[tuple[str, Position], int] = {}
        self._for_all: Ledger | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._open()
            except BaseException:
                self.close()
                raise
        except OSError as error:
            raise self._error(error) from error

    def suspects(self) -> dict[tuple[str, Position], int]:
        """What was noted and not ended when this ledger was opened, with the attempts begun.

        They stay noted until they were begun and ended again, however often the process dies before that.
        """
        return dict(self._suspects)

    def begin(self, trigger: str, position: Position, attempts: int) -> int:
        """Note a run: `attempts` counts the runs begun, this one included. The slot to give to `end`.

        A position too long for a slot is not noted (names are limited so that those of Kafka and the inbox fit).
        """
        note = _encode((trigger, position))
        try:
            slot = self._free.popleft()
        except IndexError:
            slot = self._grow()
        body = _BODY.pack(int(self._clock()), attempts) + note
        if len(body) > SLOT - _TOP.size:
            return slot
        at = slot % SLOTS * SLOT
        # A process killed within this copy leaves a slot whose CRC is wrong: it counts as free.
        self._segments[slot // SLOTS][at : at + _TOP.size + len(body)] = _TOP.pack(len(note), zlib.crc32(body)) + body
        if self._old and (old := self._old.pop((trigger, position), None)) is not None:
            self.end(old)
        if self._for_all is not None:
            self._for_all.forget(trigger, position)
        return slot

    def end(self, slot: int) -> None:
        at = slot % SLOTS * SLOT
        self._segments[slot // SLOTS][at : at + 2] = _FREE
        self._free.append(slot)

    def forgets(self, for_all: Ledger) -> None:
        """What begins here is forgotten in this one, too: here it is noted with all attempts."""
        self._for_all = for_all

    def read(self) -> None:
        """Read the file, anew where others have written since."""
        old: dict[tuple[str, Position], int] = {}
        suspects: dict[tuple[str, Position], int] = {}
        for _ in range((os.fstat(self._file).st_size - _PAGE) // _SEGMENT - len(self._segments)):
            self._map()
        self._free.clear()
        now = self._clock()
        for number, segment in enumerate(self._segments):
            for slot, length in enumerate(_lengths(segment), number * SLOTS):
                if length:
                    self._read(slot, now, old, suspects)
                else:
                    self._free.append(slot)
        self._old, self._suspects = old, suspects

    def keep(self, trigger: str, position: Position, attempts: int) -> None:
        """Note a suspect, until it is forgotten."""
        slot = self.begin(trigger, position, attempts)
        self._old[trigger, position] = slot
        self._suspects[trigger, position] = attempts

    def forget(self, trigger: str, position: Position) -> None:
        slot = self._old.pop((trigger, position), None) if self._old else None
        if slot is None:
            return
        at = slot % SLOTS * SLOT
        segment = self._segments[slot // SLOTS]
        note = _encode((trigger, position))
        start = at + _TOP.size + _BODY.size
        if segment[start : start + len(note)] == note:  # else it is another one by now
            segment[at : at + 2] = _FREE

    def close(self) -> None:
        """What was begun and not ended stays noted."""
        for segment in self._segments:
            segment.close()
        self._segments.clear()
        os.close(self._file)

    def _open(self) -> None:
        if os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
            self._start_over()
        self.read()

    def _start_over(self) -> None:
        if os.fstat(self._file).st_size:
            log.warning("%s is not a ledger of this version: attempts before this start are not counted", self._path)
        os.ftruncate(self._file, 0)
        os.posix_fallocate(self._file, 0, _PAGE)
        os.pwrite(self._file, _MAGIC, 0)

    def _read(
        self,
        slot: int,
        now: float,
        old: dict[tuple[str, Position], int],
        suspects: dict[tuple[str, Position], int],
    ) -> None:
        """Take the note of a slot that has one for a suspect, or the slot for free."""
        at = slot % SLOTS * SLOT
        content = self._segments[slot // SLOTS][at : at + SLOT]
        length, crc = _TOP.unpack_from(content)
        body = content[_TOP.size : _TOP.size + _BODY.size + length]
        if zlib.crc32(body) == crc:
            begun, attempts = _BODY.unpack_from(body)
            try:
                note = _decode(body[_BODY.size :])
            except msgspec.MsgspecError:
                note = None  # a later version's way to write positions
            if note is not None and begun > now - KEEP:
                what = (note.trigger, note.position)
                known = old.get(what)
                if known is not None:  # killed between the new note and the end of the old one
                    self.end(known)
                old[what] = slot
                suspects[what] = max(attempts, suspects.get(what, 0))
                return
        self.end(slot)

    def _grow(self) -> int:
        with self._growing:
            try:
                return self._free.popleft()  # another thread was first
            except IndexError:
                pass
            first = len(self._segments) * SLOTS
            try:
                self._map()
            except OSError as error:
                raise self._error(error) from error
            self._free.extend(range(first + 1, first + SLOTS))
            return first

    def _map(self) -> None:
        start = _PAGE + len(self._segments) * _SEGMENT
        # Without blocks of its own, a write into the mapping of a full disk would kill the process (SIGBUS).
        os.posix_fallocate(self._file, start, _SEGMENT)
        self._segments.append(mmap.mmap(self._file, _SEGMENT, offset=start))

    def _error(self, error: OSError) -> StoreError:
        return StoreError(
            f"the ledger {str(self._path)!r} cannot be used: {error.strerror}",
            hint=f"look at the space, the owner and the mode of {str(self._path.parent)!r}",
        )


def _lengths(segment: mmap.mmap) -> list[int]:
    """What each slot begins with, of all at once: mostly all are free, and looking at them one by one, and writing
    that they are, took 2 ms of each start of a worker.
    """
    with memoryview(segment) as view, view.cast("H") as words, words[:: SLOT // 2] as lengths:
        return lengths.tolist()
