"""When a message is one that the inbox has already."""

from __future__ import annotations

import msgspec
import pytest
from fleetfn_gateway import mqtt_names, mqtt_note
from fleetfn_gateway.mqtt_note import Note
from fleetfn_gateway.mqtt_unacked import Unacked, digest
from fleetfn_plumbing.mqtt_packets import CONTENT_TYPE, MESSAGE_EXPIRY, Publish

MESSAGE = Publish("a/b", b"open", 1, packet_id=7)


def again(message: Publish = MESSAGE) -> Publish:
    return msgspec.structs.replace(message, dup=True)


def restarted(unacked: Unacked) -> Unacked:
    """As another process finds it in the note."""
    note = mqtt_note.decode(mqtt_note.encode(Note(unacked=unacked.entries)))
    return Unacked(note.unacked)


def test_a_resend_of_a_journaled_message_is_known() -> None:
    unacked = Unacked()
    assert not unacked.is_resend(again())
    unacked.add(MESSAGE)
    assert unacked.is_resend(again())
    assert restarted(unacked).is_resend(again())


def test_before_its_acknowledgement_an_id_is_nobody_elses() -> None:
    unacked = Unacked()
    unacked.add(MESSAGE)
    assert unacked.is_resend(MESSAGE)  # a broker that came back from its file has forgotten to say DUP


def test_after_its_acknowledgement_only_a_resend_is_the_same() -> None:
    unacked = Unacked()
    unacked.add(MESSAGE)
    unacked.acknowledged(7)
    assert unacked.is_resend(again())
    assert not unacked.is_resend(MESSAGE)
    assert not restarted(unacked).is_resend(MESSAGE)


def test_once_the_broker_has_read_the_acknowledgement_equal_content_is_another_message() -> None:
    unacked = Unacked()
    unacked.add(MESSAGE)
    entry = unacked.acknowledged(7)
    assert entry is not None
    unacked.confirmed(7, entry)
    assert not unacked.is_resend(again())


def test_a_late_confirmation_does_not_touch_the_next_message_of_the_id() -> None:
    unacked = Unacked()
    unacked.add(MESSAGE)
    entry = unacked.acknowledged(7)
    assert entry is not None
    unacked.add(MESSAGE)  # the id is given again
    unacked.confirmed(7, entry)
    assert unacked.is_resend(again())


@pytest.mark.parametrize(
    "other",
    [
        Publish("a/c", b"open", 1, packet_id=7, dup=True),
        Publish("a/b", b"shut", 1, packet_id=7, dup=True),
        Publish("a/b", b"open", 1, packet_id=8, dup=True),
        Publish("a/b", b"open", 2, packet_id=7, dup=True),
        Publish("a/b", b"open", 1, packet_id=7, dup=True, properties={CONTENT_TYPE: "text/plain"}),
    ],
)
def test_another_message_is_no_resend(other: Publish) -> None:
    unacked = Unacked()
    unacked.add(MESSAGE)
    assert not unacked.is_resend(other)


def test_the_time_left_until_a_message_expires_may_change() -> None:
    first = Publish("a", b"", 1, packet_id=1, properties={MESSAGE_EXPIRY: 60})
    assert digest(first) == digest(msgspec.structs.replace(first, properties={MESSAGE_EXPIRY: 12}))


def test_qos_2_is_the_same_until_it_is_released() -> None:
    message = Publish("a/b", b"open", 2, packet_id=7)
    unacked = Unacked()
    unacked.add(message)
    assert unacked.acknowledged(7) is None
    assert restarted(unacked).is_resend(message)
    assert unacked.released(7)
    assert not unacked.is_resend(again(message))
    assert not unacked.released(7)


def test_what_the_broker_did_not_resend_is_let_go() -> None:
    unacked = Unacked()
    for packet_id in (1, 2, 3):
        unacked.add(Publish("a", b"x", 1, packet_id=packet_id))
        unacked.acknowledged(packet_id)
    unacked.add(Publish("a", b"x", 2, packet_id=4))
    unacked.carry()
    assert unacked.is_resend(Publish("a", b"x", 1, packet_id=2, dup=True))
    unacked.acknowledged(2)
    unacked.drop_carried()
    assert sorted(unacked.entries) == [2, 4]


def test_a_note_that_cannot_be_read_is_none() -> None:
    assert mqtt_note.decode(b"\xff") == Note()
    assert mqtt_note.decode(None) == Note()


def test_client_ids_name_their_trigger() -> None:
    assert mqtt_names.client_id("prod", "n1", "battery", "live") == "fleetfn/prod/n1/battery/live"


def test_long_client_ids_are_cut_and_stay_apart() -> None:
    one, two = (mqtt_names.client_id("prod", "n1", "f" * 63, "t" * 62 + end) for end in "ab")
    assert len(one) == len(two) == 128
    assert one != two
    assert one.startswith("fleetfn/prod/n1/fff")


def test_the_short_form_is_what_every_broker_takes() -> None:
    short = mqtt_names.short("fleetfn/prod/n1/battery/live")
    assert len(short) == 23
    assert short.isalnum()
