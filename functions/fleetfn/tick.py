"""`Tick`: what a handler of a cron trigger is told. As JSON it is the data of the event of a fire."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec


class Tick(msgspec.Struct, frozen=True, kw_only=True, rename={"at": "scheduled"}):
    """One fire of a clock. Raises ValueError for times without a zone."""

    at: datetime
    """The instant of the schedule that this fire is for, in UTC: never the time the handler happens to run."""
    previous: datetime | None = None
    """The instant of the fire before this one, in UTC; None for the first."""
    missed: int = 0
    """How many instants, while nothing could fire, this fire stands for beside its own."""
    timezone: str = "UTC"
    """The trigger's."""

    def __post_init__(self) -> None:
        for name in ("at", "previous"):
            value = getattr(self, name)
            if value is None:
                continue
            if value.tzinfo is None:
                raise ValueError(f"Tick: {name} = {value.isoformat()} has no time zone: datetime(..., tzinfo=UTC)")
            if value.tzinfo is not UTC:
                msgspec.structs.force_setattr(self, name, value.astimezone(UTC))

    @property
    def local(self) -> datetime:
        """`at`, by the clock of the trigger's zone: `tick.local.date()` is the day it is there."""
        from zoneinfo import ZoneInfo  # noqa: PLC0415 - most functions have no clock, and this costs their start

        return self.at.astimezone(ZoneInfo(self.timezone))
