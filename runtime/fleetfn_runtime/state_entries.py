"""What people are shown of a key's record."""

from __future__ import annotations

import msgspec
from fleetfn.store import Record
from fleetfn_spec.control import StateEntry


def entry(key: str, record: Record) -> StateEntry:
    return StateEntry(
        key=key,
        value=None if record.value is None else msgspec.json.decode(record.value),
        exists=record.value is not None,
        expires=record.expires,
        unsent=len(record.unsent),
        marks=record.marks.offsets,
    )
