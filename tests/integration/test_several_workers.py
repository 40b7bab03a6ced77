"""A real node and Kafka, and a function that may have several workers: none of them loses or repeats anything."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections import Counter

import pytest
from confluent_kafka import Producer
from fleetfn_spec.environments import Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import committed, create_topic, fresh_name
from running_node import RunningNode, ask, wait_for, write_function

pytestmark = [pytest.mark.kafka, pytest.mark.node]

JSON = {"content-type": "application/json"}
PARTITIONS = 6
KEYS = 60

CODE = """
import asyncio, os
from fleetfn import State

REVISION = 1

async def count(n: int, total: State[int]) -> None:
    await asyncio.sleep(0.02)
    if n < 0:
        os._exit(9)
    total.value += n

async def who(n: int) -> list[int]:
    await asyncio.sleep(0.2)
    return [os.getpid(), REVISION]

async def late(n: int, total: State[int]) -> None:
    await asyncio.sleep(0.05)
    if n < 0:
        os._exit(9)
    total.value += n

async def add(n: int, total: State[int]) -> int:
    value = total.value
    await asyncio.sleep(0.02)
    total.value = value + n
    return total.value
"""

SPEC = """
handler: handler:count
scale: {max: 3, idle: 2s, concurrency: 4}
retry: {attempts: 3, initial: 10ms}
triggers:
- {name: telemetry, key: kafka.key, kafka: {topic: TOPIC, start: earliest}}
- {name: who, handler: "handler:who", key: null, http: {path: /who}}
- {name: late, handler: "handler:late", key: path.vehicle, timeout: 5m, http: {path: "/late/{vehicle}"}}
- {name: add, handler: "handler:add", key: path.vehicle, http: {path: "/add/{vehicle}"}}
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path / "node")
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def topic(kafka):
    name = fresh_name("several")
    create_topic(kafka, name, PARTITIONS)
    return name


@pytest.fixture
def deploy(node, tmp_path, kafka, topic):
    def deploy(code=CODE, spec=SPEC):
        folder = write_function(tmp_path / "several", code, spec.replace("TOPIC", topic), name="several")
        place = Environment(
            name="local", connections=[Connection(name="kafka", kafka=KafkaConnection(brokers=[kafka]))]
        )
        _, last = node.deploy(folder, place)
        assert last.revision is not None, last

    deploy()
    return deploy


def produce(brokers, topic, count, data=b"1", *, key=None):
    producer = Producer({"bootstrap.servers": brokers})
    for number in range(count):
        producer.produce(topic, data, key=key or f"V{number % KEYS}")
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def totals(node):
    keys = node.client.states("several").keys
    return {key: node.client.state("several", key).value for key in keys}


def letters(node):
    return node.client.dead(function="several")


def handled(node, each, limit=180):
    wanted = {f"V{number}": each for number in range(KEYS)}
    wait_for(lambda: totals(node) == wanted, limit, f"{each} records of each vehicle")


def working(node):
    """Pids of the workers that are ready, as the node tells."""
    return {each.pid for each in node.status("several").workers if each.ready}


def three_work(node, kafka, topic, sent):
    """Wait for three workers. While there are fewer, more records come before the first of them are done with all.
    How many records of each vehicle there are then; `sent`: now.
    """

    def three():
        nonlocal sent
        status = node.status("several")
        if status.reason.startswith("3 workers take work, of at most 3; "):
            return True
        (left,) = [each.backlog for each in status.triggers if each.name == "telemetry"]
        if left is not None and left < 20 * KEYS:
            produce(kafka, topic, 20 * KEYS)
            sent += 20
        return False

    wait_for(three, 120, "three workers")
    return sent


def test_lag_brings_three_workers_which_share_the_partitions_and_go_again(node, deploy, kafka, topic):
    produce(kafka, topic, 60 * KEYS)
    sent = three_work(node, kafka, topic, 60)
    handled(node, sent)
    wait_for(lambda: len(working(node)) < 3, limit=60, what="fewer workers, which suffice")
    node.asleep("several")
    wait_for(lambda: node.workers() == [], what="no worker process")
    assert sum(committed(kafka, group(node), topic, PARTITIONS)) == sent * KEYS
    produce(kafka, topic, KEYS)
    handled(node, sent + 1)
    assert letters(node) == []


def group(node):
    return f"local/{(node.data / 'id').read_text().strip()}/several/telemetry"


def test_the_others_take_over_at_once_from_one_that_is_killed(node, deploy, kafka, topic):
    sent = 60
    produce(kafka, topic, sent * KEYS)
    for _ in range(2):
        sent = three_work(node, kafka, topic, sent)
        killed = sorted(working(node))[1]
        before = node.status("several").counters.done
        os.kill(killed, signal.SIGKILL)
        produce(kafka, topic, 20 * KEYS)  # there is something to do, however long the looks took
        sent += 20
        wait_for(lambda: node.status("several").counters.done > before + 50, 60, "progress beside the killed one")  # noqa: B023 - called at once
    handled(node, sent)
    assert letters(node) == []


def test_an_event_that_kills_each_worker_that_runs_it_is_given_up_after_its_attempts(node, deploy, kafka, topic):
    produce(kafka, topic, 50 * KEYS)
    sent = three_work(node, kafka, topic, 50)
    produce(kafka, topic, 1, b"-1", key="V0")
    produce(kafka, topic, 50 * KEYS)
    (letter,) = wait_for(lambda: letters(node), 120, "the dead letter")
    assert (letter.key, letter.attempts, letter.reason) == ("V0", 3, "crashed")
    handled(node, sent + 50)
    assert ended_by_it(node) == 3


def ended_by_it(node):
    """How many workers ended by an event, three at least."""
    return wait_for(lambda: (count := node.log().count("ended with exit code 9")) >= 3 and count, what="three ends")


@pytest.mark.slow
def test_a_redeploy_of_three_workers_under_load_loses_nothing(node, deploy, kafka, topic):
    stop = threading.Event()
    sent, failures, revisions = [0], [], Counter()

    def stream():
        while not stop.is_set():
            if sent[0] * KEYS < node.status("several").counters.done + 100 * KEYS:  # else there is enough to do
                produce(kafka, topic, 10 * KEYS)
                sent[0] += 10
            stop.wait(0.5)

    def calls():
        with contextlib.closing(node.connection()) as connection:
            while not stop.is_set():
                status, body, _ = ask(connection, "POST", "/who", "1", JSON)
                if status == 200:
                    revisions[json.loads(body)[1]] += 1
                else:
                    failures.append((status, body))

    threads = [threading.Thread(target=each) for each in (stream, calls, calls)]
    for each in threads:
        each.start()
    try:
        for revision in (2, 3):
            wait_for(lambda: len(working(node)) >= 3, what="three workers")
            deploy(CODE.replace("REVISION = 1", f"REVISION = {revision}"))
            wait_for(lambda: revisions[revision] > 10, what=f"answers of revision {revision}")  # noqa: B023 - called at once
    finally:
        stop.set()
        for each in threads:
            each.join()
    handled(node, sent[0])
    assert failures == []
    assert letters(node) == []
    wait_for(lambda: len(node.status("several").workers) <= 3, what="three workers at most")


def test_the_number_of_workers_changes_by_a_redeploy_and_back(node, deploy, kafka, topic):
    """One worker assigns the partitions by hand, several share them: never both at a time."""
    done = 0
    for most in (1, 3, 1):
        deploy(spec=SPEC.replace("max: 3", f"max: {most}"))
        produce(kafka, topic, 15 * most * KEYS)
        done += 15 * most
        if most == 3:
            done = three_work(node, kafka, topic, done)
        else:
            handled(node, done)
    assert letters(node) == []


def test_requests_spread_over_the_workers(node, deploy):
    pids = Counter()
    stop = threading.Event()

    def calls():
        while not stop.is_set():  # a connection each
            status, body, _ = node.http("POST", "/who", "1", JSON)
            assert status == 200
            pids[json.loads(body)[0]] += 1

    threads = [threading.Thread(target=calls) for _ in range(40)]
    for each in threads:
        each.start()
    try:
        wait_for(lambda: len(working(node)) == 3, what="three workers")
        pids.clear()
        wait_for(lambda: shared(list(pids.values())), what="answers of all three, none of them spared")
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert len(pids) == 3


def shared(answers):
    return len(answers) == 3 and sum(answers) > 300 and min(answers) > sum(answers) / 6


def test_rows_of_the_inbox_are_shared_and_one_that_kills_its_workers_is_given_up_after_its_attempts(
    node, deploy, tmp_path
):
    gate = tmp_path / "gate"
    until_open = f"while not os.path.exists({str(gate)!r}):\n        await asyncio.sleep(0.02)"
    deploy(CODE.replace("await asyncio.sleep(0.05)", until_open))

    def later(vehicle, n, name):
        headers = {**JSON, "prefer": "respond-async", "idempotency-key": name}
        while True:
            with contextlib.suppress(ConnectionError, http.client.HTTPException):  # its worker died
                status, _, _ = node.http("POST", f"/late/{vehicle}", str(n), headers)
                if status == 202:
                    return
                assert status == 503

    for number in range(10 * KEYS):
        later(f"V{number % KEYS}", 1, f"r{number}")
        if number == 6 * KEYS:
            wait_for(lambda: len(working(node)) == 3, what="three workers")
            gate.touch()
            later("V0", -1, "poison")
    (letter,) = wait_for(lambda: letters(node), 120, "the dead letter")
    assert (letter.key, letter.attempts, letter.reason) == ("V0", 3, "crashed")
    handled(node, 10)
    assert ended_by_it(node) == 3


def test_callers_with_one_key_on_several_workers_all_count(node, deploy):
    answers = []
    start = threading.Barrier(30)

    def call():
        start.wait()
        answers.extend(node.http("POST", "/add/V1", "1", JSON)[:2] for _ in range(10))

    threads = [threading.Thread(target=call) for _ in range(30)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Counter(status for status, _ in answers) == {200: 300}
    assert sorted(int(body) for _, body in answers) == list(range(1, 301))
    assert totals(node)["V1"] == 300
