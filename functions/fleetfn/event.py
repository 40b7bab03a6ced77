"""One CloudEvents 1.0 shaped fact."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")

Scalar = str | int | bool
"""Extension values as CloudEvents' JSON format knows them (bytes, URIs and times are strings here)."""


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The attributes of CloudEvents 1.0, and the data.

    Between source and handler the data is bytes as they arrived (`Event[bytes | None]`, None: no data, a tombstone);
    a handler that asks for `Event[Reading]` gets it decoded.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    """When it happened, in UTC."""
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, Scalar] = {}
    headers: tuple[tuple[str, bytes], ...] = ()
    """What the transport carried beside the event (Kafka record headers, HTTP headers), without secrets."""
    data: T
