"""One push: rows go to a worker's delivery socket, and what became of each is told while the answer comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from fleetfn.errors import FleetError
from fleetfn_plumbing.http_client import Answer, HttpClient
from fleetfn_spec.control import Refusal
from fleetfn_triggers.inbox import Row
from fleetfn_triggers.push import MSGPACK, OUTCOME, Pushed, Told

_told = msgspec.msgpack.Decoder(list[Told])

_BUSY = 503

_REFUSAL_LIMIT = 64 * 1024
"""Bytes of an answer that says why not."""


class UndecidedError(FleetError):
    """Somebody answered, but not as a worker that has taken the rows. `busy`: not now, whatever the rows are."""

    def __init__(self, message: str, *, busy: bool = False) -> None:
        super().__init__(message)
        self.busy = busy


async def push(client: HttpClient, rows: Sequence[Row], hear: Callable[[list[Told]], None]) -> None:
    """`hear` gets what is told, as it comes; of rows that nobody told of when this ends, nothing is known.

    Raises UndecidedError, and UnreachableError where nobody answers or the answer ends early.
    """
    body = msgspec.msgpack.encode([_pushed(row) for row in rows])
    async with client.stream("POST", "/deliver", body, content_type=MSGPACK) as answer:
        if answer.status != 200 or answer.headers.get(OUTCOME) != str(len(rows)):  # noqa: PLR2004 - HTTP's own number
            raise UndecidedError(await _why(answer), busy=answer.status == _BUSY)
        async for chunk in answer.chunks:
            hear(_read(chunk))


def _pushed(row: Row) -> Pushed:
    return Pushed(row.sequence, row.trigger, row.key, row.event, row.position, row.attempts, row.raw)


def _read(chunk: bytes) -> list[Told]:
    try:
        return _told.decode(chunk)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UndecidedError(f"what the worker tells cannot be read: {error}") from error


async def _why(answer: Answer) -> str:
    text = b""
    async for chunk in answer.chunks:
        text += chunk
        if len(text) > _REFUSAL_LIMIT:
            break
    try:
        said = msgspec.json.decode(text, type=Refusal).message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        said = repr(text[:200])
    return f"the answer (status {answer.status}, {OUTCOME} {answer.headers.get(OUTCOME)!r}) decides nothing: {said}"
