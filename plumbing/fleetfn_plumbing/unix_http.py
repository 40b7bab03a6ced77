"""HTTP/1.1 on unix sockets of this machine, for processes that speak with each other often."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fleetfn_plumbing.http_client import HEAD_LIMIT, HttpClient, Streams, UnreachableError

CONNECT = 5.0
"""Seconds to reach a socket of this machine."""

KEEPS = 8
"""Connections for the next request: making one anew costs next to nothing."""


class UnixClient(HttpClient):
    """See HttpClient."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(str(path), keeps=KEEPS)

    async def connect(self) -> Streams:
        try:
            async with asyncio.timeout(CONNECT):
                return Streams(*await asyncio.open_unix_connection(self.place, limit=HEAD_LIMIT))
        except TimeoutError:
            raise UnreachableError(f"{self.place} took no connection within {CONNECT:g} s") from None
        except OSError as error:
            raise UnreachableError(f"nobody listens on {self.place}: {error.strerror or error}") from error
