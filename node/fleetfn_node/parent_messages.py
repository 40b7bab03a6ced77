"""What a node and a warm parent say to each other on their SEQPACKET socket pair: one message a packet, MessagePack."""

from __future__ import annotations

import array
import socket
from pathlib import Path
from typing import Any

import msgspec
from fleetfn_runtime.settings import Settings


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


class Fork(_Message, frozen=True):
    """+fd: the worker's end of its channel."""

    ticket: int
    settings: bytes


class Up(_Message, frozen=True):
    """It has imported what it is to share. `missing`: imports of the function that failed (its worker will say why)."""

    seconds: float
    missing: tuple[str, ...] = ()


class Forked(_Message, frozen=True):
    ticket: int
    pid: int


class CannotFork(_Message, frozen=True):
    """Forking this process would not be safe: the worker must be started on its own."""

    ticket: int
    reason: str


class Exited(_Message, frozen=True):
    """`status`: exit code, or minus the signal's number."""

    pid: int
    status: int


FromParent = Up | Forked | CannotFork | Exited

SETTINGS_LIMIT = 80 * 1024
"""Bytes of encoded settings; they travel in one packet."""


def pack(settings: Settings) -> bytes:
    return msgspec.msgpack.encode(settings, enc_hook=str)


def _path(kind: Any, value: Any) -> Any:
    return Path(value) if kind is Path else value


unpack = msgspec.msgpack.Decoder(Settings, dec_hook=_path).decode
"""Made with the module: reading the types of Settings takes 20 ms, which a warm parent spends before it forks."""


def order(spare: socket.socket, settings: bytes, channel: int) -> None:
    """Tell a process that stands by which worker to be. Raises OSError where it is gone."""
    socket.send_fds(spare, [settings], [channel])


def ordered(orders: socket.socket) -> tuple[bytes, int] | None:
    """What was told, and the worker's channel; None once nobody will tell anything."""
    packet, ancillary, _, _ = orders.recvmsg(SETTINGS_LIMIT, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    return (packet, descriptor(ancillary)) if packet else None


def descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """That which came with a packet."""
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return fds[0]
