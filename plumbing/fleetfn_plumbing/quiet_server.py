"""uvicorn that sleeps while nobody asks: its own loop wakes ten times a second to look whether it is to end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import uvicorn


class QuietServer(uvicorn.Server):
    """For a configuration without a date header, which that loop keeps. Signals are the process'."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def leave(self) -> None:
        """Take nothing more; `serve` returns when what runs is answered."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        if not await self.on_tick(0):
            await self._told.wait()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
