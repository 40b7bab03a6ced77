"""A post of the watch, asked step by step."""

from fleetfn_node.sleepers import Sleeper
from fleetfn_node.watch_post import Post
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_doubles import no_secrets


def test_who_is_asked_for_offsets_while_its_topic_grows_is_asked_anew():
    """The answer is of the partitions that there were: records of a new one would never wake it."""
    post = Post(b"", KafkaConnection(brokers=["nowhere:1"]), no_secrets, print)
    sleeper = Sleeper("f", "t", "telemetry", "group")
    post._all.add(sleeper)
    post._asked[sleeper] = object()
    post._anew("telemetry")
    assert list(post._new) == [sleeper]
    assert not post._asked
