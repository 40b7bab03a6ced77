"""A real node and Kafka: records wake a function from zero, and none is lost over kills, redeploys and restarts."""

import contextlib
import os
import signal

import psutil
import pytest
from confluent_kafka import Producer
from fleetfn_spec.control import SendItem
from fleetfn_spec.environments import LOCAL, Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from running_node import RunningNode, wait_for, write_function

pytestmark = pytest.mark.node

CODE = """
from fleetfn import State

WORD = "one"

def count(n: int, total: State[int]) -> None:
    total.value += n

def show(vehicle: str, total: State[int]) -> int:
    return total.value
"""

SPEC = """
handler: handler:count
scale: {idle: 1s}
triggers:
- {name: telemetry, key: kafka.key, kafka: {topic: TOPIC}}
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path / "node")
    try:
        yield node.start()
    finally:
        node.close()


def deploy(node, tmp_path, environment=LOCAL, topic="vehicle.telemetry", code=CODE, spec=SPEC, name="counter"):
    folder = write_function(tmp_path / name, code, spec.replace("TOPIC", topic), name=name)
    _, last = node.deploy(folder, environment)
    assert last.revision is not None, last
    return folder


def send(node, count, *, vehicles=10, name="counter"):
    items = (SendItem(key=f"V{number % vehicles}", data=1) for number in range(count))
    with node.client.send(name, "telemetry", items) as lines:
        last = list(lines)[-1]
    assert last.refusal is None, last
    assert (last.sent, last.finished) == (count, True)
    return last


def totals(node, name="counter"):
    keys = node.client.states(name).keys
    return {key: node.client.state(name, key).value for key in keys}


def handled(node, each, *, vehicles=10):
    wanted = {f"V{number}": each for number in range(vehicles)}
    wait_for(lambda: totals(node) == wanted, 120, f"{each} records of each vehicle, not {totals(node)}")


def test_a_record_right_after_the_first_deploy_is_handled(node, tmp_path):
    deploy(node, tmp_path)
    send(node, 10)
    handled(node, 1)
    assert node.client.node().embedded_kafka.startswith("127.0.0.1:")
    assert node.status("counter").triggers[0].where == "kafka topic vehicle.telemetry (embedded)"


def test_a_record_wakes_a_sleeping_function_which_has_no_process(node, tmp_path):
    deploy(node, tmp_path)
    for round_ in (1, 2):
        node.asleep("counter")
        assert node.workers() == []
        send(node, 10)
        handled(node, round_)
    wait_for(lambda: node.status("counter").counters.cold_starts >= 2, what="two cold starts")
    wait_for(lambda: node.status("counter").triggers[0].backlog == 0, what="an empty backlog")


def test_a_worker_killed_with_a_backlog_is_started_again_by_itself(node, tmp_path):
    deploy(node, tmp_path)
    for _ in range(3):
        send(node, 1000)
        for pid in wait_for(node.workers, what="a worker"):
            with contextlib.suppress(ProcessLookupError):  # it fell asleep
                os.kill(pid, signal.SIGKILL)
    handled(node, 300)


def test_a_redeploy_in_a_stream_loses_nothing_and_repeats_nothing(node, tmp_path):
    folder = deploy(node, tmp_path)
    for word in ("two", "three"):
        send(node, 1000)
        (folder / "handler.py").write_text(CODE.replace('"one"', f'"{word}"'))
        _, last = node.deploy(folder)
        assert last.revision is not None, last
    send(node, 1000)
    handled(node, 300)


def test_paused_triggers_leave_their_records_where_they_are(node, tmp_path):
    deploy(node, tmp_path)
    node.client.pause("counter", ["telemetry"])
    wait_for(lambda: node.workers() == [], what="no worker: one that was about to take records may take some still")
    send(node, 10)
    wait_for(lambda: node.status("counter").phase == "paused", what="paused")
    assert totals(node) == {}
    wait_for(lambda: node.status("counter").triggers[0].backlog == 10, what="a backlog of 10")
    assert totals(node) == {}
    node.client.resume("counter")
    handled(node, 1)


def test_an_event_that_kills_its_worker_is_given_up_on_and_the_others_go_on(node, tmp_path):
    code = CODE.replace(
        "    total.value += n\n", "    if n == 666:\n        import os\n        os._exit(9)\n    total.value += n\n"
    )
    deploy(node, tmp_path, code=code, spec=SPEC + "retry: {attempts: 2}\n")
    items = [SendItem(key="V0", data=1), SendItem(key="bad", data=666), SendItem(key="V1", data=1)]
    with node.client.send("counter", "telemetry", items) as lines:
        list(lines)
    wait_for(lambda: totals(node) == {"V0": 1, "V1": 1}, 120, "the others")
    (row,) = wait_for(lambda: node.client.dead(function="counter"), 120, "the dead letter")
    assert (row.key, row.reason, row.attempts) == ("bad", "crashed", 2)
    assert wait_for(lambda: node.status("counter").dead_letters, what="its count") == 1


def test_a_node_on_an_embedded_broker_comes_back_and_takes_records(node, tmp_path):
    deploy(node, tmp_path)
    send(node, 10)
    handled(node, 1)
    node.asleep("counter")
    assert node.stop() == 0
    node.start()
    assert node.status("counter").phase == "sleeping"
    send(node, 10)
    handled(node, 2)


def test_an_embedded_broker_that_dies_is_started_again_and_found_by_who_works_and_who_sleeps(node, tmp_path):
    deploy(node, tmp_path, spec=SPEC.replace("idle: 1s", "idle: 10m"))
    send(node, 10)
    handled(node, 1)
    assert node.workers()
    first = node.client.node().embedded_kafka
    kill_broker(node)
    second = wait_for(lambda: elsewhere(node, first), what="another one")
    send(node, 10)
    handled(node, 2)
    deploy(node, tmp_path)  # its worker rests after a second again
    node.asleep("counter")
    kill_broker(node)
    wait_for(lambda: elsewhere(node, second), what="a third one")
    send(node, 10)
    handled(node, 3)
    assert node.log().count("was killed by signal 9; next start in") == 2
    wait_for(lambda: node.status("counter").problems == [], what="no problem any more")


def kill_broker(node):
    (broker,) = (each for each in psutil.Process(node.process.pid).children() if is_broker(each))
    broker.kill()


def is_broker(process):
    with contextlib.suppress(psutil.Error):  # it ends meanwhile
        return "fleetfn_node.embedded_kafka" in process.cmdline()
    return False


def elsewhere(node, address):
    now = node.client.node().embedded_kafka
    return now if now != address else None


@pytest.mark.kafka
def test_what_was_written_while_the_node_was_dead_is_handled_when_it_is_back(node, tmp_path, kafka, topic):
    real = Environment(name="bench", connections=[Connection(name="kafka", kafka=KafkaConnection(brokers=[kafka]))])
    deploy(node, tmp_path, real, topic=topic)
    send(node, 10)
    handled(node, 1)
    node.asleep("counter")
    node.kill()
    produce(kafka, topic, 10)
    node.start()
    handled(node, 2)
    node.asleep("counter")
    produce(kafka, topic, 10)
    handled(node, 3)


def produce(brokers, topic, count):
    producer = Producer({"bootstrap.servers": brokers})
    for number in range(count):
        producer.produce(topic, b"1", key=f"V{number % 10}")
    assert producer.flush(60) == 0
