"""The key, id and time of one message, by the expressions of its trigger: all data paths in one decode."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fleetfn.event import Event

from fleetfn_triggers import data_paths, keys
from fleetfn_triggers.keys import MISSING
from fleetfn_triggers.reading import Unreadable, shown, time_of
from fleetfn_triggers.trigger import Reading

Values = tuple[object, ...]


class Extract:
    """Compiled once per trigger. All methods raise Unreadable."""

    def __init__(self, reading: Reading, envelope: keys.Envelope) -> None:
        given = frozenset(envelope) | keys.DATA
        paths: list[data_paths.Path] = []

        def compiled(text: str | None, roots: frozenset[str]) -> keys.Picker | None:
            return None if text is None else keys.picker(keys.parse(text, roots), paths, envelope)

        self._names = [text for text in (reading.key, reading.event.id, reading.event.time) if text is not None]
        self._key_name, self._id_name, self._time_name = (
            reading.key or "",
            reading.event.id or "",
            reading.event.time or "",
        )
        self._key = compiled(reading.key, given | keys.ATTRIBUTES)
        self._of_envelope = (
            self._key is not None and keys.parse(self._key_name, given | keys.ATTRIBUTES).root in envelope
        )
        self._key_paths = tuple(paths)
        self._id = compiled(reading.event.id, given)
        self._time = compiled(reading.event.time, given)
        self._paths = tuple(paths)
        self.of_envelope = not (self._paths or self._id or self._time)
        """Nothing is read out of the data; `bare` has nothing to tell."""
        self._read_key = data_paths.compile_paths(self._key_paths)
        self._read = data_paths.compile_paths(self._paths)

    def bare(self, message: Any, data: bytes | None) -> tuple[str | None, datetime | None, Values]:
        """Id and time (None: the payload has none), and the values that `key` wants, of what is no CloudEvent."""
        values = self._values(data, self._read, self._paths) if self._paths else ()
        id_, time = None, None
        if self._id is not None:
            found = self._id(message, None, values)
            id_ = found if type(found) is str and found else _id(found, self._id_name)
        if self._time is not None:
            found = self._time(message, None, values)
            if found is not None and found is not MISSING:
                time = time_of(found, self._time_name)
        return id_, time, values

    def key(self, message: Any, event: Event[bytes | None], values: Values | None = None) -> str | None:
        """The key; None where the trigger has none. `values`: those of `bare`, where it read them."""
        if self._key is None:
            return None
        if values is None:
            values = self._values(event.data, self._read_key, self._key_paths) if self._key_paths else ()
        if event.data is None and self._key_paths:
            raise Unreadable(f"no key: there is no data that {self._key_name} could be read from")
        return keys.key_text(self._key(message, event, values), self._key_name)

    def key_of_unreadable(self, message: Any) -> str | None:
        """The key of a message that is unreadable for another reason, where its envelope has it."""
        if self._key is None or not self._of_envelope:
            return None
        try:
            return keys.key_text(self._key(message, None, ()), self._key_name)
        except Unreadable:
            return None

    def _values(self, data: bytes | None, read: data_paths.Read, paths: tuple[data_paths.Path, ...]) -> Values:
        if data is None:
            return (MISSING,) * len(paths)
        try:
            return read(data)
        except data_paths.NotJsonError as exc:
            names = ", ".join(name for name in self._names if name.startswith("data."))
            raise Unreadable(f"the data is {exc}; {names} is read from JSON") from exc


def _id(found: object, where: str) -> str | None:
    if found is None or found is MISSING or found == "":
        return None
    if type(found) is int:
        return str(found)
    if type(found) is bytes:
        return keys.key_text(found, where)
    raise Unreadable(f"no id: {where} is {shown(found)}, neither text nor a whole number")
