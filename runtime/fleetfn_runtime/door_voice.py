"""What a worker that runs by itself says, as its door shows it: its steps, that it is ready, that it leaves."""

from __future__ import annotations

from typing import TextIO

from fleetfn_runtime import lone_door
from fleetfn_runtime.channel import Leaving, Ready, Step, ToNode
from fleetfn_runtime.lone_door import Door
from fleetfn_runtime.voices import Ears, LoneVoice


class DoorVoice(LoneVoice):
    def __init__(self, terminal: TextIO, door: Door, *, echo: bool) -> None:
        super().__init__(terminal, echo=echo)
        self.hand_back = door.take_back
        self._door = door
        self._ears: Ears | None = None

    async def listen(self, ears: Ears) -> None:
        self._ears = ears
        self._door.hand_over = ears.adopt
        await super().listen(ears)

    def say(self, message: ToNode) -> None:
        match message:
            case Step(text):
                self._door.step = text
            case Ready():
                self._door.state = lone_door.READY
                self._ready()
            case Leaving(reason):
                self._leave()
                if self._ears is not None:
                    self._ears.drain(reason)  # nobody is waited for, and nothing more is handed over
        super().say(message)

    def _ready(self) -> None:
        """What else there is to do once requests are taken."""

    def _leave(self) -> None:
        self._door.state = lone_door.DRAINING
