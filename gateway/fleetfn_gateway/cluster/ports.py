"""A port of the gateway for each function with HTTP triggers, kept over restarts: it tells whose a request is."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from fleetfn_gateway.notes import Notes

_NOTE = "cluster/ports"


class Ports:
    """Use on one loop. `first`, `last`: those there are."""

    def __init__(self, notes: Notes, first: int, last: int) -> None:
        self._notes = notes
        self._range = range(first, last + 1)
        self._taken: dict[str, int] = {}
        self._loaded = False

    async def give(self, functions: Collection[str], unusable: Collection[int] = ()) -> dict[str, int]:
        """By function, for as many as there are ports. Those of others are free again. Raises StoreError."""
        if not self._loaded:
            kept = self._notes.note(_NOTE)
            self._taken = {} if kept is None else msgspec.json.decode(kept, type=dict[str, int])
            self._loaded = True
        usable = set(self._range) - set(unusable)
        given = {name: port for name, port in self._taken.items() if name in functions and port in usable}
        free = sorted(usable - set(given.values()), reverse=True)
        for name in sorted(functions):
            if name not in given and free:
                given[name] = free.pop()
        if given != self._taken:
            await self._notes.put((), notes={_NOTE: msgspec.json.encode(given)})
            self._taken = given
        return dict(given)
