"""Connections between pods: who may speak with whom, and certificates that are renewed while both sides run."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from certificates import Authority
from fleetfn.errors import UsageError
from fleetfn_plumbing import http_places, tls
from fleetfn_plumbing.http_client import HttpClient, UnreachableError
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.tls_http import TlsClient
from fleetfn_plumbing.unix_http import UnixClient
from http_doubles import descriptors
from kafka_doubles import until

Client = Callable[..., TlsClient]


class Server:
    """Answers each request with the common name of who asks."""

    def __init__(self, folder: Path) -> None:
        self.connections = 0
        self._context = TlsFolder(folder).server()
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                name = tls.peer_name(writer.get_extra_info("ssl_object")).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(name), name))
        writer.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def server(authority: Authority, tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(authority.issue(tmp_path / "server", "server", "localhost"))
    server.port = await server.open()  # type: ignore[attr-defined]
    yield server
    await server.close()


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[Client]:
    made: list[HttpClient] = []

    def client(folder: Path, *, host: str = "127.0.0.1", name: str | None = "server") -> TlsClient:
        made.append(TlsClient(host, server.port, TlsFolder(folder), name=name))  # type: ignore[attr-defined]
        found = made[-1]
        assert isinstance(found, TlsClient)
        return found

    yield client
    for each in made:
        await each.close()


async def asked(client: HttpClient) -> str:
    return (await client.request("GET", "/", limit=60)).body.decode()


async def test_both_sides_know_each_other_and_keep_their_connection(
    authority: Authority, server: Server, clients: Client, tmp_path: Path
) -> None:
    client = clients(authority.issue(tmp_path / "c", "battery-alert"))
    assert [await asked(client) for _ in range(3)] == ["battery-alert"] * 3
    assert server.connections == 1


async def test_a_server_is_known_by_its_host_where_no_name_is_told(
    authority: Authority, clients: Client, tmp_path: Path
) -> None:
    folder = authority.issue(tmp_path / "c", "battery-alert")
    assert await asked(clients(folder, host="localhost", name=None)) == "battery-alert"
    with pytest.raises(UnreachableError, match="is not trusted: IP address mismatch"):
        await asked(clients(folder, name=None))


async def test_a_server_of_another_name_is_refused(authority: Authority, clients: Client, tmp_path: Path) -> None:
    client = clients(authority.issue(tmp_path / "c", "battery-alert"), name="other")
    with pytest.raises(UnreachableError, match="is 'server', not 'other'"):
        await asked(client)


async def test_another_authority_is_refused_by_either_side(
    authority: Authority, clients: Client, tmp_path: Path
) -> None:
    other = Authority("other")
    with pytest.raises(UnreachableError, match=r"is not trusted: .*certificate"):
        await asked(clients(other.issue(tmp_path / "a", "battery-alert")))
    with pytest.raises(UnreachableError):
        await asked(clients(other.issue(tmp_path / "b", "battery-alert", trusted=authority)))


async def test_who_gives_up_at_any_moment_breaks_no_later_connection(
    authority: Authority, clients: Client, tmp_path: Path
) -> None:
    folder = authority.issue(tmp_path / "c", "battery-alert")
    before = descriptors()
    for turns in range(60):
        hasty, next_ = clients(folder), clients(folder)
        asking = asyncio.create_task(asked(hasty))
        for _ in range(turns):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        assert await asked(next_) == "battery-alert"
        await hasty.close()
        await next_.close()
    await until(lambda: descriptors() <= before)


async def test_who_shows_no_certificate_is_refused(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)  # type: ignore[attr-defined]
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ssl.SSLError):
        assert await reader.read() == b""
    writer.close()
    assert server.connections == 0


async def test_renewed_certificates_and_authorities_hold_for_new_connections(
    authority: Authority, server: Server, clients: Client, tmp_path: Path
) -> None:
    folder = authority.issue(tmp_path / "c", "old")
    client = clients(folder)
    assert await asked(client) == "old"
    other = Authority("other")
    other.issue(folder, "new")
    assert await asked(client) == "old"  # a connection that is kept
    await client.close()
    with pytest.raises(UnreachableError, match="is not trusted"):
        await asked(client)
    other.issue(tmp_path / "server", "server", "localhost")
    assert await asked(client) == "new"
    with pytest.raises(UnreachableError):
        await asked(clients(authority.issue(tmp_path / "left", "left", trusted=other)))


async def test_a_renewal_that_went_wrong_leaves_what_was(
    authority: Authority, clients: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = authority.issue(tmp_path / "c", "battery-alert")
    client = clients(folder)
    assert await asked(client) == "battery-alert"
    (folder / "..data" / "tls.key").write_text("nonsense")
    await client.close()
    for _ in range(2):
        assert await asked(client) == "battery-alert"
        await client.close()
    assert len(caplog.messages) == 1
    assert "those from before are used on" in caplog.text


async def test_certificates_that_are_missing_are_named(clients: Client, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be used: No such file"):
        TlsFolder(tmp_path / "nowhere").server()
    with pytest.raises(UnreachableError, match="cannot be used: No such file"):
        await asked(clients(tmp_path / "nowhere"))


@pytest.mark.parametrize("place", ["https://host", "https://:1", "https://host:x", "https://host:1/path"])
def test_a_place_that_is_no_address_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no address"):
        http_places.client(place, TlsFolder(tmp_path))


def test_a_place_is_a_path_or_an_address(tmp_path: Path) -> None:
    assert isinstance(http_places.client(tmp_path / "s"), UnixClient)
    assert http_places.client("https://[fd00::1]:8443", TlsFolder(tmp_path)).place == "https://[fd00::1]:8443"
    with pytest.raises(UsageError, match="none are named"):
        http_places.client("https://host:1")
