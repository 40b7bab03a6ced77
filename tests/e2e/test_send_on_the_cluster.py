"""`fn send` to a Kafka trigger of a cluster: the function's own worker writes, also one that fell asleep in between."""

import json
import subprocess
from collections import defaultdict

import pytest
from confluent_kafka import Consumer, TopicPartition
from fn_command import FN
from kafka_broker import create_topic, fresh_name, read_all
from user_of_a_cluster import waited

pytestmark = pytest.mark.e2e

VEHICLES = 20
COUNT = 3000

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: echo}}
spec:
  handler: handler:echo
  triggers:
  - {{name: telemetry, key: data.vehicle, kafka: {{topic: {telemetry}}}}}
  - {{name: nightly, handler: handler:tick, cron: {{schedule: "30 2 29 2 *"}}}}
  outputs:
  - {{name: heard, kafka: {{topic: {heard}}}}}
  returns: heard
  scale: {{idle: 3s}}
"""

HANDLER = """\
from fleetfn import Tick


def echo(data: dict) -> dict:
    return {"number": data["number"]}


def tick(tick: Tick) -> None: ...
"""


class Echo:
    """The function, deployed; its topics."""

    def __init__(self, user, kafka):
        self.user, self.fn, self.kafka = user, user.fn, kafka
        self.telemetry, self.heard = fresh_name("telemetry"), fresh_name("heard")
        for topic in (self.telemetry, self.heard):
            create_topic(kafka, topic)
        folder = user.folder / "echo"
        folder.mkdir()
        (folder / "function.yaml").write_text(FUNCTION.format(telemetry=self.telemetry, heard=self.heard))
        (folder / "handler.py").write_text(HANDLER)
        self.fn("deploy", folder)

    def count(self, topic):
        reader = Consumer({"bootstrap.servers": self.kafka, "group.id": topic})
        try:
            return sum(reader.get_watermark_offsets(TopicPartition(topic, each), 60)[1] for each in range(4))
        finally:
            reader.close()

    def records(self):
        return read_all(self.kafka, self.telemetry, self.count(self.telemetry))

    def send(self, *words, given=None):
        return json.loads(self.fn("send", "echo", "--trigger", "telemetry", *words, "-o", "json", given=given))


def data(number):
    return {"vehicle": f"v{number % VEHICLES}", "number": number}


@pytest.fixture(scope="module")
def echo(user_of, kubectl, kafka_address):
    return Echo(user_of(kubectl), kafka_address)


def test_a_recording_wakes_the_function_and_arrives_once_in_order_with_keys_of_the_trigger(echo):
    echo.user.await_sleep("echo")
    recording = echo.user.folder / "recording.jsonl"
    recording.write_text("".join(json.dumps(data(each)) + "\n" for each in range(COUNT)))
    last = echo.send("--recording", recording)
    assert (last["sent"], last["finished"]) == (COUNT, True)
    found = defaultdict(list)
    for each in echo.records():
        found[each.key().decode()].append(json.loads(each.value())["number"])
    assert found == {f"v{each}": list(range(each, COUNT, VEHICLES)) for each in range(VEHICLES)}
    waited(lambda: echo.count(echo.heard) >= COUNT, 180, "all handled")


def test_it_may_fall_asleep_while_its_sender_pauses(echo):
    before = echo.count(echo.telemetry)
    sending = subprocess.Popen(
        [FN, "send", "echo", "-t", "telemetry", "--recording", "-", "-o", "json"],
        cwd=echo.fn.folder,
        env=echo.fn.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for each in range(2):
        sending.stdin.write(json.dumps(data(each)) + "\n")
        sending.stdin.flush()
        waited(lambda count=before + each + 1: echo.count(echo.telemetry) == count, 90, "the item written")
        echo.user.await_sleep("echo")
    text, _ = sending.communicate(timeout=180)
    assert (json.loads(text)["sent"], sending.returncode) == (2, 0)
    assert echo.count(echo.telemetry) == before + 2


def test_headers_keys_events_and_tombstones_are_as_on_a_node(echo):
    before = len(echo.records())
    event = {"id": "1", "source": "s", "type": "t", "data": data(7)}
    lines = [
        {"key": "own", "data": data(1), "headers": {"trace": "ü"}},
        {"event": event},
        {"key": "gone", "data": None},
    ]
    assert echo.send("--recording", "-", given="".join(json.dumps(each) + "\n" for each in lines))["sent"] == 3
    records = sorted(echo.records(), key=lambda each: each.timestamp()[1])[before:]
    found = {each.key().decode(): each for each in records}
    assert dict(found["own"].headers()) == {"content-type": b"application/json", "trace": "ü".encode()}
    assert dict(found["v7"].headers())["content-type"].startswith(b"application/cloudevents+json")
    assert json.loads(found["v7"].value()) == {"specversion": "1.0", **event}
    assert found["gone"].value() is None


def test_what_the_broker_does_not_take_is_told_with_what_was_sent(echo):
    large = echo.user.folder / "large.jsonl"
    items = [data(1), {**data(2), "more": "x" * 2_000_000}, data(3)]
    large.write_text("".join(json.dumps(each) + "\n" for each in items))
    before = echo.count(echo.telemetry)
    told = echo.fn.refused("send", "echo", "-t", "telemetry", "--recording", large)
    assert "a record of 20000" in told
    assert "(1 were sent)" in told
    assert echo.count(echo.telemetry) == before + 1
