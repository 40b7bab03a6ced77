"""Processes that end when their standard input does: with whoever started them, or when told so here."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process


async def end(process: Process, limit: float) -> bool:
    """Close its standard input and wait. False: it did not end within `limit` seconds and was killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), limit)
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return True
