"""One request carried on to a pod, and its answer back, both as they come. What was sent once is not sent to another.

Connections end with the answer: the client's next request then goes to the pods themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable

import h11
from fleetfn_plumbing.tls_http import notice_silence

from fleetfn_gateway.cluster.http_peer import EndedError, Peer

CONNECT = 2.0
"""Seconds to reach a pod."""

PAUSE = 30.0
"""Seconds without a byte of a request's body, and those that a client may read nothing of its answer."""

_HOP = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers about one connection, not about a message."""

_CLOSE = (b"connection", b"close")
_VIA = (b"via", b"1.1 fleetfn-gateway")
_CHUNKED = (b"transfer-encoding", b"chunked")


class NotReachedError(Exception):
    """Nothing was sent: another pod may be tried."""


class BrokenOffError(Exception):
    """The pod ended the connection before it had begun to answer; something of the request was sent."""


async def connect(address: str, port: int) -> socket.socket:
    """Raises NotReachedError."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        notice_silence(sock)
        async with asyncio.timeout(CONNECT):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except (OSError, TimeoutError) as error:
        sock.close()
        raise NotReachedError(str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


async def forward(client: Peer, request: h11.Request, sock: socket.socket) -> None:
    """`sock`: to the pod; it is closed. Raises BrokenOffError, EndedError (of the client)."""
    pod = Peer(sock, h11.CLIENT)
    sending: asyncio.Task[None] | None = None
    try:
        try:
            await pod.say(_carried(request), PAUSE)
        except EndedError as error:
            raise BrokenOffError(str(error)) from error
        sending = asyncio.create_task(_send_body(client, pod))
        response = await _response(pod, sending)
        await client.say(_answered(response), PAUSE)
        await _send_answer(pod, client)
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.wait({sending})
        pod.close()


async def _send_body(client: Peer, pod: Peer) -> None:
    """Raises EndedError (of the client). A pod that reads no more may have answered already."""
    if client.http.they_are_waiting_for_100_continue:
        await client.say(h11.InformationalResponse(status_code=100, headers=[]), PAUSE)
    while True:
        try:
            event = await client.event(PAUSE)
        except h11.RemoteProtocolError as error:
            raise EndedError(str(error)) from error
        if isinstance(event, h11.ConnectionClosed):
            raise EndedError("it left before its request was whole")
        try:
            if isinstance(event, h11.EndOfMessage):
                await pod.say(h11.EndOfMessage(), None)
                return
            await pod.say(event, None)
        except EndedError:
            return


async def _response(pod: Peer, sending: asyncio.Task[None]) -> h11.Response:
    """Its head. A client that leaves before it has sent all ends the wait."""
    answering = asyncio.create_task(_final(pod))
    try:
        await asyncio.wait({answering, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and sending.exception() is None:
            await asyncio.wait({answering})
        if answering.done():
            return answering.result()
        raise sending.exception() or AssertionError
    finally:
        answering.cancel()
        await asyncio.wait({answering})


async def _final(pod: Peer) -> h11.Response:
    try:
        while True:
            event = await pod.event(None)  # how long a handler may run, its worker knows
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.ConnectionClosed):
                raise BrokenOffError("it closed the connection")
    except (EndedError, h11.RemoteProtocolError) as error:
        raise BrokenOffError(str(error)) from error


async def _send_answer(pod: Peer, client: Peer) -> None:
    """A pod that ends early leaves the client with an answer that has no end."""
    with contextlib.suppress(h11.RemoteProtocolError):
        while True:
            event = await pod.event(None)
            if isinstance(event, h11.EndOfMessage):
                await client.say(h11.EndOfMessage(), PAUSE)
                return
            if isinstance(event, h11.ConnectionClosed):
                return
            await client.say(event, PAUSE)


def _carried(request: h11.Request) -> h11.Request:
    headers = _end_to_end(request.headers)
    if any(name == b"transfer-encoding" for name, _ in request.headers):
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append(_CHUNKED)
    return h11.Request(method=request.method, target=request.target, headers=[*headers, _VIA, _CLOSE])


def _answered(response: h11.Response) -> h11.Response:
    headers = [*_end_to_end(response.headers), _CLOSE]
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers)


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    headers = list(headers)
    named = {each.strip().lower() for name, value in headers if name == b"connection" for each in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _HOP and name not in named]
