"""The embedded MQTT broker: MQTT 3.1.1 and 5, QoS 0 to 2, sessions, retained messages, shared subscriptions.

In memory, without TLS, users or wills: for demo and development only. Our own, since no broker in Python speaks MQTT 5,
and the packets are there for the bridge anyway.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import cast

from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_packets import (
    PINGRESP,
    PUBACK,
    PUBREC,
    PUBREL,
    SUBACK,
    UNSUBACK,
    Ack,
    Answer,
    ConnAck,
    Connect,
    Decoder,
    Disconnect,
    MalformedError,
    Packet,
    Ping,
    Publish,
    Subscribe,
    Unsubscribe,
    Wish,
)
from fleetfn_triggers import mqtt_topics

from fleetfn_node.mqtt_sessions import LAST_ID, NEVER, Session, forwarded

log = logging.getLogger("fleetfn.mqtt")

PACKET_LIMIT = 16 * 1024 * 1024

_BUFFERED = 16 * 1024 * 1024
"""Bytes that wait for a slow client; beyond, it loses messages of QoS 0."""

_BAD_FILTER, _NO_CLIENT_ID, _TAKEN_OVER, _SHUTTING_DOWN = 0x8F, 0x85, 0x8E, 0x8B
_NO_SUBSCRIPTION = 0x11
_OLD_NO_CLIENT_ID, _OLD_FAILURE = 2, 0x80


class Broker:
    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._sessions: dict[str, Session] = {}
        self._clients: dict[str, _Client] = {}
        self._all: set[_Client] = set()
        self._retained: dict[str, Publish] = {}
        self._turns: dict[str, int] = {}
        """By shared subscription: whose turn it is."""
        self._names = itertools.count(1)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Its address, host:port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), host, port)
        host, port, *_ = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for client in list(self._all):
                client.end(_SHUTTING_DOWN)
            await self._server.wait_closed()

    def enter(self, client: _Client) -> None:
        self._all.add(client)

    def leave(self, client: _Client) -> None:
        self._all.discard(client)
        session = client.session
        if session is None or self._clients.get(session.client_id) is not client:
            return
        del self._clients[session.client_id]
        session.detach()
        if session.expiry == 0:
            self._forget(session)
        elif session.expiry < NEVER:
            session.expiring = asyncio.get_running_loop().call_later(session.expiry, self._forget, session)

    def connect(self, client: _Client, asked: Connect) -> None:
        new = asked.version == 5  # noqa: PLR2004 - MQTT 5
        name, properties = asked.client_id, {}
        if not name:
            if not new and not asked.clean:
                client.send(ConnAck(session_present=False, reason=_OLD_NO_CLIENT_ID))
                client.close()
                return
            name = f"client-{next(self._names)}"
            properties = {mqtt_packets.ASSIGNED_CLIENT_ID: name}
        if (before := self._clients.pop(name, None)) is not None:
            before.end(_TAKEN_OVER)
        session = self._sessions.get(name)
        if session is not None and session.expiring is not None:
            session.expiring.cancel()
            session.expiring = None
        present = session is not None and not asked.clean
        if session is None or not present:
            if session is not None:
                self._forget(session)
            session = self._sessions[name] = Session(name)
        if new:
            session.expiry = int(asked.properties.get(mqtt_packets.SESSION_EXPIRY, 0))
        else:
            session.expiry = 0 if asked.clean else NEVER
        client.session = session
        self._clients[name] = client
        client.send(ConnAck(present, 0, {**properties, mqtt_packets.MAXIMUM_PACKET_SIZE: PACKET_LIMIT}))
        session.attach(client.send, int(asked.properties.get(mqtt_packets.RECEIVE_MAXIMUM, LAST_ID)))

    def publish(self, message: Publish) -> None:
        if message.retain:
            if message.payload:
                self._retained[message.topic] = message
            else:
                self._retained.pop(message.topic, None)
        shared: dict[str, list[tuple[Session, Wish]]] = {}
        for session in list(self._sessions.values()):
            best: Wish | None = None
            for name, wish in session.wishes.items():
                group, filter_ = _unshared(name)
                if not mqtt_topics.matches(filter_, message.topic):
                    continue
                if group:
                    shared.setdefault(name, []).append((session, wish))
                elif best is None or wish.qos > best.qos:
                    best = wish
            if best is not None:
                session.deliver(forwarded(message, best))
        for name, members in shared.items():
            there = [each for each in members if each[0].connected] or members
            turn = self._turns[name] = self._turns.get(name, -1) + 1
            session, wish = there[turn % len(there)]
            session.deliver(forwarded(message, wish))

    def subscribe(self, session: Session, asked: Subscribe, *, old: bool) -> tuple[Answer, Iterator[Publish]]:
        """The answer, and retained messages to send after it."""
        reasons, kept = [], []
        for wish in asked.wishes:
            group, filter_ = _unshared(wish.filter)
            if next(mqtt_topics.problems(filter_), None) or "{" in filter_:
                reasons.append(_OLD_FAILURE if old else _BAD_FILTER)
                continue
            reasons.append(wish.qos)
            fresh = wish.filter not in session.wishes
            session.wishes[wish.filter] = wish
            if not group and (wish.retain_handling == 0 or (wish.retain_handling == 1 and fresh)):
                kept += [
                    forwarded(message, wish, retained=True)
                    for topic, message in self._retained.items()
                    if mqtt_topics.matches(filter_, topic)
                ]
        return Answer(SUBACK, asked.packet_id, tuple(reasons)), iter(kept)

    def _forget(self, session: Session) -> None:
        if self._sessions.get(session.client_id) is session:
            del self._sessions[session.client_id]
        if session.dropped:
            log.warning("%s: %d messages were dropped, since too many waited", session.client_id, session.dropped)


def _unshared(name: str) -> tuple[str, str]:
    """Group ('' for none) and filter."""
    if not name.startswith("$share/"):
        return "", name
    _, group, filter_ = name.split("/", 2)
    return group, filter_


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, broker: Broker) -> None:
        self.session: Session | None = None
        self._broker = broker
        self._decoder = Decoder(limit=PACKET_LIMIT)
        self._transport: asyncio.Transport | None = None

    def send(self, packet: Packet) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        slow = self._transport.get_write_buffer_size() > _BUFFERED
        if slow and isinstance(packet, Publish) and packet.qos == 0:
            return
        self._transport.write(mqtt_packets.encode(packet, self._decoder.version))

    def end(self, reason: int) -> None:
        """Throw the client out; its session stays as it is."""
        if self.session is not None:
            self.session.detach()
        if self._decoder.version == 5:  # noqa: PLR2004 - 3.1.1 brokers just close
            self.send(Disconnect(reason))
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._broker.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        self._broker.leave(self)

    def data_received(self, data: bytes) -> None:
        try:
            for packet in self._decoder.feed(data):
                self._take(packet)
        except (MalformedError, ValueError) as exc:
            log.warning("a client is thrown out: %s", exc)
            self.close()

    def _take(self, packet: Packet) -> None:
        session = self.session
        if session is None:
            if not isinstance(packet, Connect):
                raise MalformedError(f"{type(packet).__name__} before CONNECT")
            self._broker.connect(self, packet)
            return
        match packet:
            case Publish():
                self._publish(session, packet)
            case Ack(kind=kind) if kind == PUBREL:
                self.send(session.released(packet))
            case Ack():
                session.acknowledged(packet)
            case Ping():
                self.send(Ping(PINGRESP))
            case Subscribe():
                self._subscribe(session, packet)
            case Unsubscribe():
                gone = [session.wishes.pop(each, None) for each in packet.filters]
                reasons = tuple(0 if each is not None else _NO_SUBSCRIPTION for each in gone)
                self.send(Answer(UNSUBACK, packet.packet_id, reasons))
            case Disconnect():
                session.expiry = int(packet.properties.get(mqtt_packets.SESSION_EXPIRY, session.expiry))
                self.close()
            case _:
                raise MalformedError(f"{type(packet).__name__} from a client")

    def _subscribe(self, session: Session, asked: Subscribe) -> None:
        answer, kept = self._broker.subscribe(session, asked, old=self._decoder.version == 4)  # noqa: PLR2004 - 3.1.1
        self.send(answer)
        for message in kept:
            session.deliver(message)

    def _publish(self, session: Session, message: Publish) -> None:
        if message.oversize or "+" in message.topic or "#" in message.topic or not message.topic:
            raise MalformedError(f"a message to {message.topic!r:.80} of {message.oversize} bytes")
        if message.qos == 2:  # noqa: PLR2004 - QoS
            if message.packet_id not in session.received:
                session.received.add(message.packet_id)
                self._broker.publish(message)
            self.send(Ack(PUBREC, message.packet_id))
            return
        self._broker.publish(message)
        if message.qos == 1:
            self.send(Ack(PUBACK, message.packet_id))
