"""What a gateway and a worker say to each other about rows of the inbox: MessagePack on the worker's delivery socket.

POST /deliver   body: [Pushed]; rows of one trigger and key are in order
                200, header fn-outcome: <how many>, chunked; each chunk is one MessagePack list of [Told], sent as
                they become known. A row that is not told when the answer ends is pushed again. Any other answer
                decides nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from fleetfn.event import Event
from fleetfn.position import Position

OUTCOME = "fn-outcome"
"""Header of an answer that decides: how many rows it is about."""

MSGPACK = "application/msgpack"

BODY_LIMIT = 96 * 1024 * 1024
"""Bytes of one push."""


class Pushed(msgspec.Struct, frozen=True, array_like=True):
    """One row. `attempts`: runs begun before this one, as far as the inbox knows."""

    sequence: int
    trigger: str
    key: str | None
    event: Event[bytes | None]
    position: Position
    attempts: int = 0
    raw: bool = False


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What became of a row.

    done: its state is saved, its emits are published: forget it. later: the worker has offered it back, with the time
    it is due. dead: the worker has buried it. lost: this worker does not run it; push it again after `after` seconds.
    behind: one before it, of its trigger and key, has to wait: push it again in its turn.
    """

    sequence: int
    outcome: Literal["done", "later", "dead", "lost", "behind"]
    after: float = 0.0
