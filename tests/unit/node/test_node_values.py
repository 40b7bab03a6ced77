"""Small pieces that are functions of values: backoff, brokers, metrics, counters, environments' names, wire."""

import re
from pathlib import Path

import pytest
from fleetfn.errors import FleetError
from fleetfn_gateway import sending, sending_mqtt
from fleetfn_node import brokers, envs, metering, parents, wire
from fleetfn_node.backoff import LONGEST, Backoff
from fleetfn_node.brokers import Embedded
from fleetfn_node.counting import Tally
from fleetfn_node.folders import Folders, Lock
from fleetfn_runtime.channel import Stats
from fleetfn_spec import sizes
from fleetfn_spec.anchoring import anchored
from fleetfn_spec.control import API, Counters, SendItem
from fleetfn_spec.environments import LOCAL, Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection, KafkaSasl
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret
from fleetfn_triggers.tls import Tls
from test_revisions import function

REAL = Environment(
    name="bench", connections=[Connection(name="kafka", kafka=KafkaConnection(brokers=["kafka-0:9092"]))]
)


def consumer(**more):
    return function(
        triggers=[{"name": "telemetry", "key": "kafka.key", "kafka": {"topic": "t"}, **more}],
        outputs=[{"name": "alerts", "connection": "other", "kafka": {"topic": "alerts"}}],
    )


def test_jitter_keeps_between_half_and_all_of_the_wait():
    low, high = Backoff(jitter=lambda: 0.0), Backoff(jitter=lambda: 1.0)
    assert [(low.failed(), high.failed()) for _ in range(3)] == [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)]
    assert [high.failed() for _ in range(9)][-1] == LONGEST


def test_connections_without_an_address_are_the_embedded_brokers():
    assert brokers.used(consumer(), "kafka") == ["kafka", "other"]
    assert brokers.embedded_kinds(consumer(), LOCAL) == ["kafka"]
    found = brokers.kafkas(consumer(), REAL, Embedded(kafka="127.0.0.1:9"))
    assert {name: each.brokers for name, each in found.items()} == {
        "kafka": ["kafka-0:9092"],
        "other": ["127.0.0.1:9"],
    }


def test_mqtt_triggers_and_outputs_meet_their_connection_or_the_embedded_broker():
    given = function(
        triggers=[{"name": "live", "key": "topic.v", "mqtt": {"topic": "v/{v}"}}],
        outputs=[{"name": "warnings", "connection": "bench", "mqtt": {"topic": "w/{key}"}}],
    )
    bench = MqttConnection(url="mqtts://bench:8883")
    environment = Environment(name="e", connections=[Connection(name="bench", mqtt=bench)])
    assert brokers.embedded_kinds(given, environment) == ["mqtt"]
    found = brokers.mqtts(given, environment, Embedded(mqtt="127.0.0.1:9"))
    assert {name: each.url for name, each in found.items()} == {
        "mqtt": "mqtt://127.0.0.1:9",
        "bench": "mqtts://bench:8883",
    }
    assert list(brokers.mqtts(given, environment, Embedded())) == ["bench"]


def test_a_function_without_brokers_needs_none():
    assert brokers.embedded_kinds(function(), LOCAL) == []


def test_paths_of_a_connection_start_in_the_functions_folder():
    given = KafkaConnection(
        brokers=["kafka-0:9092"],
        tls=Tls(ca="ca.pem", certificate="/etc/c.pem", key="k.pem"),
        sasl=KafkaSasl(mechanism="PLAIN", username="fn", password=Secret(file="secrets/password")),
    )
    found = anchored(given, Path("/src"))
    assert found.tls == Tls(ca="/src/ca.pem", certificate="/etc/c.pem", key="/src/k.pem")
    assert found.sasl.password == Secret(file="/src/secrets/password")
    assert found.sasl.username == "fn"
    assert anchored(KafkaConnection(), Path("/src")) == KafkaConnection()


@pytest.mark.parametrize(
    ("template", "key_expression", "item", "topic"),
    [
        ("v/{v}/battery", "topic.v", SendItem(key="V1"), "v/V1/battery"),
        ("v/all", "data.vehicle", SendItem(key="V1"), "v/all"),
        ("v/+/battery", None, SendItem(topic="v/V7/battery"), "v/V7/battery"),
        ("v/{v}/{w}", "topic.v", SendItem(key="V1", event={"subject": "v/V1/x"}), "v/V1/x"),
        ("v/#", None, SendItem(event={"subject": "v/V1/x/y"}), "v/V1/x/y"),
    ],
    ids=["key", "fixed", "given", "subject of two levels", "subject of a wildcard"],
)
def test_an_event_goes_to_the_topic_that_it_names(template, key_expression, item, topic):
    trigger = mqtt_trigger(template, key_expression)
    assert sending_mqtt.topic_of(trigger, trigger.mqtt, item) == topic


@pytest.mark.parametrize(
    ("template", "item", "said"),
    [
        ("v/{v}/battery", SendItem(), "has a level that the event does not give"),
        ("v/{v}/battery", SendItem(key="a/b"), "the key 'a/b'"),
        ("v/{v}/battery", SendItem(topic="w/1/battery"), "does not subscribe to topic 'w/1/battery'"),
        ("v/+", SendItem(key="V1", event={"subject": "w/1"}), "has a level that the event does not give"),
    ],
    ids=["no key", "key of two levels", "another topic", "another subject"],
)
def test_an_event_without_a_topic_is_refused(template, item, said):
    trigger = mqtt_trigger(template, "topic.v")
    with pytest.raises(FleetError, match=re.escape(said)):
        sending_mqtt.topic_of(trigger, trigger.mqtt, item)


@pytest.mark.parametrize(
    ("trigger", "key"),
    [
        ({"key": "topic.v", "mqtt": {"topic": "v/{v}"}}, "V1"),
        ({"kafka": {"topic": "t"}}, "V1"),
        ({"key": "data.vehicle", "kafka": {"topic": "t"}}, None),
        ({"mqtt": {"topic": "t"}}, None),
    ],
    ids=["topic", "record", "data", "no key"],
)
def test_a_key_that_stands_beside_the_event_comes_from_its_partitionkey(trigger, key):
    (found,) = function(triggers=[{"name": "t", **trigger}]).spec.triggers
    event = {"specversion": "1.0", "partitionkey": "V1"}
    assert sending.keyed(found, SendItem(event=event)).key == key
    assert sending.keyed(found, SendItem(event=event, key="own")).key == "own"


def test_a_key_that_is_a_header_goes_as_one():
    (found,) = function(triggers=[{"name": "t", "key": "header.vehicle", "http": {"path": "/v"}}]).spec.triggers
    assert sending.keyed(found, SendItem(key="V1")).headers == {"vehicle": "V1"}
    assert sending.keyed(found, SendItem(event={"partitionkey": "V1"})).headers == {"vehicle": "V1"}


def mqtt_trigger(template, key):
    return function(triggers=[{"name": "live", "key": key, "mqtt": {"topic": template}}]).spec.triggers[0]


@pytest.mark.parametrize(("text", "bytes_"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("7", 7), ("10kb", 10_000)])
def test_sizes_are_read(text, bytes_):
    assert sizes.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 apple", "0"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(sizes.SizeError, match="is not a size"):
        sizes.size(text)


def test_expositions_of_several_processes_become_one():
    one = b'# HELP done Runs.\n# TYPE done counter\ndone_total{function="a"} 1.0\n'
    two = one.replace(b'"a"} 1', b'"b"} 2') + b"# HELP up Up.\n# TYPE up gauge\nup 1.0\n"
    assert metering.merged([one, two]).decode().splitlines() == [
        "# HELP done Runs.",
        "# TYPE done counter",
        'done_total{function="a"} 1.0',
        'done_total{function="b"} 2.0',
        "# HELP up Up.",
        "# TYPE up gauge",
        "up 1.0",
    ]


def test_a_series_of_two_processes_is_told_once():
    """As while a worker drains beside its successor: duplicate series would make the whole exposition invalid."""
    one = (
        b'# TYPE done counter\ndone_total{function="a"} 1.0\n# TYPE took_seconds histogram\n'
        b'took_seconds_bucket{le="+Inf"} 2.0\ntook_seconds_sum 0.5\n# TYPE start_seconds gauge\nstart_seconds 0.25\n'
    )
    assert metering.merged([one, one.replace(b" 0.25", b" 0.75")]).decode().splitlines() == [
        "# TYPE done counter",
        'done_total{function="a"} 2.0',
        "# TYPE took_seconds histogram",
        'took_seconds_bucket{le="+Inf"} 4.0',
        "took_seconds_sum 1.0",
        "# TYPE start_seconds gauge",
        "start_seconds 0.75",
    ]


def test_the_nodes_own_metrics_count_phases_and_cold_starts():
    metrics = metering.NodeMetrics()
    metrics.woke("hello")(0.03)
    text = metrics.text(["running", "sleeping", "sleeping"]).decode()
    assert 'fleetfn_node_functions{phase="sleeping"} 2.0' in text
    assert 'fleetfn_node_activations_total{function="hello"} 1.0' in text
    assert 'fleetfn_node_cold_start_seconds_bucket{function="hello",le="0.05"} 1.0' in text


def test_counters_are_summed_and_survive_a_restart(tmp_path):
    tally = Tally(tmp_path / "counters.json")
    for _ in range(2):
        tally.add(Stats(counters=Counters(done=3, dead=1), in_flight=0, last_error="boom", last_error_time=5.0))
    tally.activated(9.0)
    tally.save()
    kept = Tally(tmp_path / "counters.json").kept
    assert kept.counters == Counters(done=6, dead=2, cold_starts=1)
    assert (kept.last_error, kept.last_error_time, kept.last_activation) == ("boom", 5.0, 9.0)


def test_damaged_counters_begin_anew(tmp_path):
    (tmp_path / "counters.json").write_text("{")
    assert Tally(tmp_path / "counters.json").kept.counters == Counters()


def test_requirements_are_compared_without_comments_and_with_what_they_include(tmp_path):
    (tmp_path / "requirements.txt").write_text("# ours\nnumpy==2  # fast\n\n-r more.txt\n")
    (tmp_path / "more.txt").write_text("scipy\n")
    lines = envs.normalised(tmp_path / "requirements.txt")
    assert lines == ["numpy==2", "-r more.txt", "scipy"]
    assert envs.env_name(lines, ["msgspec==0.22"]) != envs.env_name(lines, ["msgspec==0.23"])
    assert envs.normalised(tmp_path / "none.txt") == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"-r more.txt\n", "requirements.txt includes itself"),
        (b"caf\xe9\n", "cannot be read"),
        (b"-r .\n", "cannot be read"),
    ],
    ids=["circle", "latin-1", "folder"],
)
def test_requirements_that_cannot_be_followed_are_refused(tmp_path, text, said):
    (tmp_path / "requirements.txt").write_bytes(text)
    (tmp_path / "more.txt").write_text("-r requirements.txt\n")
    with pytest.raises(envs.DependencyError, match=said):
        envs.normalised(tmp_path / "requirements.txt")


def test_what_the_machine_refuses_is_no_defect_of_the_node():
    refusal = wire.defect(FileNotFoundError(2, "No such file or directory", "/data/incoming/x.tar"))
    assert refusal.message == "the node cannot use '/data/incoming/x.tar': No such file or directory"
    assert "data folder" in refusal.hint


def test_constraints_name_what_a_worker_runs_with_and_not_the_command_line():
    names = {line.partition("==")[0] for line in envs.runtime_versions()}
    assert {"msgspec", "uvloop", "confluent-kafka"} <= names
    assert "typer" not in names


@pytest.mark.parametrize(
    ("theirs", "older"), [("0.9", "fn is older"), ("9.0", "the node is older"), ("x", "the node is older")]
)
def test_another_major_says_which_side_to_update(theirs, older):
    assert older in wire.mismatch(theirs).message


def test_minors_understand_each_other():
    assert wire.mismatch(API.partition(".")[0] + ".99") is None


@pytest.mark.parametrize(
    ("item", "body"),
    [
        (SendItem(data={"a": 1}), b'{"a":1}'),
        (SendItem(base64="AP8="), b"\x00\xff"),
        (SendItem(), None),
    ],
    ids=["data", "base64", "tombstone"],
)
def test_bare_payloads_go_as_they_are(item, body):
    assert sending.payload(item)[0] == body


def test_an_event_gets_the_attributes_it_lacks():
    body, headers = sending.payload(SendItem(event={"type": "t", "data": 1}))
    assert headers["content-type"] == "application/cloudevents+json"
    assert b'"specversion":"1.0"' in body
    assert b'"type":"t"' in body


def test_base64_that_does_not_decode_is_refused():
    with pytest.raises(FleetError, match="base64"):
        sending.payload(SendItem(base64="%%"))


def test_the_key_fills_the_path_that_it_came_from():
    by_key = function(triggers=[{"name": "show", "key": "path.vehicle", "http": {"path": "/b/{vehicle}"}}])
    trigger = by_key.spec.triggers[0]
    assert sending.path_of(trigger, "/b/{vehicle}", SendItem(key="a/b c")) == "/b/a%2Fb%20c"
    with pytest.raises(FleetError, match=r"part \{vehicle\}"):
        sending.path_of(trigger, "/b/{vehicle}", SendItem())


def test_a_folder_for_sockets_that_is_too_long_is_refused(tmp_path):
    folders = Folders(tmp_path, tmp_path / ("x" * 100))
    with pytest.raises(FleetError, match="too long"):
        folders.prepare()


def test_one_node_holds_a_data_folder_and_the_next_one_learns_who(tmp_path):
    with Lock(tmp_path), pytest.raises(FleetError, match=r"runs on the data folder .* \(pid \d+\)"):
        Lock(tmp_path)
    with Lock(tmp_path):
        pass


def test_a_nodes_identity_and_log_key_are_made_once(tmp_path):
    folders = Folders(tmp_path / "data", tmp_path / "run")
    folders.prepare()
    assert (folders.id(), folders.log_key()) == (folders.id(), folders.log_key())
    assert (folders.data / "log.key").stat().st_mode & 0o077 == 0


class WarmParent:
    def __init__(self, used, *, busy=False):
        self.kind, self.used, self.busy, self.closed = f"kind {used}", used, busy, False

    def rss(self):
        return 100

    async def close(self):
        self.closed = True


async def test_warm_parents_beyond_the_budget_go_oldest_first_but_never_with_workers():
    all_ = [WarmParent(1, busy=True), WarmParent(2), WarmParent(3), WarmParent(4)]
    held = parents.Parents(budget=250)
    held._parents = {each.kind: each for each in all_}
    await held.trim()
    assert [each.closed for each in all_] == [False, True, True, False]
