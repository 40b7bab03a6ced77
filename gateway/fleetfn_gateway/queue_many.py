"""Many rows in one statement. On the writer's thread each statement, and each row fetched, has to win the interpreter's
lock back from the event loop; so values go in as lists, and what is found comes back as one JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

CHUNK = 1024
"""Rows of one statement."""


def size(count: int) -> int:
    """The next power of two, so that few statements are ever prepared."""
    return 1 << (count - 1).bit_length()


def placeholders(size: int, width: int) -> str:
    """For `size` rows of `width` columns."""
    return ",".join([f"({','.join('?' * width)})"] * size)


def as_json(values: Iterable[Any]) -> str:
    """For json_each: a list of any length is one parameter."""
    return msgspec.json.encode(list(values)).decode()
