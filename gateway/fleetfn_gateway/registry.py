"""The functions that a gateway was told of, and the ends of those that are being deleted, kept in its file: after a
restart it goes on by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from fleetfn.errors import StoreError
from fleetfn_spec.gateway import GatewayFunction

from fleetfn_gateway.notes import Notes

_NOTE = "gateway/functions"
_ENDINGS = "gateway/endings"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """What is left to do for a function that was deleted."""

    name: str
    function: GatewayFunction | None
    """As it was; None: it was not known then."""
    triggers: tuple[str, ...]
    """Those whose sources are still to be told."""
    drop: bool
    """Its rows and dead letters are still to be dropped."""
    since: float
    """Unix seconds."""


class Registry:
    """Use on one loop, one change at a time."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.functions: dict[str, GatewayFunction] = {}
        self.endings: list[Ending] = []

    def load(self) -> None:
        """What the last `keep` kept. Raises StoreError."""
        self.functions = {each.name: each for each in self._read(_NOTE, list[GatewayFunction])}
        self.endings = self._read(_ENDINGS, list[Ending])

    def _read(self, name: str, kind: Any) -> Any:
        kept = self._notes.note(name)
        if kept is None:
            return []
        try:
            return decode(kept, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StoreError(
                f"the functions that the gateway was told of cannot be read: {error}",
                hint="a newer FleetFn wrote them: run that one, or have the functions deployed again",
            ) from error

    async def keep(self, functions: dict[str, GatewayFunction], endings: Iterable[Ending] | None = None) -> None:
        """These and no others from now on (None: endings as they are); durable, in one commit, when it returns.

        Raises StoreError; nothing has changed then.
        """
        left = self.endings if endings is None else list(endings)
        notes = {}
        if functions != self.functions:
            notes[_NOTE] = encode(list(functions.values()))
        if left != self.endings:
            notes[_ENDINGS] = encode(left)
        if notes:
            await self._notes.put((), notes=notes)
            self.functions, self.endings = functions, left


def encode(value: Any) -> bytes:
    """JSON, with paths as text."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(text: bytes, type: Any) -> Any:  # noqa: A002 - as msgspec has it
    """Raises msgspec.MsgspecError, UnicodeDecodeError."""
    return msgspec.json.decode(text, type=type, dec_hook=_path)


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise NotImplementedError(kind)
