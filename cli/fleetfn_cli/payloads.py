"""What invoke and send hand over: JSON from the command line, a file as it is, a CloudEvent, a recording."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer
from fleetfn.errors import FleetError, UsageError
from fleetfn_spec.control import SendItem

Data = Annotated[str | None, typer.Option("--data", "-d", metavar="JSON", help="The payload; `-`: from stdin.")]
File = Annotated[str | None, typer.Option("--file", metavar="FILE", help="A file's bytes as the payload; `-`: stdin.")]
Event = Annotated[
    str | None, typer.Option("--event", "-e", metavar="FILE", help="A CloudEvent as JSON (structured); `-`: stdin.")
]
Topic = Annotated[
    str | None, typer.Option(help="MQTT triggers: the topic, where the trigger's own has levels that are not the key.")
]
Headers = Annotated[list[str] | None, typer.Option("--header", "-H", metavar="NAME=VALUE", help="May be repeated.")]


class RecordingError(FleetError):
    """A line of a recording that is no event."""


def one(*, data: str | None, file: str | None, event: str | None, key: str | None, headers: Sequence[str]) -> SendItem:
    """The item that the options describe. Raises UsageError."""
    given = [name for name, value in (("--data", data), ("--file", file), ("--event", event)) if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other", hint="Give one of them.")
    pairs = parse_headers(headers)
    if event is not None:
        return SendItem(key=key, event=_event(_read(event), event), headers=pairs)
    if file is not None:
        return _raw(_read(file), key, pairs)
    if data is not None:
        return SendItem(key=key, data=_json(data if data != "-" else _read("-").decode()), headers=pairs)
    return SendItem(key=key, headers=pairs)


def parse_headers(headers: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for header in headers:
        name, found, value = header.partition("=")
        if not found:
            name, found, value = header.partition(":")
        if not found or not name.strip():
            raise UsageError(f"--header {header!r} is no NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


def recording(
    source: BinaryIO, name: str, *, key: str | None, skipped: Callable[[RecordingError], None] | None = None
) -> Iterator[SendItem]:
    """Items of a JSONL recording: a line is a CloudEvent, `{"key": .., "data": ..}`, or a bare payload.

    A broken line raises RecordingError, which names it; with `skipped` it is told there and left out.
    """
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        try:
            yield _recorded(line, f"{name}:{number}", key)
        except RecordingError as error:
            if skipped is None:
                raise
            skipped(error)


def invocable(item: SendItem) -> dict[str, Any]:
    """A structured CloudEvent that holds the item; the node fills in what is missing."""
    if item.event is not None:
        return item.event
    if item.base64 is not None:
        return {"data_base64": item.base64}
    return {"data": item.data} if item.data is not None else {}


def _recorded(line: bytes, place: str, key: str | None) -> SendItem:
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordingError(
            f"{place}: not JSON: {error}", hint="Mend the line, or leave such lines out with --skip-bad."
        ) from error
    if isinstance(value, dict) and "specversion" in value:
        return SendItem(key=key, event=value)
    if isinstance(value, dict) and value.keys() & {"data", "base64", "event"} and value.keys() <= _ITEM_FIELDS:
        try:
            item = msgspec.convert(value, SendItem)
        except msgspec.ValidationError as error:
            raise RecordingError(
                f"{place}: {error}", hint="A line has key, data (or base64, event), headers."
            ) from error
        return msgspec.structs.replace(item, key=key) if key is not None else item
    return SendItem(key=key, data=value)


_ITEM_FIELDS = frozenset(SendItem.__struct_fields__)


def _event(content: bytes, name: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--event {name}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"--event {name}: a CloudEvent is an object, not {type(value).__name__}")
    return value


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"--data {text[:60]!r} is not JSON: {error}",
            hint="A text needs its quotes: --data '\"text\"'. Raw bytes: --file.",
        ) from error


def _raw(content: bytes, key: str | None, headers: dict[str, str]) -> SendItem:
    return SendItem(key=key, base64=base64.b64encode(content).decode(), headers=headers)


def _read(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
