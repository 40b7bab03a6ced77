"""Messages that are in the inbox while their broker may not know it yet: a resend of one is no other message.

A packet id names a message only until its acknowledgement has arrived; the broker then gives it to another one. So an
id is kept from the commit of its row (in the same commit, as a note) until we know that the acknowledgement was read:

- QoS 1: the broker answers a ping that was sent behind the PUBACK. Until then a resend with equal content is the same
  message; afterwards equal content under the same id is another one.
- QoS 2: the broker sends PUBREL. There is no doubt at any time.

Where the connection breaks between a PUBACK and the answer to its ping, nobody can tell a resend from another message
of equal topic, payload and properties that got the same id in that moment: it is taken for the resend. Brokers that
count ids up (Mosquitto) give an id again 65,535 messages later.
"""

from __future__ import annotations

import hashlib

import msgspec
from fleetfn_plumbing.mqtt_packets import Publish


class Entry(msgspec.Struct, array_like=True):
    """`acked`: its PUBACK may have left us. `carried`: it comes from an earlier connection."""

    digest: bytes
    qos: int
    acked: bool = False
    carried: bool = False


class Unacked:
    def __init__(self, entries: dict[int, Entry] | None = None) -> None:
        """`entries`: as of the note; how far their acknowledgement came is unknown."""
        self.entries = {} if entries is None else entries
        for entry in self.entries.values():
            entry.acked = entry.carried = True

    def is_resend(self, message: Publish) -> bool:
        """The row of this message is in the inbox."""
        entry = self.entries.get(message.packet_id)
        if entry is None or entry.qos != message.qos:
            return False
        # An id is free again only after its acknowledgement: before, the DUP flag tells nothing more.
        known = entry.qos == 2 or message.dup or not entry.acked  # noqa: PLR2004 - QoS 2
        return known and entry.digest == digest(message)

    def add(self, message: Publish) -> None:
        self.entries[message.packet_id] = Entry(digest(message), message.qos)

    def acknowledged(self, packet_id: int) -> Entry | None:
        """A PUBACK leaves now; the entry to confirm, once it is known to have arrived."""
        entry = self.entries.get(packet_id)
        if entry is None or entry.qos != 1:
            return None
        entry.acked, entry.carried = True, False
        return entry

    def confirmed(self, packet_id: int, entry: Entry) -> None:
        """The broker has read the PUBACK of this entry."""
        if self.entries.get(packet_id) is entry:  # else the id is another message's by now
            del self.entries[packet_id]

    def released(self, packet_id: int) -> bool:
        """PUBREL: the broker has read our PUBREC."""
        return self.entries.pop(packet_id, None) is not None

    def carry(self) -> None:
        """The connection is gone."""
        for entry in self.entries.values():
            entry.carried = True

    def drop_carried(self) -> None:
        """The broker has resent all that it had to: what it did not resend, it knows to be acknowledged."""
        for packet_id in [each for each, entry in self.entries.items() if entry.carried and entry.qos == 1]:
            del self.entries[packet_id]


def digest(message: Publish) -> bytes:
    """Of what a resend repeats: the time left until a message expires, for one, may differ."""
    hasher = hashlib.blake2b(message.topic.encode(), digest_size=12)
    hasher.update(b"\0")
    hasher.update(message.payload)
    if message.properties or message.retain:
        more = repr((message.retain, message.content_type, list(message.user)))
        hasher.update(more.encode(errors="surrogateescape"))
    return hasher.digest()
