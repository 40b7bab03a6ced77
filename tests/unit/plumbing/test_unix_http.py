"""The client on unix sockets: which connections it keeps, and that nothing is asked twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetfn_plumbing.http_client import NotAskedError, UnreachableError
from fleetfn_plumbing.unix_http import UnixClient

FINE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers FINE to each request, as long as it is `well`; else it reads the request and ends the connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.well = True
        self.connections = 0
        self.asked = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()
            await writer.wait_closed()
        self._writers.clear()

    async def close(self) -> None:
        await self.hang_up()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                if not self.well:
                    break
                writer.write(FINE)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "s")
    await server.open()
    yield server
    await server.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[UnixClient]:
    client = UnixClient(server.path)
    yield client
    await client.close()


async def test_a_connection_is_kept_for_the_next_request(server: Server, client: UnixClient) -> None:
    replies = [await client.request("GET", "/") for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"ok")] * 3
    assert server.connections == 1


async def test_a_kept_connection_that_was_ended_is_not_used(server: Server, client: UnixClient) -> None:
    await client.request("GET", "/")
    await server.hang_up()
    other = UnixClient(server.path)
    await other.request("GET", "/")  # meanwhile the end has come
    assert (await client.request("GET", "/")).status == 200
    assert (server.connections, server.asked) == (3, 3)
    await other.close()


async def test_what_may_have_been_done_is_not_asked_again(server: Server, client: UnixClient) -> None:
    """The connection is a kept one, which ends without an answer: that tells nothing of what was done."""
    await client.request("POST", "/v1/put")
    server.well = False
    with pytest.raises(UnreachableError, match="ended early"):
        await client.request("POST", "/v1/put")
    assert server.asked == 2


async def test_a_connection_whose_answer_comes_after_the_closing_is_not_kept(
    server: Server, client: UnixClient
) -> None:
    async with client.stream("GET", "/") as answer:
        await client.close()
        assert b"".join([chunk async for chunk in answer.chunks]) == b"ok"
    await client.request("GET", "/")
    assert server.connections == 2


async def test_nobody_on_the_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotAskedError, match=f"nobody listens on {tmp_path / 'none'}"):
        await UnixClient(tmp_path / "none").request("GET", "/")
