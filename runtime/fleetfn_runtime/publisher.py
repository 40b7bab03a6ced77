"""The Publisher port: whoever takes events to the outputs of a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleetfn.errors import OutputError
from fleetfn.invocation import Emit


class Publisher(Protocol):
    def check(self, emit: Emit) -> None:
        """Called before the record that holds `emit` is saved. Raises OutputRefused: it can never be published."""
        ...

    async def publish(self, emits: Sequence[Emit]) -> list[OutputError | None]:
        """Hand over each, in order per output and key; returns when all are acknowledged or given up on.

        A result per item: None, OutputDown (may be tried again), OutputRefused (for good). One item's error never
        fails another; the same emit again (an equal id) may reach the output twice.
        """
        ...

    async def close(self) -> None: ...
