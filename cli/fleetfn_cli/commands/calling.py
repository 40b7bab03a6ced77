"""invoke: run a function once, now, and see what comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import typer
from fleetfn_spec.control import InvokeReply, InvokeRequest

from fleetfn_cli import payloads, times
from fleetfn_cli.commands.clocks import At, instant_of
from fleetfn_cli.commands.looking import Name
from fleetfn_cli.session import Session, command


def register(app: typer.Typer) -> None:
    @command(
        app,
        "invoke",
        examples="""
        fn invoke battery-alert --data '{"vehicle": "V1", "temperature_max": 71}'
        fn invoke battery-alert --trigger show --key V1
        fn invoke battery-alert --event event.json -o json
        fn invoke trip-report --trigger nightly --at 2026-03-01T02:30Z
        """,
    )
    def invoke(
        session: Session,
        name: Name,
        trigger: Annotated[
            str | None, typer.Option("--trigger", "-t", help="As if this one had been the reason.")
        ] = None,
        key: Annotated[
            str | None, typer.Option("--key", "-k", help="The key, where the event does not say it.")
        ] = None,
        data: payloads.Data = None,
        file: payloads.File = None,
        event: payloads.Event = None,
        header: payloads.Headers = None,
        topic: payloads.Topic = None,
        at: At = None,
    ) -> None:
        """Run a handler once, now, without retry.

        Its reply goes to stdout, outcome and emits to stderr. It is a real run: state is saved, emits are published.
        Exit code 1 if the outcome is not done.
        """
        item = payloads.one(data=data, file=file, event=event, key=key, headers=header or [])
        body = _with_headers(payloads.invocable(item), item.headers)
        if at is not None:
            body["time"] = datetime.fromtimestamp(instant_of(at, "--at"), UTC).isoformat()
        request = InvokeRequest(trigger=trigger, key=key, event=body, topic=topic)
        with session.screen.steps() as step:
            if session.screen.is_terminal:
                step(f"running {name}")
            reply = session.client().invoke(name, request)
        _show(session, reply, name)
        if reply.outcome != "done":
            raise typer.Exit(1)


def _with_headers(event: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """`--header ce-type=..` sets an attribute of the event."""
    return event | {name.lower().removeprefix("ce-"): value for name, value in headers.items()}


def _show(session: Session, reply: InvokeReply, name: str) -> None:
    screen = session.screen
    if screen.output != "table":
        screen.result(reply, lambda: "")
        return
    status, body = _http(reply.reply)
    if body is not None:
        screen.line(body if isinstance(body, str) else msgspec.json.format(msgspec.json.encode(body)).decode())
    if status is not None:
        screen.say(f"HTTP {status}")
    outcome = f"{reply.outcome} in {times.duration(reply.duration)}"
    screen.say(f"{outcome}: {reply.reason}" if reply.reason else outcome)
    for emit in reply.emits:
        screen.say(f"emitted {msgspec.json.encode(emit).decode()}")
    if reply.traceback:
        screen.say(reply.traceback.rstrip())
    if reply.outcome != "done" and reply.invocation:
        screen.next_steps((f"fn logs {name}{session.option} --invocation {reply.invocation}", "what it said"))


def _http(reply: Any) -> tuple[int | None, Any]:
    """Status and body of what an http trigger's caller would get; other triggers' replies are their own."""
    if isinstance(reply, dict) and reply.keys() == {"status", "headers", "body"}:
        return reply["status"], reply["body"]
    return None, reply
