"""trigger fire: a clock's handler, now."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from fleetfn.errors import TargetError, UsageError
from fleetfn_spec.control import FunctionStatus, TriggerStatus

from fleetfn_cli import times
from fleetfn_cli.commands.looking import Name
from fleetfn_cli.session import Session, command

At = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The instant that the Tick tells, e.g. 2026-03-01T02:30Z; else now."),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Triggers by hand: fire a clock.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="trigger")

    @command(
        group,
        "fire",
        examples="""
        fn trigger fire trip-report
        fn trigger fire trip-report nightly --at 2026-03-01T02:30+01:00
        """,
    )
    def fire(
        session: Session,
        name: Name,
        trigger: Annotated[
            str | None,
            typer.Argument(help="Its cron trigger; needed where it has several.", show_default=False),
        ] = None,
        at: At = None,
    ) -> None:
        """Fire a cron trigger now, beside its schedule.

        The fire waits in the inbox as any other: it wakes the function, is tried again, and may become a dead letter.
        """
        from fleetfn_spec.gateway import FireRequest

        instant = instant_of(at, "--at") if at is not None else None
        client = session.client()
        chosen = clock(client.function(name), trigger)
        fired = client.fire(name, FireRequest(trigger=chosen.name, at=instant))
        session.screen.result(fired, lambda: f"fired {name} {chosen.name} for {times.clock(fired.at)}")
        if chosen.paused:
            session.screen.warn(f"{chosen.name} is paused: it runs after fn resume {name}{session.option}")
        session.screen.next_steps((f"fn logs {name}{session.option} -f", "what it says"))


def clock(status: FunctionStatus, name: str | None) -> TriggerStatus:
    """The cron trigger named, or the only one. Raises TargetError, UsageError."""
    clocks = [each for each in status.triggers if each.kind == "cron"]
    names = ", ".join(each.name for each in clocks)
    if not clocks:
        raise TargetError(
            f"{status.name!r} has no cron trigger",
            hint=f"Run it by hand: fn invoke {status.name}",
        )
    if name is None and len(clocks) > 1:
        raise UsageError(f"{status.name!r} has several cron triggers", hint=f"Name one: {names}.")
    found = next((each for each in clocks if name in (None, each.name)), None)
    if found is None:
        raise TargetError(f"{status.name!r} has no cron trigger {name!r}", hint=f"It has: {names}.")
    return found


def instant_of(text: str, option: str) -> float:
    """Unix seconds of an ISO 8601 time; without a zone: this machine's. Raises UsageError."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"{option} {text!r} is no time: {error}", hint="For example 2026-03-01T02:30Z, or 2026-03-01 02:30 (here)."
        ) from error
