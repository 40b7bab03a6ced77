"""What a bridge remembers over restarts: one note per trigger, written in the same commit as rows."""

from __future__ import annotations

import msgspec

from fleetfn_gateway.mqtt_unacked import Entry


class Note(msgspec.Struct, kw_only=True):
    broker: str = ""
    """host:port whose session this is about; another one knows nothing of it."""
    client_id: str = ""
    filters: list[str] = []
    """Subscriptions that the session has, or may have: first the one that is wanted."""
    unacked: dict[int, Entry] = {}


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Note)


def name(function: str, trigger: str) -> str:
    return f"mqtt/{function}/{trigger}/session"


def prefix(function: str, trigger: str) -> str:
    return f"mqtt/{function}/{trigger}/"


def encode(note: Note) -> bytes:
    return _encode(note)


def decode(data: bytes | None) -> Note:
    """An empty one where nothing is noted, or by a version that wrote it otherwise: then resends become rows again."""
    if data is None:
        return Note()
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        return Note()
