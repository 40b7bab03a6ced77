"""A pod's worker on Kafka: checked before it is the first, killed, and without its gateway for a while."""

import asyncio
import contextlib
import json
import tempfile
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from fleetfn_spec.load import load_function
from kafka_broker import Broker, committed, create_topic, fresh_name, produce
from pod_process import Cluster, Pod
from tls_gateway import TlsGateway

pytestmark = [pytest.mark.kafka, pytest.mark.node]

LIMIT = 60.0
IMPATIENT = (
    "min.session.timeout.ms=1000",
    "session.timeout.ms=3000",
    "min.heartbeat.interval.ms=500",
    "heartbeat.interval.ms=500",
)

CODE = """
def note(n: int) -> None:
    with open("seen", "a") as file:
        print(n, file=file)
"""


class Here:
    """A function of one Kafka trigger, its pod and its gateway."""

    def __init__(self, folder, run, kafka, topic):
        host, _, port = kafka.rpartition(":")
        self.kafka, self.topic = kafka, topic
        self.cluster = Cluster(folder)
        self.secret = folder / "password"
        self.secret.write_text("fn-secret")
        self.connection = {
            "name": "kafka",
            "kafka": {
                "brokers": [f"{host}:{int(port) + 2}"],
                "sasl": {"mechanism": "SCRAM-SHA-512", "username": "fn", "password": {"file": str(self.secret)}},
            },
        }
        prod = {"name": "prod", "target": {"node": {}}, "connections": [self.connection]}
        environments = {"apiVersion": "fleetfn.dev/v1alpha1", "kind": "Environments", "environments": [prod]}
        name = fresh_name("notes")[:40].rstrip("-")
        self.pod = Pod(self.cluster, CODE, function(name, topic), environments)
        self.group = f"prod/alerts/{name}/telemetry"
        self.gateway = TlsGateway(
            folder / "inbox",
            run / "g",
            port=self.cluster.port,
            certificates=self.cluster.gateway,
            worker=self.pod.place,
        )

    def send(self, *numbers):
        produce(self.kafka, self.topic, [(str(number), str(number).encode()) for number in numbers])

    def seen(self):
        path = self.pod.folder / "seen"
        return {int(each) for each in path.read_text().split()} if path.exists() else set()

    async def sees(self, *numbers):
        await until(lambda: self.seen() == set(numbers))

    async def check(self):
        return await asyncio.to_thread(self.pod.check)


def function(name, topic):
    trigger = {"name": "telemetry", "key": None, "kafka": {"topic": topic}}
    return {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"handler": "handler:note", "triggers": [trigger]},
    }


async def until(condition):
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - of other processes
            await asyncio.sleep(0.02)


@contextlib.contextmanager
def commits(kafka, group):
    """A callable: what the group has committed since it was last called, each a key of Kafka's own topic of offsets."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": fresh_name()})
    topic = "__consumer_offsets"
    try:
        numbers = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, each), 30)[1] for each in numbers]
        consumer.assign([TopicPartition(topic, *each) for each in zip(numbers, ends, strict=True)])

        def news():
            found = [each.key() for each in consumer.consume(100, 0.1) if each.error() is None and each.value()]
            # an offset's key is a version (0 or 1), then group, topic and partition
            return [each for each in found if each[:2] in (b"\0\0", b"\0\1") and group.encode() in each]

        yield news
    finally:
        consumer.close()


@pytest.fixture
async def here(tmp_path, kafka, topic):
    async with running(tmp_path, kafka, topic) as here:
        yield here


@contextlib.asynccontextmanager
async def running(folder, kafka, topic):
    with tempfile.TemporaryDirectory(prefix="fn-") as run:
        here = Here(folder, Path(run), kafka, topic)
        await here.gateway.start().serving()
        try:
            yield here
        finally:
            here.pod.close()
            await here.gateway.close()


@pytest.fixture
def impatient_broker(kafka, tmp_path):
    """It gives up a member that is silent after 3 s, not 45."""
    lines = (f"group.consumer.{each}" for each in IMPATIENT)
    broker = Broker(tmp_path / "broker", "\n".join(lines))
    broker.start()
    yield broker
    broker.stop()


async def test_nothing_after_the_check_is_missed_and_nothing_before_it_taken(here):
    here.send(1, 2)
    code, out, err = await here.check()
    assert (code, json.loads(out)["ready"]) == (0, True), err
    assert sum(committed(here.kafka, here.group, here.topic)) == 2
    here.send(3)
    here.pod.start()
    await here.sees(3)
    here.send(4)
    await here.sees(3, 4)
    assert await asyncio.to_thread(here.pod.stop) == 0
    assert sum(committed(here.kafka, here.group, here.topic)) == 4


async def test_who_comes_after_one_that_was_killed_goes_on_where_it_was(impatient_broker, tmp_path):
    topic = fresh_name()
    create_topic(impatient_broker.address, topic)
    async with running(tmp_path, impatient_broker.address, topic) as here:
        await here.check()
        here.send(*range(50))
        here.pod.start()
        await until(here.seen)
        here.pod.kill()
        here.send(50)
        here.pod.start()
        await here.sees(*range(51))


async def test_without_its_gateway_it_takes_nothing_from_kafka_until_it_is_back(here):
    await here.check()
    await here.gateway.kill()
    here.send(1)
    await asyncio.to_thread(here.pod.start().ready)
    await here.gateway.start().serving()
    await here.sees(1)


async def test_a_trigger_that_is_paused_takes_nothing_before_it_is_told_so(here):
    await here.check()
    await here.gateway.tell(load_function(here.pod.folder), here.pod.folder, paused=("telemetry",))
    here.send(1)
    await asyncio.to_thread(here.pod.start().ready)
    client = here.pod.client()
    async with asyncio.timeout(LIMIT):
        while b"telemetry" not in (await client.request("GET", "/activity")).body:  # noqa: ASYNC110 - of the pod
            await asyncio.sleep(0.02)
    assert (await client.request("POST", "/resume", b"{}")).status == 204
    await client.close()
    await here.sees(1)


async def test_who_is_woken_commits_anew_where_it_stands_also_while_its_trigger_is_paused(here):
    await here.check()
    await here.gateway.tell(load_function(here.pod.folder), here.pod.folder, paused=("telemetry",))
    with commits(here.kafka, here.group) as news:
        await asyncio.to_thread(here.pod.start().ready)
        places = set()

        def all_told():
            places.update(news())
            return len(places) == 4

        await until(all_told)
    assert here.seen() == set()


async def test_what_its_deploy_has_put_beside_it_is_taken_as_it_is(here):
    await here.check()
    head = {"function": load_function(here.pod.folder)}
    here.pod.environments.with_name("head.json").write_bytes(msgspec.json.encode(head))
    (here.pod.folder / "function.yaml").unlink()
    here.pod.start()
    here.send(1)
    await here.sees(1)


async def test_a_check_says_who_refuses(here):
    here.secret.write_text("wrong")
    code, out, err = await here.check()
    assert (code, out) == (1, "")
    assert "refuse us" in err
    assert "check tls and sasl of the connection in environments.yaml" in err
