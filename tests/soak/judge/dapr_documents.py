"""State as the product keeps it in a state store of Dapr, read from the values alone: JSON text of base64 of
MessagePack [version, versions before, body]; the body of a record is [key, value, expires, marks, unsent emits].
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

RECORD = "record:"


@dataclass(frozen=True, slots=True)
class Kept:
    key: str
    value: Any
    """None: there is no state."""
    unsent: int
    """Emits that are not known to be sent."""


def kept(documents: Mapping[str, bytes], app: str) -> Iterator[Kept]:
    """Of the records below an app-id's prefix."""
    prefix = f"{app}||{RECORD}"
    for name, data in documents.items():
        if name.startswith(prefix):
            _, _, body = msgspec.msgpack.decode(base64.b64decode(json.loads(data)))
            key, value, _, _, unsent = msgspec.msgpack.decode(body)
            yield Kept(key, None if value is None else json.loads(value), len(unsent))
