"""dlq: events that were given up on, with their reasons."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fleetfn_cli import choosing, failures, times
from fleetfn_cli.choosing import Key, Newer, Older, Reason, Trigger
from fleetfn_cli.commands import redriving
from fleetfn_cli.screen import counted, rows
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_triggers.inbox import Row

Function = Annotated[
    str | None, typer.Argument(metavar="[FUNCTION]", help="Only of this function.", show_default=False)
]

_PAGE = 500

_LAST = (1 << 63) - 1
"""The inbox counts no further."""


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Events that were given up on: list, show, redrive, discard.", no_args_is_help=True, rich_markup_mode=None
    )
    app.add_typer(group, name="dlq")
    redriving.add(group)

    @command(
        group,
        "list",
        examples="""
        fn dlq list
        fn dlq list battery-alert --key WDB1234567
        fn dlq list --reason crashed --newer-than 1h -o json
        """,
    )
    def list_(
        session: Session,
        function: Function = None,
        trigger: Trigger = None,
        key: Key = None,
        reason: Reason = None,
        older_than: Older = None,
        newer_than: Newer = None,
        after: Annotated[int | None, typer.Option(help="Only after this sequence.")] = None,
        limit: Annotated[int, typer.Option(min=1, max=_PAGE, help="At most so many.")] = 50,
    ) -> None:
        """Dead letters, oldest first."""
        common = choosing.choice(function, trigger, key, reason, older_than, newer_than)
        _list(session, list(common.rows(session.client(), after=after, limit=limit)), limit, chosen=bool(common))

    @command(
        group,
        "show",
        structured=False,
        examples="""
        fn dlq show 12
        fn dlq show 12 -o event | fn send battery-alert
        fn dlq show 12 -o event > event.json
        fn invoke battery-alert --event event.json
        """,
    )
    def show(
        session: Session,
        sequence: Annotated[
            int, typer.Argument(min=1, max=_LAST, help="The number that `fn dlq list` shows.", show_default=False)
        ],
        output: Annotated[
            Literal["table", "json", "yaml", "event"] | None,
            typer.Option("-o", "--output", help="event: the event alone, as a structured CloudEvent."),
        ] = None,
    ) -> None:
        """One dead letter: event, reason, traceback.

        -o event gives its key as the event's `partitionkey`, which `fn send` and `fn invoke` take it from.
        """
        with failures.hinting(f"fn dlq list{session.option}"):
            row = session.client().dead_letter(sequence)
        if output == "event":
            session.screen.line(_structured(row))
            return
        session.screen.output = output or session.screen.output
        session.screen.result(row, lambda: _page(row, time.time()))
        session.screen.next_steps(
            (f"fn dlq redrive {sequence}{session.option}", "run it again, once the cause is mended"),
            (f"fn dlq discard {sequence}{session.option}", "drop it"),
        )


def _list(session: Session, found: list[Row], limit: int, *, chosen: bool) -> None:
    screen = session.screen
    if found or screen.output != "table":
        screen.result(found, lambda: _table(found, time.time()))
    if not found and chosen:
        screen.say(f"No dead letter fits. All of them: fn dlq list{session.option}")
    elif not found:
        screen.say("No dead letters. An event becomes one when its handler says Reject, or fails in all its attempts.")
    else:
        if len(found) == limit:
            screen.say(f"There may be more: --after {found[-1].sequence}")
        first = found[0].sequence
        screen.next_steps(
            (f"fn dlq show {first}{session.option}", "the whole event, and its traceback"),
            (f"fn dlq redrive {first}{session.option}", "run it again, once the cause is mended"),
        )


def _table(found: list[Row], now: float) -> str:
    return rows(
        ["SEQUENCE", "AGE", "FUNCTION", "TRIGGER", "KEY", "ATTEMPTS", "REASON", "DETAIL"],
        (
            [
                str(row.sequence),
                times.duration(max(0.0, now - row.created)),
                row.function,
                row.trigger,
                row.key or "-",
                str(row.attempts),
                row.reason,
                _short(row.detail) + (f" ({row.parked} wait behind it)" if row.parked else ""),
            ]
            for row in found
        ),
    )


def _page(row: Row, now: float) -> str:
    event = row.event
    lines = [
        f"dead letter {row.sequence}  {row.reason}: {row.detail}",
        f"{row.function}, trigger {row.trigger}, key {row.key or '-'}, revision {row.revision[:12]}",
        f"{counted(row.attempts, 'attempt')}, given up {times.ago(row.created, now)} ({times.clock(row.created)})",
        f"position {_position(row.position)}",
        *_parked(row),
        "",
        "Event",
        rows(["", ""], ([name, str(value)] for name, value in _attributes(row).items()), indent="  "),
        f"  data ({len(event.data or b'')} bytes)" if event.data is not None else "  no data",
    ]
    if event.data:
        lines += [f"    {line}" for line in event.data[:2000].decode("utf-8", "backslashreplace").splitlines()]
    if row.failure is not None:
        failure = row.failure
        place = f" at {failure.place}" if failure.place else ""
        lines += ["", f"Failure  {failure.type}: {failure.message}{place}"]
        lines += [f"  {line}" for line in failure.traceback.rstrip().splitlines()]
    return "\n".join(lines)


def _parked(row: Row) -> list[str]:
    if not row.parked:
        return []
    events = counted(row.parked, "later event")
    return [f"{events} of its key wait{'s' if row.parked == 1 else ''} behind it, until it is redriven or discarded"]


def _attributes(row: Row) -> dict[str, Any]:
    event = row.event
    named = {name: getattr(event, name) for name in ("id", "source", "type", "subject", "time", "datacontenttype")}
    headers = {f"header {name}": value.decode("utf-8", "backslashreplace") for name, value in event.headers}
    return {name: value for name, value in (named | event.extensions | headers).items() if value is not None}


def _position(position: object) -> str:
    from fleetfn.position import At, Named

    match position:
        case At(stream, partition, offset):
            return f"{stream} partition {partition} offset {offset}"
        case Named(id):
            return f"caller's id {id}"
        case _:
            return "none"


def _structured(row: Row) -> str:
    """As a CloudEvent on one line, its key along with it."""
    import msgspec
    from fleetfn.cloudevents import json

    event = row.event
    if row.key is not None and "partitionkey" not in event.extensions:
        event = msgspec.structs.replace(event, extensions={**event.extensions, "partitionkey": row.key})
    return json.encode(event).decode()


def _short(text: str, limit: int = 60) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= limit else line[: limit - 1] + "…"
