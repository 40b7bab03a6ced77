"""pause, resume: triggers held by hand. It survives redeploys."""

from __future__ import annotations

from typing import Annotated

import typer
from fleetfn_spec.control import FunctionStatus

from fleetfn_cli.commands.looking import Name
from fleetfn_cli.session import Session, command

Triggers = Annotated[list[str] | None, typer.Option("--trigger", "-t", help="Only this one; may be repeated.")]


def register(app: typer.Typer) -> None:
    @command(app, "pause", examples="fn pause battery-alert\nfn pause battery-alert --trigger telemetry")
    def pause(session: Session, name: Name, trigger: Triggers = None) -> None:
        """Stop taking events; nothing is lost.

        Kafka triggers read no further, HTTP triggers answer 503, MQTT messages and fires wait. It
        stays so over redeploys and restarts, until `fn resume`.
        """
        status = session.client().pause(name, trigger or [])
        session.screen.result(status, lambda: _said(status))
        session.screen.next_steps((f"fn resume {name}{session.option}", "go on"))

    @command(app, "resume", examples="fn resume battery-alert\nfn resume battery-alert --trigger telemetry")
    def resume(session: Session, name: Name, trigger: Triggers = None) -> None:
        """Go on where pause stopped."""
        status = session.client().resume(name, trigger or [])
        session.screen.result(status, lambda: _said(status))


def _said(status: FunctionStatus) -> str:
    return "\n".join(f"{each.name}: {'paused' if each.paused else 'takes events'}" for each in status.triggers)
