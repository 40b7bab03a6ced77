"""A note beside the state: what has connected, and which Kafka groups have begun, so that no start skips a record."""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec
from fleetfn_spec.function import Trigger

from fleetfn_runtime.settings import Settings, group_id


class _Note(msgspec.Struct):
    mark: str
    """Of a revision and all that it connects with."""
    began: list[tuple[str, str | None, str | None]]
    """Groups of which it is committed where they begin, each with its connection and topic."""


class Connected:
    def __init__(self, settings: Settings) -> None:
        self._path = settings.data / "connected"
        self._settings = settings
        triggers = settings.function.spec.triggers
        parts = [(trigger.name, trigger.connection, trigger.kafka) for trigger in triggers]
        what = (settings.revision, settings.environment, settings.place, settings.kafka, parts)
        mark = hashlib.sha256(msgspec.json.encode(what, enc_hook=str)).hexdigest()
        self._now = _Note(mark, [self._group(trigger) for trigger in triggers if trigger.kafka is not None])

    def holds(self) -> bool:
        """The revision has connected with these settings, and its start offsets are committed."""
        return self._before.mark == self._now.mark

    def began(self, trigger: Trigger) -> bool:
        """The last who connected had this trigger, too, on the same topic of the same connection; only the connection's
        address may be another one now.
        """
        return self._group(trigger) in self._before.began

    def keep(self) -> None:
        self._path.write_bytes(msgspec.json.encode(self._now))
        self._before = self._now

    @cached_property
    def _before(self) -> _Note:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):  # of none, or of one that was cut short: connect once more
            return _Note("", [])

    def _group(self, trigger: Trigger) -> tuple[str, str | None, str | None]:
        settings = self._settings
        group = group_id(settings.environment, settings.place, settings.function.name, trigger.name)
        return group, trigger.connection, None if trigger.kafka is None else trigger.kafka.topic
