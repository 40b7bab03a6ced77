"""Log lines as people read them: time, level, what, and what it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from fleetfn_cli.screen import Screen

_COLOUR = {"debug": "dim", "info": "", "warning": "yellow", "error": "red", "critical": "red"}

Wanted = Callable[[bytes], bool]


def wanted(*, revision: str | None, invocation: str | None) -> Wanted:
    """The filters that the node does not know."""
    if revision is None and invocation is None:
        return lambda _: True

    def check(line: bytes) -> bool:
        fields = _fields(line)
        return (revision is None or str(fields.get("revision", "")).startswith(revision)) and (
            invocation is None or fields.get("invocation") == invocation
        )

    return check


def show(line: bytes, screen: Screen) -> None:
    if screen.output == "json":
        screen.line(line.decode("utf-8", "replace"))
    elif screen.output == "yaml":
        screen.stream(_fields(line))
    else:
        screen.line(text(line, screen.paint))


def text(line: bytes, paint: Callable[[str, str], str]) -> str:
    return pretty(_fields(line), paint)


def pretty(fields: dict[str, Any], paint: Callable[[str, str], str]) -> str:
    level = str(fields.get("level", "info")).lower()
    colour = _COLOUR.get(level, "")
    said = str(fields.get("message", ""))
    if error := fields.get("exception"):
        said = f"{said}: {error}" if said else str(error)
    shown = f"{level.upper():7} {said}"
    lines = [
        f"{paint(_clock(fields.get('time')), 'dim')} {paint(shown, colour) if colour else shown}"
        f"  {paint(' '.join(_belongs(fields)), 'dim')}".rstrip()
    ]
    if trace := fields.get("traceback"):
        lines += [f"    {line}" for line in str(trace).rstrip().splitlines()]
    return "\n".join(lines)


def _belongs(fields: dict[str, Any]) -> list[str]:
    own = fields.get("fields")
    shown = {
        "trigger": fields.get("trigger"),
        "attempt": None if fields.get("attempt") == 1 else fields.get("attempt"),
        "key": fields.get("key_hash"),
        "invocation": fields.get("invocation"),
        "at": fields.get("place"),
        **(own if isinstance(own, dict) else {}),
    }
    return [f"{name}={value}" for name, value in shown.items() if value not in (None, "")]


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = None
    return fields if isinstance(fields, dict) else {"message": line.decode("utf-8", "replace")}


def _clock(value: Any) -> str:
    """Local time of a line's; with its date if that is not today's."""
    from datetime import datetime

    try:
        then = datetime.fromisoformat(str(value)).astimezone()
    except ValueError:
        return str(value or "")
    today = then.date() == datetime.now(then.tzinfo).date()
    return then.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S") + f".{then.microsecond // 1000:03}"
