"""Everything that FleetFn itself raises, one tree:

    FleetError
    ├── Problem list
    │   └── SpecError          function.yaml, environments.yaml or a deploy is wrong; carries all problems
    ├── BindingError           a handler's signature or config cannot be bound to its trigger
    ├── SealedError            state, emit or log of an invocation that is over (timed out, returned)
    ├── EventError             bytes that claim to be a CloudEvent and are not one
    ├── DataError              the payload does not decode into what the handler asks for
    ├── StateError             a stored record does not decode into the handler's state type
    ├── StoreError             the store cannot be reached or refuses (full disk, lost connection)
    │   └── RecordError        one key's record cannot be read or written; the store itself is well
    ├── OutputError            an output cannot take an event
    │   ├── OutputDown         for now: it may be tried again
    │   └── OutputRefused      for good: too large, no such topic
    ├── TargetError            a node or cluster said no, or is not there
    └── UsageError             the command line or a setting is wrong

`Retry` and `Reject` (outcomes.py) are not errors but words a handler says.
"""

from __future__ import annotations


class FleetError(Exception):
    """What failed, with the value quoted (`message`), and the next step (`hint`)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class EventError(FleetError):
    """Bytes that claim to be a CloudEvent and are not one."""


class BindingError(FleetError):
    """A handler's signature, or the config it asks for, cannot be bound to its trigger.

    `argument` is its name, or '' where the handler as a whole is meant; `file` and `line` point at the user's source.
    `config`: where it is the config that does not fit, each of its problems, `spec.config.hot: expected ...`.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        argument: str = "",
        file: str = "",
        line: int = 0,
        config: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{file}:{line}: {message}" if file else message, hint=hint)
        self.argument = argument
        self.file = file
        self.line = line
        self.config = config


class SealedError(FleetError):
    """State, emit or log of an invocation that is over: it timed out, or it has returned."""


class DataError(FleetError):
    """A payload that does not decode into what the handler asks for."""


class StateError(FleetError):
    """A stored record that does not decode into the handler's state type."""


class StoreError(FleetError):
    """The store cannot be reached, or refuses to read or write."""


class RecordError(StoreError):
    """The record of `key` alone cannot be read or written. Nothing of the call was done; without the key it may be."""

    def __init__(self, message: str, *, key: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.key = key


class OutputError(FleetError):
    """An output cannot take an event."""


class OutputDown(OutputError):  # noqa: N818 - a state of affairs, said as one
    """The output cannot be reached now; the event stays unsent."""


class OutputRefused(OutputError):  # noqa: N818 - a state of affairs, said as one
    """The output will never take this event: too large, no such topic, not allowed."""


class TargetError(FleetError):
    """A node or cluster said no, or is not there."""


class UsageError(FleetError):
    """The command line or a setting is wrong."""
