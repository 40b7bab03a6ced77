"""Whom a worker talks to: its node over the channel, or, where it runs by itself, whoever reads its log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, TextIO

from fleetfn_runtime.channel import (
    Connection,
    Drain,
    Failed,
    HandBack,
    Inherit,
    Pause,
    Ready,
    Report,
    Resume,
    Serve,
    Share,
    Step,
    ToNode,
    ToWorker,
)
from fleetfn_runtime.channel_io import Channel

log = logging.getLogger("fleetfn.worker")


class Ears(Protocol):
    """What a worker does when it is told something."""

    def serve(self) -> None: ...

    def share(self, slots: tuple[int, ...]) -> None: ...

    def inherit(self, slot: int) -> None: ...

    def adopt(self, fd: int, head: bytes) -> None: ...

    def drain(self, reason: str) -> None: ...

    def pause(self, triggers: tuple[str, ...]) -> None: ...

    def resume(self, triggers: tuple[str, ...]) -> None: ...

    def report(self) -> None: ...


class Voice(Protocol):
    hand_back: Callable[[int, bytes], None] | None
    """Gives a connection to the node, with what was read of it: the descriptor is the voice's then. Raises BufferError
    when the node does not keep up. None: there is no node.
    """

    def say(self, message: ToNode) -> None:
        """Never blocks."""
        ...

    async def listen(self, ears: Ears) -> None:
        """Until nobody speaks any more."""
        ...

    async def close(self) -> None:
        """Returns when all that was said is on its way."""
        ...


class NodeVoice:
    hand_back: Callable[[int, bytes], None] | None

    def __init__(self, channel: Channel[ToWorker, ToNode]) -> None:
        self._channel = channel
        self.hand_back = lambda fd, head: channel.send(HandBack(head), fd)

    def say(self, message: ToNode) -> None:
        try:
            self._channel.send(message)
        except BufferError:  # the node is stuck: it will find out by itself what it did not hear
            log.warning("the node does not read: %s is not told", type(message).__name__)

    async def listen(self, ears: Ears) -> None:
        while (received := await self._channel.receive()) is not None:
            match received:
                case Connection(head), int(fd):
                    ears.adopt(fd, head)
                case message, _:
                    pass_on(message, ears)
        ears.drain("its node is gone")

    async def close(self) -> None:
        await self._channel.flush()
        self._channel.close()


def pass_on(message: ToWorker, ears: Ears) -> None:
    match message:
        case Serve():
            ears.serve()
        case Share(slots):
            ears.share(slots)
        case Inherit(slot):
            ears.inherit(slot)
        case Drain(reason):
            ears.drain(reason)
        case Pause(triggers):
            ears.pause(triggers)
        case Resume(triggers):
            ears.resume(triggers)
        case Report():
            ears.report()


class LoneVoice:
    """Tells people, on `terminal`. What is logged goes there, too, in a form for them."""

    hand_back: Callable[[int, bytes], None] | None = None

    def __init__(self, terminal: TextIO, *, echo: bool = True) -> None:
        """`echo`: False where the log comes to the terminal by itself."""
        self._terminal = terminal
        self._echoes = not echo

    def say(self, message: ToNode) -> None:
        match message:
            case Failed(text, hint, place):
                self._tell(f"Error: {place}: {text}" if place else f"Error: {text}")
                if hint:
                    self._tell(f"\nHint: {hint}")
            case Step(text):
                self._echo_log()
                self._tell(text)
            case Ready():
                self._tell("ready")
            case _:
                pass

    async def listen(self, ears: Ears) -> None:
        ears.serve()

    async def close(self) -> None: ...

    def _tell(self, text: str) -> None:
        print(text, file=self._terminal)

    def _echo_log(self) -> None:
        if self._echoes:
            return
        self._echoes = True
        handler = logging.StreamHandler(self._terminal)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
