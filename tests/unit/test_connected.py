"""The note of what has connected: later workers need not, and a group that began is known to have."""

import msgspec
import pytest
from fleetfn_runtime.connected import Connected
from fleetfn_runtime.settings import Settings
from fleetfn_triggers.kafka_connection import KafkaConnection
from worker_process import function


def connected(tmp_path, *, topic="vehicle.telemetry", connection="kafka", broker="127.0.0.1:9092", **more):
    trigger = {"name": "telemetry", "key": "kafka.key", "connection": connection, "kafka": {"topic": topic}}
    made = Settings(
        function=function(triggers=[trigger]),
        revision="abc123",
        source=tmp_path,
        data=tmp_path,
        gateway=tmp_path / "gateway.sock",
        run=tmp_path,
        kafka={connection: KafkaConnection(brokers=[broker])},
    )
    made = msgspec.structs.replace(made, **more)
    return Connected(made), made.function.spec.triggers[0]


def test_at_first_nothing_has_connected_and_no_group_began(tmp_path):
    now, trigger = connected(tmp_path)
    assert (now.holds(), now.began(trigger)) == (False, False)


def test_what_connected_is_known_to_this_worker_and_to_the_next(tmp_path):
    now, trigger = connected(tmp_path)
    assert not now.holds()
    now.keep()
    assert (now.holds(), now.began(trigger)) == (True, True)
    later, trigger = connected(tmp_path)
    assert (later.holds(), later.began(trigger)) == (True, True)


@pytest.mark.parametrize("change", [{"broker": "127.0.0.1:9093"}, {"revision": "def456"}])
def test_another_address_or_revision_connects_again_and_its_group_has_begun(tmp_path, change):
    connected(tmp_path)[0].keep()
    now, trigger = connected(tmp_path, **change)
    assert (now.holds(), now.began(trigger)) == (False, True)


@pytest.mark.parametrize(
    "change", [{"topic": "vehicle.tyres"}, {"connection": "other"}, {"environment": "prod"}, {"place": "box"}]
)
def test_another_topic_connection_or_place_is_another_group(tmp_path, change):
    connected(tmp_path)[0].keep()
    now, trigger = connected(tmp_path, **change)
    assert (now.holds(), now.began(trigger)) == (False, False)


@pytest.mark.parametrize("left", [b"", b'{"mark": "', b"\xff\xfe", b"b1c56602ae35"])
def test_a_note_that_was_cut_short_is_none(tmp_path, left):
    (tmp_path / "connected").write_bytes(left)
    now, trigger = connected(tmp_path)
    assert (now.holds(), now.began(trigger)) == (False, False)
