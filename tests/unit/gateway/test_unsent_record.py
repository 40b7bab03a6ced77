"""Records that `fn send` writes get the key that their trigger would find."""

from fleetfn_gateway.unsent_record import key_of, record
from fleetfn_spec.control import SendItem
from fleetfn_spec.function import Trigger
from fleetfn_spec.gateway import SendRecord
from fleetfn_triggers.kafka import Kafka

JSON = {"content-type": "application/json"}


def trigger(key):
    return Trigger(name="in", key=key, kafka=Kafka(topic="t"))


def test_the_key_is_taken_from_the_data():
    find = key_of("f", trigger("data.vehicle"))
    assert find("t", b'{"vehicle": "V1"}', JSON) == "V1"


def test_the_key_is_taken_from_a_cloudevent():
    find = key_of("f", trigger("subject"))
    event = b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "V2", "data": {}}'
    assert find("t", event, {"content-type": "application/cloudevents+json"}) == "V2"


def test_a_record_that_cannot_be_read_has_none():
    find = key_of("f", trigger("data.vehicle"))
    assert find("t", b"{", JSON) is None
    assert find("t", None, {}) is None


def test_a_named_key_is_taken_as_it_is_and_an_item_without_a_payload_is_a_tombstone():
    find = key_of("f", trigger("data.vehicle"))
    assert record("t", SendItem(key="V3", data={"vehicle": "V1"}), find) == SendRecord("V3", b'{"vehicle":"V1"}', JSON)
    assert record("t", SendItem(data={"vehicle": "V1"}, headers={"a": "b"}), find).headers == {**JSON, "a": "b"}
    assert record("t", SendItem(key="V1"), find) == SendRecord("V1", None, {})
