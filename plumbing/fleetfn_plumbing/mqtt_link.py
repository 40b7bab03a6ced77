"""One connection to an MQTT broker: from the handshake to its end. What is sent and what comes is for its user."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast

from fleetfn_plumbing import mqtt_access, mqtt_packets
from fleetfn_plumbing.mqtt_access import Access, MqttError
from fleetfn_plumbing.mqtt_packets import (
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    MalformedError,
    Packet,
    Ping,
    Properties,
)

TIMEOUT = 10.0
"""Seconds until a broker must have let us in."""

_WRITE_LIMIT = 1024 * 1024
"""Bytes that wait to be sent before `drained` waits."""

Received = Callable[[list[Packet]], None]


_SILENT = 0.45
"""Part of the keep-alive after which silence is broken: less than half, since looks are not half of it apart to the
microsecond, and a look missed would be all of it.
"""


class Link(asyncio.Protocol):
    """Made by `connect`. Packets that are about the connection itself (pings, DISCONNECT) it handles by itself."""

    def __init__(self, access: Access, limit: int) -> None:
        self.accepted: ConnAck = ConnAck(session_present=False, reason=0)
        self.ended: asyncio.Future[MqttError] = asyncio.get_running_loop().create_future()
        """Why the connection has ended; its result is set once, by whichever side."""
        self._access = access
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(access.version, limit)
        self._transport: asyncio.Transport | None = None
        self._connack: asyncio.Future[ConnAck] = self._loop.create_future()
        self._receive: Received | None = None
        self._early: list[Packet] = []
        self._pings: deque[Callable[[], None] | None] = deque()
        self._keepalive = access.keepalive
        self._heard = self._sent = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def version(self) -> mqtt_packets.Version:
        return self._access.version

    @property
    def properties(self) -> Properties:
        """What the broker said of itself when it let us in."""
        return self.accepted.properties

    def listen(self, receive: Received) -> None:
        """From now on packets go to `receive`, those first that have come already."""
        self._receive = receive
        early, self._early = self._early, []
        if early:
            receive(early)

    def send(self, packet: Packet) -> None:
        self.write(mqtt_packets.encode(packet, self.version))

    def write(self, data: bytes) -> None:
        """Bytes of whole packets. Nothing happens where the connection has ended."""
        if self._transport is not None and not self._transport.is_closing():
            self._sent = self._loop.time()
            self._transport.write(data)

    def ping(self, answered: Callable[[], None] | None = None) -> None:
        """`answered` is called when the broker has read all that was sent before."""
        self._pings.append(answered)
        self.write(mqtt_packets.PINGREQ_BYTES)

    async def drained(self) -> None:
        """Wait while too much waits to be sent."""
        await self._writable.wait()

    def pause(self) -> None:
        """Read nothing more from the socket: the broker holds back what comes."""
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._heard = self._loop.time()
            self._transport.resume_reading()
        self._paused = False

    async def close(self, properties: Properties | None = None, limit: float = 2.0) -> None:
        """Say goodbye; returns when the connection has ended."""
        if not self.ended.done():
            self.resume()
            self.send(Disconnect(0, properties or {}))
            self._end(MqttError("closed by us"))
        if self._transport is not None:
            self._transport.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._gone), limit)
            self._transport.abort()

    def abort(self, why: str = "closed by us") -> None:
        self._end(MqttError(why))
        if self._transport is not None:
            self._transport.abort()

    async def shake_hands(self, connect: Connect) -> None:
        """Raises MqttError."""
        self.send(connect)
        await asyncio.wait((self._connack, self.ended), return_when=asyncio.FIRST_COMPLETED)
        if not self._connack.done():
            wants = "a client's certificate" if self._access.tls else "TLS (mqtts://)"
            hint = f"is the port right, and does it want {wants}?"
            raise MqttError(self.ended.result().message, hint=hint)
        self.accepted = self._connack.result()
        code = mqtt_access.connack_code(self.accepted.reason, self.version)
        if code:
            said = mqtt_access.reason(code, self.properties.get(mqtt_packets.REASON_STRING))
            raise MqttError(f"refuses us: {said}", hint=mqtt_access.hint(code), code=code)
        self._keepalive = self.properties.get(mqtt_packets.SERVER_KEEP_ALIVE, self._keepalive)
        if self._keepalive:
            self._tick_later()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_LIMIT)
        self._gone: asyncio.Future[None] = self._loop.create_future()

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        if self.ended.done():
            return
        try:
            packets = self._decoder.feed(data)
        except MalformedError as exc:
            self.abort(exc.message)
            return
        if packets and not self._connack.done():
            packets = self._first(packets)
        if packets:
            self._hand_over(packets)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(MqttError(_lost(exc)))
        if not self._gone.done():
            self._gone.set_result(None)

    def _first(self, packets: list[Packet]) -> list[Packet]:
        first = packets[0]
        if isinstance(first, ConnAck):
            self._connack.set_result(first)
            return packets[1:]
        self.abort(f"it answered CONNECT by {type(first).__name__}")
        return []

    def _hand_over(self, packets: list[Packet]) -> None:
        """Pings and a DISCONNECT among them are the link's own; order is kept."""
        passed: list[Packet] = []
        for packet in packets:
            kind = type(packet)
            if kind is Ping:
                if passed:
                    self._pass(passed)
                    passed = []
                answered = self._pings.popleft() if self._pings else None
                if answered is not None:
                    answered()
            elif kind is Disconnect:
                self._pass(passed)
                self._told_to_go(cast("Disconnect", packet))
                return
            else:
                passed.append(packet)
        if passed:
            self._pass(passed)

    def _pass(self, packets: list[Packet]) -> None:
        if self._receive is None:
            self._early += packets
        elif packets:
            self._receive(packets)

    def _told_to_go(self, packet: Disconnect) -> None:
        said = mqtt_access.reason(packet.reason, packet.properties.get(mqtt_packets.REASON_STRING))
        self._end(MqttError(f"ends the connection: {said}", hint=mqtt_access.hint(packet.reason), code=packet.reason))
        if self._transport is not None:
            self._transport.close()

    def _end(self, why: MqttError) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writable.set()
        if not self.ended.done():
            self.ended.set_result(why)

    def _tick(self) -> None:
        """Half the keep-alive has passed, or less for the first time."""
        now = self._loop.time()
        if not self._paused and now - self._heard > self._keepalive * 1.5:
            self.abort(f"it has been silent for {now - self._heard:.0f} s")
            return
        if self._paused:
            # What it answers is not read now, and is not waited for; it must hear of us all the same.
            self.ping()
        elif now - min(self._sent, self._heard) >= self._keepalive * _SILENT:
            self.ping()
        self._tick_later()

    def _tick_later(self) -> None:
        """Links with the same keep-alive look up together: one wake of the process for all of them, not one each."""
        half = self._keepalive / 2
        self._timer = self._loop.call_at((self._loop.time() // half + 1) * half, self._tick)


def _lost(exc: Exception | None) -> str:
    if exc is None:
        return "closed the connection"
    if isinstance(exc, ssl.SSLError):
        return f"ended TLS: {_tls_reason(exc)}"
    return f"breaks the connection: {getattr(exc, 'strerror', None) or exc}"


def _tls_reason(exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {exc.verify_message}"
    return (exc.reason or str(exc)).lower().replace("_", " ")


async def connect(
    access: Access,
    client_id: str,
    *,
    clean: bool = True,
    properties: Properties | None = None,
    limit: int = 16 * 1024 * 1024,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - of several steps, told in words
) -> Link:
    """A link that the broker has accepted. `limit`: bytes of a packet that is read whole. Raises MqttError."""
    link = Link(access, limit)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout):
            await loop.create_connection(
                lambda: link,
                access.host,
                access.port,
                ssl=access.tls,
                server_hostname=access.host if access.tls else None,
            )
            await link.shake_hands(
                Connect(
                    version=access.version,
                    client_id=client_id,
                    clean=clean,
                    keepalive=access.keepalive,
                    username=access.username,
                    password=access.password,
                    properties=(properties or {}) if access.version == 5 else {},  # noqa: PLR2004 - MQTT 5
                )
            )
    except TimeoutError:
        link.abort()
        raise MqttError(
            f"MQTT broker {access.where} does not answer within {timeout:g} s",
            hint="check the address in environments.yaml, and that the broker runs",
        ) from None
    except MqttError as exc:
        link.abort()
        raise MqttError(f"MQTT broker {access.where} {exc.message}", hint=exc.hint, code=exc.code) from exc
    except OSError as exc:
        link.abort()
        raise _unreachable(access, exc) from exc
    except BaseException:
        link.abort()
        raise
    return link


def _unreachable(access: Access, exc: OSError) -> MqttError:
    if isinstance(exc, ssl.SSLError) or (access.tls is not None and isinstance(exc, ConnectionResetError)):
        why = _tls_reason(exc) if isinstance(exc, ssl.SSLError) else "it ends the connection"
        return MqttError(
            f"MQTT broker {access.where}: no TLS with it: {why}",
            hint="check tls of the connection in environments.yaml, and that this port speaks TLS",
        )
    why = "connection refused" if isinstance(exc, ConnectionRefusedError) else exc.strerror or str(exc)
    return MqttError(
        f"MQTT broker {access.where} cannot be reached: {why}",
        hint="check the address in environments.yaml, and that the broker runs",
    )
