"""The Feed of an mqtt trigger: a persistent session at the broker, which holds messages while we are away.

Client id and session are the trigger's own, so that what comes while its function sleeps, the gateway is down or the
network is gone waits at the broker, for as long as the session is kept (`EXPIRY`, unless the broker keeps it shorter).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import cast

from fleetfn.errors import FleetError
from fleetfn_plumbing import mqtt_access, mqtt_link, mqtt_packets
from fleetfn_plumbing.mqtt_access import MqttError
from fleetfn_plumbing.mqtt_link import Link
from fleetfn_plumbing.mqtt_packets import SUBACK, Publish, Subscribe, Unsubscribe, Wish
from fleetfn_spec import secrets
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers import mqtt_topics
from fleetfn_triggers.delivery import Source
from fleetfn_triggers.inbox import Arrival, Inbox
from fleetfn_triggers.mqtt import Mqtt
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.trigger import Reading

from fleetfn_gateway import mqtt_names, mqtt_note
from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.mqtt_room import Room
from fleetfn_gateway.mqtt_session import AbandonedError, Journal, Session
from fleetfn_gateway.notes import Notes

log = logging.getLogger("fleetfn.mqtt")

KIND = "mqtt"
"""The connection of a trigger that names none."""

EXPIRY = 7 * 24 * 3600
"""Seconds that the broker is asked to keep a session whose client is away (MQTT 5). For ever would leave the sessions
of gateways that are gone at the broker, with all that they gather.
"""

PACKET_LIMIT = 16 * 1024 * 1024
"""Bytes of the largest message that is taken. MQTT 5 brokers are told and send no larger one; of one that comes with
3.1.1 the head becomes a dead letter.
"""

FIRST, LONGEST = 0.2, 15.0
"""Seconds between tries to connect."""

CONTESTED_FIRST, CONTESTED_LONGEST = 5.0, 60.0
"""The same while another client takes our session: each of our returns throws it out."""

STABLE = 10.0
"""Seconds that a connection must have stood for its end to say nothing about the next one."""

START = 5.0
"""Seconds that `start` waits for a subscription that is new to stand, so that what is sent after a deploy is not
missed. A broker that says anything is not waited for so long, but a machine that is busy is.
"""

KNOWN = 1.0
"""The same for one that its broker should have: it may have forgotten it, as the embedded one does when it ends."""

SUSPICIOUS = 3
"""So many connections that were closed without a reason, each soon after the other, look like another client's taking
our session: 3.1.1 brokers give none, nor does Mosquitto 2.0.
"""

UNCONTESTED = 2 * CONTESTED_LONGEST
"""Seconds that a connection must have stood for nobody else to want its session."""

ANSWER = 10.0
"""Seconds until a broker must have answered SUBSCRIBE."""

FORGET = 5.0
"""Seconds that ending a session may take."""

_NEW, _NEVER, _ALWAYS = 1, 2, 0
_RETAINED = {"new": _NEW, "ignore": _NEVER, "always": _ALWAYS}
_FAILURE = 0x80


class MqttBridge:
    """See the port, `fleetfn_gateway.feed.Feed`."""

    def __init__(
        self,
        function: GatewayFunction,
        trigger: Trigger,
        inbox: Inbox,  # noqa: ARG002 - notes.put is the inbox' own
        notes: Notes,
        room: Room | None = None,
    ) -> None:
        """`room`: what it shares with other bridges. Raises FleetError."""
        self._room = room or Room()
        self._connection = _connection(function, trigger)
        self._spec = cast("Mqtt", trigger.mqtt)
        self._filter = mqtt_topics.topic_filter(self._spec.topic, self._spec.share)
        self._function, self._trigger = function.name, trigger.name
        self._base = function.source
        self._client_id = mqtt_names.client_id(function.environment, function.place, function.name, trigger.name)
        self._notes = notes
        self._journal = Journal(notes, mqtt_note.name(function.name, trigger.name))
        if self._journal.note.client_id == (short := mqtt_names.short(self._client_id)):
            self._client_id = short  # its broker took no other
        reading = Reading(trigger.name, function.name, trigger.key_expression, trigger.event)
        self._read = trigger.kind.reader(self._spec, reading)
        self._raw = trigger.decode is not None
        self._where = mqtt_access.where(*mqtt_access.address(self._connection))
        self._problem = self._since = self._lowered = ""
        self._contested_at: float | None = None
        self._fresh_subscription = self._forget = False
        self._stood = False
        """The last connection had its subscription."""
        self._certain = False
        self._unexplained = 0
        """Ends of connections that were fine, without a reason."""
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(FIRST, LONGEST)
        self._contested = Backoff(CONTESTED_FIRST, CONTESTED_LONGEST)

    @property
    def problem(self) -> str:
        return self._journal.problem or self._problem or self._contest() or self._lowered

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"mqtt {self._function}/{self._trigger}")
        note = self._journal.note
        known = note.broker == self._where and note.filters[:1] == [self._filter]
        try:
            await asyncio.wait_for(self._tried.wait(), KNOWN if known else START)
        except TimeoutError:
            if not known and not self._tried.is_set():
                self._say(f"MQTT broker {self._where} has not let us subscribe within {START:g} s")

    async def close(self, *, forget: bool = False) -> None:
        self._forget = forget
        self._journal.closing.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        if forget:
            if self._journal.note.broker:
                await self._end_session()  # raises before the note goes that tells of the session
            await self._notes.forget(mqtt_note.prefix(self._function, self._trigger))

    # Connecting

    async def _run(self) -> None:
        while not self._journal.closing.is_set():
            began = time.monotonic()
            try:
                await self._once()
                wait = 0.0
            except AbandonedError as exc:
                log.warning("%s/%s: %s", self._function, self._trigger, exc.message)
                return
            except FleetError as exc:
                if self._journal.closing.is_set():
                    return
                wait = self._failed(exc, lived=time.monotonic() - began)
            except Exception:
                log.exception("%s/%s: the bridge failed, and begins anew", self._function, self._trigger)
                self._problem = "the bridge failed: see the gateway's log"
                wait = self._backoff.failed()
            finally:
                self._tried.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._journal.closing.wait(), wait)

    def _failed(self, exc: FleetError, *, lived: float) -> float:
        """Seconds to wait; says what is wrong."""
        code = exc.code if isinstance(exc, MqttError) else None
        if lived >= STABLE:
            self._backoff.reset()
        if lived >= UNCONTESTED:
            self._unexplained = 0
            self._contested.reset()
        self._unexplained += self._stood and code is None
        if code == mqtt_access.TAKEN_OVER or self._unexplained > SUSPICIOUS:
            self._contested_at = time.monotonic()
            self._certain = code == mqtt_access.TAKEN_OVER
            self._say(self._contest())
            return self._contested.failed()
        if code == mqtt_access.CLIENT_ID_REFUSED and len(self._client_id) > mqtt_names.SHORT:
            self._client_id = mqtt_names.short(self._client_id)
        self._say(exc.message + (f"; {exc.hint}" if exc.hint else ""))
        return self._backoff.failed()

    def _contest(self) -> str:
        """What is said of another client that takes our session, for a while after it did so last."""
        if self._contested_at is None or time.monotonic() - self._contested_at > UNCONTESTED:
            return ""
        said = "another client takes our session over" if self._certain else "the connection is closed again and again"
        return (
            f"MQTT broker {self._where}: {said}: is a copy of this node's data folder in use elsewhere? "
            f"Both have the client id {self._client_id!r}"
        )

    def _say(self, problem: str) -> None:
        if not self._problem:
            log.warning("%s/%s: %s", self._function, self._trigger, problem)
            self._since = time.strftime("%H:%M:%S", time.gmtime())
        self._problem = f"{problem} (since {self._since} UTC)"

    async def _once(self) -> None:
        """One connection, from its beginning to its end. Raises FleetError: why it ended."""
        self._stood = False
        if self._journal.doubtful:
            self._journal.recall()
        access = mqtt_access.access(self._connection, self._resolve, self._base)
        link = await mqtt_link.connect(
            access,
            self._client_id,
            clean=False,
            properties={
                mqtt_packets.SESSION_EXPIRY: EXPIRY,
                mqtt_packets.RECEIVE_MAXIMUM: self._spec.inflight,
                mqtt_packets.MAXIMUM_PACKET_SIZE: PACKET_LIMIT,
            },
            limit=PACKET_LIMIT,
        )
        session = Session(link, self._journal, self._arrival, inflight=self._spec.inflight, room=self._room)
        running: asyncio.Task[None] | None = None
        try:
            others = self._resume(link)
            # Noted first: should we be killed now, the next one knows what it has to unsubscribe from.
            await self._journal.put([], link.pause)
            link.resume()
            running = asyncio.create_task(session.run())
            await self._subscribe(link, session, others)
            self._stands()
            await asyncio.wait((link.ended, running), return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                if running is not None:
                    session.finish()
                    await running
            finally:
                await link.close({mqtt_packets.SESSION_EXPIRY: 0} if self._forget else {})
        raise self._why(link)

    def _resume(self, link: Link) -> list[str]:
        """Make the note fit the session that we were given; filters that it should not have any more."""
        note = self._journal.note
        present = link.accepted.session_present and note.broker == self._where
        if not present:
            if note.filters and note.broker == self._where:
                log.warning(
                    "%s/%s: broker %s has forgotten our session, and with it what came while we were away",
                    self._function,
                    self._trigger,
                    self._where,
                )
            self._journal.unacked.entries.clear()
        known = note.filters if present else []
        self._fresh_subscription = self._filter not in known[:1]
        note.broker, note.client_id = self._where, self._client_id
        note.filters = [self._filter, *(each for each in known if each != self._filter)]
        return note.filters[1:]

    async def _subscribe(self, link: Link, session: Session, others: list[str]) -> None:
        """Raises MqttError."""
        wish = Wish(self._filter, self._spec.qos, 0 if self._spec.share else _RETAINED[self._spec.retained])
        link.send(Subscribe(1, (wish,)))
        if others:
            link.send(Unsubscribe(2, tuple(others)))
        granted: int | None = None
        for _ in range(2 if others else 1):
            answer = asyncio.ensure_future(session.answers.get())
            await asyncio.wait((answer, link.ended), timeout=ANSWER, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                raise (
                    link.ended.result()
                    if link.ended.done()
                    else MqttError(f"MQTT broker {self._where} does not answer SUBSCRIBE within {ANSWER:g} s")
                )
            if answer.result().kind == SUBACK:
                granted = answer.result().reasons[0]
        if granted is None or granted >= _FAILURE:
            why = mqtt_access.reason(granted or _FAILURE)
            raise MqttError(
                f"MQTT broker {self._where} refuses the subscription to {self._filter!r}: {why}",
                hint=mqtt_access.hint(granted or _FAILURE),
            )
        self._lower(granted)
        if others:
            self._journal.note.filters = [self._filter]
            session.touch()

    def _lower(self, granted: int) -> None:
        lowered = granted < self._spec.qos
        self._lowered = f"MQTT broker {self._where} gives QoS {granted} only: messages may be lost" if lowered else ""

    def _stands(self) -> None:
        if self._problem:
            log.info("%s/%s: connected to %s", self._function, self._trigger, self._where)
        self._problem = ""
        self._stood = True
        self._tried.set()

    def _why(self, link: Link) -> MqttError:
        ended = link.ended.result()
        return MqttError(f"MQTT broker {self._where} {ended.message}", hint=ended.hint, code=ended.code)

    # Messages

    def _arrival(self, message: Publish) -> Arrival | None:
        if message.retain and not self._takes_retained(message):
            return None
        delivery = self._read(message, _NOBODY)
        problem = delivery.problem or ""
        if message.oversize:
            problem = f"a message of {message.oversize} bytes; the longest that is taken has {PACKET_LIMIT}"
        return Arrival(
            function=self._function,
            trigger=self._trigger,
            key=delivery.key,
            event=delivery.event,
            raw=self._raw,
            problem=problem,
        )

    def _takes_retained(self, message: Publish) -> bool:
        """MQTT 5 brokers send only those that are wanted; others all, at each subscribing."""
        policy = self._spec.retained
        if policy != "new" or self._connection.version == "5":
            return policy != "ignore"
        return self._fresh_subscription or message.dup

    # Ending

    async def _end_session(self) -> None:
        """A connection that begins with a clean session leaves none behind. Raises FleetError."""
        try:
            access = mqtt_access.access(self._connection, self._resolve, self._base)
            link = await mqtt_link.connect(access, self._client_id, clean=True, timeout=FORGET)
            await link.close()
        except FleetError as exc:
            said = f"its session {self._client_id!r} may still be at the broker: {exc.message}"
            raise FleetError(said, hint=exc.hint) from exc

    def _resolve(self, reference: Secret) -> str:
        return secrets.resolve(reference, os.environ, self._base)


class _Nobody:
    """The Source of deliveries that only pass through here."""

    def settle(self, *_: object) -> None: ...

    def owns(self, *_: object) -> bool:
        return True


_NOBODY = cast("Source", _Nobody())


def _connection(function: GatewayFunction, trigger: Trigger) -> MqttConnection:
    name = trigger.connection or KIND
    found = function.mqtt.get(name)
    if found is None:
        raise FleetError(
            f'trigger "{trigger.name}" needs the MQTT connection "{name}", and environment "{function.environment}" '
            "gives no address",
            hint="name its url in environments.yaml, or run the function on a node, which has a broker to try with",
        )
    return found
