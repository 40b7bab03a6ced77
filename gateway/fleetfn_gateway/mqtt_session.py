"""One connection's life: each message is journaled into the inbox, then acknowledged, in the order of receipt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from fleetfn.errors import FleetError, StoreError
from fleetfn_plumbing import mqtt_packets
from fleetfn_plumbing.mqtt_link import Link
from fleetfn_plumbing.mqtt_packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Answer, Packet, Publish
from fleetfn_triggers.inbox import Arrival

from fleetfn_gateway import mqtt_note
from fleetfn_gateway.backoff import Backoff
from fleetfn_gateway.mqtt_note import Note
from fleetfn_gateway.mqtt_room import Room
from fleetfn_gateway.mqtt_unacked import Entry, Unacked
from fleetfn_gateway.notes import Notes

log = logging.getLogger("fleetfn.mqtt")

BATCH = 1000
"""Messages of one commit: larger ones only make the acknowledgements of the first wait for the last."""

TIDY = 0.1
"""Seconds until the note is written for no other reason than that it names messages which need no naming any more: a
commit less for messages that come one by one.
"""

_FIRST, _LONGEST = 0.1, 5.0
"""Seconds between tries while the inbox takes nothing."""

Arrive = Callable[[Publish], Arrival | None]
"""None: it is of no interest, and acknowledged without being kept."""


class AbandonedError(FleetError):
    """The inbox takes nothing, and we are to end: what is not journaled is not acknowledged, and comes again."""


class Journal:
    """The inbox and the note of a trigger. It outlives connections."""

    def __init__(self, notes: Notes, name: str) -> None:
        """Raises StoreError."""
        self.problem = ""
        self.closing = asyncio.Event()
        self._notes = notes
        self._name = name
        self.recall()

    def recall(self) -> None:
        """Go by what is on disk. Raises StoreError."""
        self.note: Note = mqtt_note.decode(self._notes.note(self._name))
        self.unacked = Unacked(self.note.unacked)
        self.doubtful = False
        """A session failed: messages that `unacked` names may not be in the inbox."""

    async def put(self, arrivals: list[Arrival], stopped: Callable[[], None]) -> None:
        """Tried until it succeeds; `stopped` is called at each failure. Raises AbandonedError."""
        backoff = Backoff(_FIRST, _LONGEST)
        since = ""
        while True:
            try:
                await self._notes.put(arrivals, notes={self._name: mqtt_note.encode(self.note)})
            except StoreError as exc:
                since = since or time.strftime("%H:%M:%S", time.gmtime())
                self.problem = f"nothing is taken from the broker since {since} UTC: {exc.message}"
                stopped()
                await self._wait(backoff.failed(), exc)
            else:
                self.problem = ""
                return

    async def _wait(self, seconds: float, why: StoreError) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.closing.wait()
        except TimeoutError:
            return
        raise AbandonedError(f"ended while the inbox took nothing: {why.message}") from why


class Session:
    """Runs from the broker's letting us in until the connection has ended, or is to end, and all that came by it is
    journaled.
    """

    def __init__(self, link: Link, journal: Journal, arrive: Arrive, *, inflight: int, room: Room) -> None:
        """`inflight`, `room`: messages, and bytes of them, that may be received and not journaled. Beyond either, none
        is read.
        """
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()
        """SUBACK and UNSUBACK, as they come."""
        self._held = 0
        """Messages received that are not journaled yet."""
        self._link = link
        self._journal = journal
        self._unacked = journal.unacked
        self._arrive = arrive
        self._inflight = inflight
        self._room = room
        self._pending: deque[Publish | Ack] = deque()
        self._bytes = 0
        self._fresh = False
        """A message has come that is no resend: the broker is through with resending."""
        self._tidy = False
        """The note is to be written, even if nothing else is."""
        self._later: asyncio.TimerHandle | None = None
        self._sent: list[tuple[int, Entry]] = []
        """PUBACKs sent since the last ping."""
        self._asked = False
        self._finishing = False
        self._news = asyncio.Event()
        link.ended.add_done_callback(lambda _: self._news.set())

    async def run(self) -> None:
        """Raises AbandonedError. Whatever it raises, the journal is in doubt then."""
        self._room.enter()
        self._link.listen(self._received)
        try:
            while self._pending or self._tidy or not (self._finishing or self._link.ended.done()):
                if self._pending or self._tidy:
                    await self._step()
                else:
                    await self._news.wait()
                    self._news.clear()
        except BaseException:
            self._journal.doubtful = True
            raise
        finally:
            self._room.leave()
            self._forget_timer()
            self._unacked.carry()

    def finish(self) -> None:
        """Take nothing more from the broker; `run` returns when what has come is journaled and acknowledged."""
        self._finishing = True
        self._link.pause()
        self._news.set()

    def touch(self) -> None:
        """The note has changed: write it."""
        self._forget_timer()
        self._tidy = True
        self._news.set()

    def _received(self, packets: list[Packet]) -> None:
        for packet in packets:
            if isinstance(packet, Publish):
                self._pending.append(packet)
                self._bytes += len(packet.payload)
                self._held += 1
            elif isinstance(packet, Ack) and packet.kind == PUBREL:
                self._pending.append(packet)
            elif isinstance(packet, Answer):
                self.answers.put_nowait(packet)
        if self._full():
            self._link.pause()
        self._news.set()

    def _full(self) -> bool:
        return self._bytes > self._room.share or self._held > self._inflight

    async def _step(self) -> None:
        batch = [self._pending.popleft() for _ in range(min(BATCH, len(self._pending)))]
        arrivals, replies, acked = self._sort(batch)
        if arrivals or self._tidy:
            self._tidy = False
            self._forget_timer()
            await self._journal.put(arrivals, self._link.pause)
        if replies:
            self._link.write(b"".join(replies))
            self._follow(acked)
        messages = [len(packet.payload) for packet in batch if isinstance(packet, Publish)]
        self._bytes -= sum(messages)
        self._held -= len(messages)
        if not self._full() and not self._finishing:
            self._link.resume()

    def _sort(self, batch: list[Publish | Ack]) -> tuple[list[Arrival], list[bytes], list[int]]:
        """What is to be journaled, the replies in order, and packet ids that PUBACKs are sent for."""
        arrivals: list[Arrival] = []
        replies: list[bytes] = []
        acked: list[int] = []
        for packet in batch:
            packet_id = packet.packet_id
            if isinstance(packet, Ack):
                self._tidy = self._unacked.released(packet_id) or self._tidy
                replies.append(mqtt_packets.ack(PUBCOMP, packet_id))
                continue
            resend = packet.qos > 0 and self._unacked.is_resend(packet)
            arrival = None if resend else self._arrive(packet)
            if arrival is not None:
                arrivals.append(arrival)
            if packet.qos == 0:
                continue
            if not resend:
                self._fresh = self._fresh or not packet.dup
                self._unacked.add(packet)
            if packet.qos == 1:
                replies.append(mqtt_packets.ack(PUBACK, packet_id))
                acked.append(packet_id)
            else:
                replies.append(mqtt_packets.ack(PUBREC, packet_id))
        return arrivals, replies, acked

    def _follow(self, acked: list[int]) -> None:
        """Learn when the broker has read the PUBACKs; one ping at a time is on its way."""
        self._sent += [(each, entry) for each in acked if (entry := self._unacked.acknowledged(each)) is not None]
        if self._sent and not self._asked:
            self._ask()

    def _ask(self) -> None:
        self._asked = True
        entries, self._sent = self._sent, []
        self._link.ping(partial(self._confirmed, entries, fresh=self._fresh))

    def _confirmed(self, entries: list[tuple[int, Entry]], *, fresh: bool) -> None:
        self._asked = False
        if self._sent:
            self._ask()
        for packet_id, entry in entries:
            self._unacked.confirmed(packet_id, entry)
        if fresh:
            self._unacked.drop_carried()
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(TIDY, self.touch)

    def _forget_timer(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
