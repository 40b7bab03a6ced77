"""The store of a function that keeps nothing: no file is made for it."""

from __future__ import annotations

from collections.abc import Sequence

from fleetfn.errors import StoreError
from fleetfn.store import Conflict, Loaded, Page, Record, Saved, Write


class NoStore:
    """See the port, `fleetfn.store.Store`: it is empty, and stays so."""

    async def load(self, keys: Sequence[str]) -> list[Loaded]:
        return [Loaded(Record(), None) for _ in keys]

    async def save(self, writes: Sequence[Write]) -> list[Saved | Conflict]:
        raise StoreError(f"{len(writes)} records of a function that keeps no state were to be saved")

    async def keys(self, *, after: str | None = None, limit: int = 1000) -> Page:  # noqa: ARG002 - the port's
        return Page((), None)

    async def unsent(self, *, after: str | None = None, limit: int = 1000) -> Page:  # noqa: ARG002 - the port's
        return Page((), None)

    async def close(self) -> None: ...
