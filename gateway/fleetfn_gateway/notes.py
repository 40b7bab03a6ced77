"""What feeds and the gateway itself remember over restarts, in the inbox' file: a small durable key-value store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleetfn_triggers.inbox import Arrival


class Notes(Protocol):
    """Implemented by the queue. Names are paths, `mqtt/<function>/<trigger>/...`, so that a trigger's can be forgotten
    at once. What is asked is durable when a method returns. Errors as in Inbox.
    """

    def note(self, name: str) -> bytes | None:
        """What was written last. Raises StoreError."""
        ...

    async def put(self, arrivals: Sequence[Arrival], *, notes: Mapping[str, bytes] = {}) -> list[int]:
        """`Inbox.put`, and the notes in the same commit: all or nothing. Notes alone are taken also while the inbox
        takes no new rows.
        """
        ...

    async def forget(self, prefix: str) -> None:
        """All notes whose name begins so."""
        ...
