"""How far a partition may be committed: up to the first record that is not settled.

Offsets have gaps (compaction, transaction markers), so the prefix goes over what was received, not over numbers.
"""

from __future__ import annotations

from collections import deque


class Prefix:
    """`receive` and `settle` may be called on two threads: what they share is changed by single steps of a deque."""

    __slots__ = ("_early", "_pending", "done")

    def __init__(self, done: int) -> None:
        self.done = done
        """The offset to commit: everything received below it is settled."""
        self._pending: deque[int] = deque()
        self._early: set[int] = set()

    def __len__(self) -> int:
        """Records that hold the prefix back, or stand behind one that does."""
        return len(self._pending)

    def receive(self, offset: int) -> None:
        """Offsets ascend."""
        self._pending.append(offset)

    def settle(self, offset: int) -> None:
        """One that was received, and once."""
        pending, early = self._pending, self._early
        if pending[0] != offset:
            early.add(offset)
            return
        pending.popleft()
        while early and pending and pending[0] in early:
            offset = pending.popleft()
            early.discard(offset)
        self.done = offset + 1
