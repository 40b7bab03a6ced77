"""The cron trigger: fields and checks of a schedule, and the event that a fire is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from fleetfn.event import Event
from fleetfn.tick import Tick
from fleetfn.values import encode
from msgspec import Meta

from fleetfn_triggers.delivery import Delivery, Source
from fleetfn_triggers.fields import Strict
from fleetfn_triggers.reading import OVERHEAD
from fleetfn_triggers.secret import Resolve
from fleetfn_triggers.trigger import Complaint, Reader, Reading

TYPE = "cron.fire"

_KEY = "source"


class Cron(Strict, frozen=True):
    """A function runs by the clock; its handler takes a `Tick`. Fires of one trigger run one after the other."""

    schedule: Annotated[
        str,
        Meta(
            description="Five fields as cron has them: minute, hour, day of month, month, day of week. Or `@hourly`, "
            "`@daily`, `@weekly`, `@monthly`, `@yearly`, or `@every` and a duration of whole seconds, counted from "
            "1970 on. Fixed times that the zone's clock skips come right after; those it shows twice come the first "
            "time. Where minute or hour begins with `*`, the schedule goes by real time.",
            examples=["30 2 * * *", "@every 15m"],
            min_length=1,
        ),
    ]
    timezone: Annotated[
        str,
        Meta(description="Time zone of the schedule (IANA).", examples=["Europe/Berlin"], min_length=1),
    ] = "UTC"
    missed: Annotated[
        Literal["once", "all", "skip"],
        Meta(
            description="Instants that passed while nothing could fire (the machine was off): one fire for all, one "
            "for each (of more than 1000 the latest), or none.",
            examples=["skip"],
        ),
    ] = "once"
    overlap: Annotated[
        Literal["queue", "skip"],
        Meta(
            description="A fire while one before it waits or runs: it waits, or is left out. Those of `missed: all` "
            "and those made by hand always wait.",
            examples=["queue"],
        ),
    ] = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """One run of a schedule's. Instants are Unix seconds."""

    at: float
    previous: float | None = None
    """Instant of the fire before it."""
    missed: int = 0
    """Instants it stands for beside its own."""
    by_hand: str = ""
    """What tells it from other fires for the same instant; '': the schedule made it."""


def source(function: str, trigger: str) -> str:
    """The event's source, and the key of its lane: fires of one trigger never run at the same time."""
    return f"cron:{function}/{trigger}"


def event(function: str, trigger: str, fire: Fire, timezone: str) -> Event[bytes | None]:
    """The same fire is always the same event: `<function>/<trigger>/<instant>` is its id."""
    at = datetime.fromtimestamp(fire.at, UTC)
    previous = None if fire.previous is None else datetime.fromtimestamp(fire.previous, UTC)
    instant = at.isoformat().replace("+00:00", "Z")
    return Event(
        id="/".join(filter(None, (function, trigger, instant, fire.by_hand))),
        source=source(function, trigger),
        type=TYPE,
        time=at,
        datacontenttype="application/json",
        data=encode(Tick(at=at, previous=previous, missed=fire.missed, timezone=timezone)),
    )


class CronKind:
    name = "cron"
    spec: type[msgspec.Struct] = Cron
    connection: type[msgspec.Struct] | None = None
    envelope: frozenset[str] = frozenset()
    natural_key: str | None = _KEY
    unbatched = "each fire is for itself"

    def check(self, spec: Cron, key: str | None) -> Iterator[Complaint]:
        from fleetfn_triggers import cron_times  # noqa: PLC0415 - zones and schedules cost the start of who has none

        try:
            cron_times.zone_of(spec.timezone)
        except cron_times.ScheduleError as error:
            yield Complaint("cron.timezone", error.message, error.hint)
        try:
            cron_times.parse(spec.schedule)
        except cron_times.ScheduleError as error:
            yield Complaint("cron.schedule", error.message, error.hint)
        if key != _KEY:
            shown = "null" if key is None else f'"{key}"'
            yield Complaint("key", f"{shown}: fires of a clock have one key, the trigger's own", "leave key out")

    def reader(self, spec: Cron, reading: Reading) -> Reader:
        return CronReader(spec, reading)

    async def backlog(self, spec: Cron, *, connection: None, group: str, resolve: Resolve) -> None:
        """Nothing waits at a clock."""

    def scaler(self, spec: Cron, *, connection: None, group: str, concurrency: int) -> None:
        """What waits is in the gateway."""


class CronReader:
    """Fire -> Delivery. Where it stands is the inbox' to say."""

    def __init__(self, spec: Cron, reading: Reading) -> None:
        self._function = reading.function
        self._trigger = reading.trigger
        self._timezone = spec.timezone

    def __call__(self, fire: Fire, source: Source) -> Delivery:
        made = event(self._function, self._trigger, fire, self._timezone)
        return Delivery(
            trigger=self._trigger,
            key=made.source,
            event=made,
            position=None,
            source=source,
            size=len(made.data or b"") + OVERHEAD,
        )


KIND = CronKind()
