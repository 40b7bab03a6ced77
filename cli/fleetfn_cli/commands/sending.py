"""send: events through a function's source, as its real senders would."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import msgspec
import typer
from fleetfn.errors import TargetError, UsageError
from fleetfn_spec.control import FunctionStatus, SendItem, SendLine, TriggerStatus
from msgspec.structs import replace

from fleetfn_cli import pacing, payloads, times
from fleetfn_cli.commands.looking import Name
from fleetfn_cli.durations import per_second
from fleetfn_cli.payloads import RecordingError
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_cli.screen import Screen

_TOLD_SKIPS = 5
"""Broken lines that are told one by one; of more only the number."""

_BATCH = 100
"""Items sent at once, where neither a rate nor a slow writer of stdin says when each is due."""

STILL = 10.0
"""Seconds without progress that are worth a warning."""

_PLAIN_EVERY = 5.0
"""Seconds between lines of progress where no terminal replaces one by the next."""

_GIVE = "Give --data, --file, --event or --recording."

_BAD = 400
"""HTTP status from which a reply is a failure."""


def register(app: typer.Typer) -> None:
    @command(
        app,
        "send",
        examples="""
        fn send battery-alert --key V1 --data '{"vehicle": "V1", "temperature_max": 71}'
        fn send battery-alert --recording telemetry.jsonl --rate 1000/s
        fn send tyre-pressure --topic vehicles/V1/tyres --data '{"front_left": 2.4}'
        fn dlq show 12 -o event | fn send battery-alert
        """,
    )
    def send(
        session: Session,
        name: Name,
        trigger: Annotated[
            str | None, typer.Option("--trigger", "-t", help="Where to; needed where several could be meant.")
        ] = None,
        key: Annotated[str | None, typer.Option("--key", "-k", help="Key of each event.")] = None,
        topic: payloads.Topic = None,
        data: payloads.Data = None,
        file: payloads.File = None,
        event: payloads.Event = None,
        recording: Annotated[
            str | None,
            typer.Option(
                metavar="FILE.jsonl",
                help='One event a line: a CloudEvent, {"key": .., "data": ..} or a bare payload; `-`: stdin, also '
                "where nothing else is given.",
            ),
        ] = None,
        header: payloads.Headers = None,
        rate: Annotated[
            str | None, typer.Option(metavar="N/s", help="So many a second; else as fast as it goes.")
        ] = None,
        count: Annotated[
            int | None, typer.Option(min=1, help="Send so many: the first of a recording, or the same event again.")
        ] = None,
        skip_bad: Annotated[
            bool, typer.Option("--skip-bad", help="Leave broken lines out instead of stopping.")
        ] = False,
    ) -> None:
        """Send events through a trigger's source: its Kafka topic, its MQTT topic, its HTTP path.

        An MQTT topic's {level} is filled from the key where it is that; else --topic names the topic.
        Progress on stderr: sent, rate, lag. A broken line of a recording is named, and nothing after it is sent.
        """
        if recording is not None and (data or file or event or header):
            raise UsageError("--recording excludes --data, --file, --event and --header")
        if recording is None and not (data or file or event or header) and not sys.stdin.isatty():
            recording = "-"
        per = per_second(rate, "--rate") if rate is not None else None
        skips = _Skips(session.screen)
        client = session.client()
        chosen = choose(client.function(name), trigger)
        with _items(recording, data, file, event, key, header, skips if skip_bad else None) as given:
            items = given if recording is not None or count is None else itertools.cycle(given)
            aimed = (replace(item, topic=topic) for item in items) if topic is not None else items
            paced = pacing.paced(itertools.islice(aimed, count), per)
            batch = 1 if per is not None or recording == "-" else _BATCH
            with client.send(name, chosen.name, paced, batch=batch) as lines:
                last = _follow(session, lines, f"{name} {chosen.name}")
        skips.sum_up()
        _finish(session, last, name, chosen)


def choose(status: FunctionStatus, trigger: str | None) -> TriggerStatus:
    """The trigger named, the only one, or the only one with a broker. Raises TargetError, UsageError."""
    names = ", ".join(each.name for each in status.triggers)
    if trigger is not None:
        found = next((each for each in status.triggers if each.name == trigger), None)
        if found is None:
            raise TargetError(f"{status.name!r} has no trigger {trigger!r}", hint=f"It has: {names}.")
        return _no_clock(status, found)
    brokered = [each for each in status.triggers if each.kind in ("kafka", "mqtt")]
    for some in (status.triggers, brokered):
        if len(some) == 1:
            return _no_clock(status, some[0])
    raise UsageError(f"{status.name!r} has several triggers", hint=f"Name one with --trigger: {names}.")


def _no_clock(status: FunctionStatus, trigger: TriggerStatus) -> TriggerStatus:
    if trigger.kind == "cron":
        raise UsageError(
            f"trigger {trigger.name!r} of {status.name!r} is a clock: nothing can be sent to it",
            hint=f"Fire it: fn trigger fire {status.name} {trigger.name}",
        )
    return trigger


@contextmanager
def _items(
    recording: str | None,
    data: str | None,
    file: str | None,
    event: str | None,
    key: str | None,
    headers: list[str] | None,
    skips: _Skips | None,
) -> Iterator[Iterator[SendItem]]:
    if recording is None:
        if data is None and file is None and event is None:
            raise UsageError("nothing to send", hint=_GIVE)
        yield iter([payloads.one(data=data, file=file, event=event, key=key, headers=headers or [])])
    elif recording == "-":
        items = payloads.recording(sys.stdin.buffer, "stdin", key=key, skipped=skips)
        first = next(items, None)
        if first is None:
            raise UsageError("nothing to send: stdin is empty", hint=_GIVE)
        yield itertools.chain([first], items)
    else:
        with _open(recording) as source:
            yield payloads.recording(source, recording, key=key, skipped=skips)


def _open(name: str) -> BinaryIO:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error


class _Skips:
    """Broken lines that were left out."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.count = 0

    def __call__(self, error: RecordingError) -> None:
        self.count += 1
        if self.count <= _TOLD_SKIPS:
            self._screen.warn(f"left out {error.message}")

    def sum_up(self) -> None:
        if self.count > _TOLD_SKIPS:
            self._screen.warn(f"left out {self.count} broken lines in all")


def _follow(session: Session, lines: Iterator[SendLine], where: str) -> SendLine:
    """Show progress; the last line. Raises TargetError if there was none."""
    begin = time.monotonic()
    last: SendLine | None = None
    watch = _Watch(session, where)
    with session.screen.steps(keep=False) as step:
        for line in lines:
            if line.refusal is not None:
                raise TargetError(f"{line.refusal.message} ({line.sent} were sent)", hint=line.refusal.hint)
            last = line
            if not line.finished and watch.due(line):
                step(_progress(line, time.monotonic() - begin, where))
    if last is None or not last.finished:
        sent = last.sent if last is not None else 0
        raise TargetError(
            f"the node ended its answer early; at least {sent} were sent", hint="The end of node.log tells why."
        )
    session.screen.say(_progress(last, time.monotonic() - begin, where))
    return last


class _Watch:
    """When progress is worth a line, and whether there is any."""

    def __init__(self, session: Session, where: str) -> None:
        self._session = session
        self._function = where.partition(" ")[0]
        self._told = float("-inf")
        self._moved = time.monotonic()
        self._at: tuple[int, int | None] | None = None
        self._warned = False

    def due(self, line: SendLine) -> bool:
        now = time.monotonic()
        if (at := (line.sent, line.lag)) != self._at:
            self._at, self._moved = at, now
        elif now - self._moved >= STILL and not self._warned:
            self._warned = True
            look = f"fn describe {self._function}{self._session.option}"
            self._session.screen.warn(f"nothing moves: the function takes no events. Why, says: {look}")
        if not self._session.screen.is_terminal and now - self._told < _PLAIN_EVERY:
            return False
        self._told = now
        return True


def _progress(line: SendLine, seconds: float, where: str) -> str:
    rate = f", {line.sent / seconds:,.0f}/s" if seconds >= 1 else ""
    lag = f", lag {line.lag:,}" if line.lag is not None else ""
    return f"{line.sent:,} sent to {where} in {times.duration(seconds)}{rate}{lag}"


def _finish(session: Session, last: SendLine, name: str, trigger: TriggerStatus) -> None:
    screen = session.screen
    if screen.output != "table":
        screen.result(last, lambda: "")
    elif last.reply is not None:
        status, body = last.reply.get("status"), last.reply.get("body")
        screen.say(f"HTTP {status}")
        if body not in (None, ""):
            screen.line(_text(body))
    if last.reply is not None and int(last.reply.get("status", 200)) >= _BAD:
        raise typer.Exit(1)
    if trigger.kind != "http":
        screen.next_steps((f"fn describe {name}{session.option}", "what became of them"))


def _text(body: Any) -> str:
    return body if isinstance(body, str) else msgspec.json.encode(body).decode()
