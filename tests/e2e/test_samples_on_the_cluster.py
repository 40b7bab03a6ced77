"""The samples by `fn deploy`: no pod before there is something to do, each kind of event brings theirs up, alerts,
warnings and reports come out, and no pod is left. Of one recording a cluster tells what a node tells.
"""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from fn_command import Fn, write_environments
from kafka_broker import create_topic, fresh_name, produce, read_all
from mqtt_broker import Sent, Watcher, publish
from user_of_a_cluster import waited

pytestmark = pytest.mark.e2e

SAMPLES = Path(__file__).parents[2] / "samples"
RECORDINGS = SAMPLES.parent / ".cache" / "recordings" / "bin" / "python"
NODE_PORT = 21400
REPORTS = "/tmp/reports"
"""In the pod; the sample's folder of reports."""


def record(script, *options):
    """A process that writes a recording."""
    if not RECORDINGS.exists():
        text = "the recordings are not installed: scripts/recordings.sh .venv .cache/recordings"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    command = [RECORDINGS, SAMPLES / "recordings" / script, "--vehicles", "4", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def lines(recording):
    text, _ = recording.communicate(timeout=120)
    assert recording.returncode == 0
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def recordings():
    """Frames and tyre messages of four cars, two of which become too hot and two of which lose air. Begun before the
    first deploy, which takes as long.
    """
    frames = record("record.py", "--every", "10", "--faults", "heat,runaway,spread", "--late", "0.05")
    return frames, record("tyres.py", "--faults", "fast,low")


@pytest.fixture(scope="module")
def frames(recordings, deployed):
    return lines(recordings[0])


@pytest.fixture(scope="module")
def messages(recordings, deployed):
    return lines(recordings[1])


class Topics:
    """Names that nobody else has, and samples that use them."""

    def __init__(self, kafka):
        self.kafka = kafka
        self.mqtt = fresh_name("mqtt")
        self.names = {each: fresh_name(each) for each in ("vehicle.telemetry", "alerts", "fleet.reports")}
        for topic in self.names.values():
            create_topic(kafka, topic)

    def sample(self, name, folder):
        """A copy of it."""
        copy = folder / name
        shutil.copytree(SAMPLES / name, copy, ignore=shutil.ignore_patterns("__pycache__", ".fleetfn"))
        file = copy / "function.yaml"
        text, places = re.subn(r"topic: ([\w.]+)", lambda found: f"topic: {self.names[found[1]]}", file.read_text())
        text, more = re.subn('topic: "', f'topic: "{self.mqtt}/', text)
        assert places + more == 2
        file.write_text(text)
        return copy

    def play(self, frames):
        produce(self.kafka, self.names["vehicle.telemetry"], [(each["key"], encoded(each)) for each in frames])

    def told(self, name):
        """All that is in a topic by now: data by CloudEvents id. What is published twice is the same event."""
        topic = self.names[name]
        reader = Consumer({"bootstrap.servers": self.kafka, "group.id": topic})
        try:
            ends = [reader.get_watermark_offsets(TopicPartition(topic, each), 60)[1] for each in range(4)]
        finally:
            reader.close()
        found = read_all(self.kafka, topic, sum(ends))
        return {dict(each.headers())["ce_id"].decode(): json.loads(each.value()) for each in found}

    def alerts(self):
        """(event id, vehicle, reason) of each; the topic in an id, that its cause came from, is left out."""
        telemetry = self.names["vehicle.telemetry"]
        return {
            (id_.replace(telemetry, "telemetry"), each["vehicle"], each["reason"])
            for id_, each in self.told("alerts").items()
        }


def encoded(line):
    return json.dumps(line["data"]).encode()


@pytest.fixture(scope="module")
def topics(kafka_address):
    return Topics(kafka_address)


@pytest.fixture(scope="module")
def user(user_of, kubectl):
    return user_of(kubectl, TRIP_REPORTS=REPORTS)


@pytest.fixture(scope="module")
def deployed(recordings, user, topics):
    """All three, the first one alone: it brings the gateway."""
    first, *others = [topics.sample(each, user.folder) for each in ("battery-alert", "trip-report", "tyre-pressure")]
    user.fn("deploy", first)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda folder: user.fn("deploy", folder), others))
    return user


@pytest.fixture(scope="module")
def told_by_a_node(frames, kafka_address, tmp_path_factory):
    """Alerts of the same recording."""
    folder = tmp_path_factory.mktemp("node")
    topics = Topics(kafka_address)
    write_environments(
        folder,
        {
            "name": "node",
            "target": {"node": {}},
            "connections": [{"name": "kafka", "kafka": {"brokers": [kafka_address]}}],
        },
    )
    with tempfile.TemporaryDirectory(prefix="fn-") as run:
        fn = Fn(
            folder, {"FN_ENV": "node", "FN_NODE": folder.name, "FN_DATA": str(folder / "data"), "XDG_RUNTIME_DIR": run}
        )
        fn("up", "--port", NODE_PORT)
        try:
            fn("deploy", topics.sample("battery-alert", folder))
            topics.play(frames)
            cars = {each["key"] for each in frames}
            waited(lambda: sum(map(handled_by_a_node, cars)) == len(frames), 180, "all frames handled")
        finally:
            fn("down")
    return topics.alerts()


def handled_by_a_node(car):
    reply = httpx.get(f"http://127.0.0.1:{NODE_PORT}/battery/{car}", timeout=20)
    return reply.json()["frames"] if reply.status_code == 200 else 0


def handled(user, cars):
    """Frames that the states of cars count."""
    replies = user.ask(*[("GET", user.url("battery-alert", f"/battery/{car}")) for car in cars])
    return sum(json.loads(body)["frames"] for status, body in replies if status == 200)


def test_no_pod_runs_after_the_deploy(deployed):
    names = ("battery-alert", "trip-report", "tyre-pressure")
    deployed.await_sleep(*names)
    waited(lambda: all_sleep(deployed, names), 30, "all asleep, and that is told")


def all_sleep(user, names):
    """What is listed of each, once they do."""
    listed = {each["name"]: each for each in user.fn.read("list")}
    return listed if {listed[name]["phase"] for name in names} == {"sleeping"} else None


def test_a_kafka_record_wakes_and_a_recording_tells_what_a_node_tells_of_it(deployed, topics, frames, told_by_a_node):
    deployed.await_sleep("battery-alert", "trip-report")
    topics.play(frames)
    for name in ("battery-alert", "trip-report"):
        deployed.await_waking(name)
    cars = sorted({each["key"] for each in frames})
    waited(lambda: handled(deployed, cars) == len(frames), 180, "all frames handled")
    assert {reason.partition(":")[0] for _, _, reason in told_by_a_node} >= {"over temperature", "thermal runaway"}
    waited(lambda: topics.alerts() >= told_by_a_node, 60, "alerts")  # they leave once the states are saved
    assert topics.alerts() == told_by_a_node


def test_an_mqtt_message_wakes_and_warnings_come_out(deployed, topics, messages, mosquitto_address):
    deployed.await_sleep("tyre-pressure")
    sent = [Sent(f"{topics.mqtt}/vehicles/{each['key']}/tyres", encoded(each)) for each in messages]
    with Watcher(mosquitto_address, f"{topics.mqtt}/fleet/+/tyre-warnings") as watcher:
        publish(mosquitto_address, sent)
        deployed.await_waking("tyre-pressure")
        kinds = waited(lambda: warned(watcher) >= {"fast", "low"} and warned(watcher), 120, "warnings")
    assert kinds == {"fast", "low"}


def warned(watcher):
    events = [json.loads(each.payload) for each in watcher.messages]
    return {each.get("data", each)["kind"] for each in events}


def test_a_request_wakes_and_is_answered(deployed):
    deployed.await_sleep("tyre-pressure")
    [(status, body)] = deployed.ask(("GET", deployed.url("tyre-pressure", "/tyres/nobody")))
    assert (status, json.loads(body)) == (404, {"error": "no message of this vehicle yet"})
    assert deployed.pods("tyre-pressure")


def test_a_fire_wakes_and_the_report_comes_out(deployed, topics, frames):
    """After the frames of the recording, by their order in this file."""
    cars = {each["key"] for each in frames}
    day = frames[0]["data"]["ts"][:10]
    deployed.await_sleep("trip-report")
    deployed.fn("trigger", "fire", "trip-report", "--at", "2026-01-06T02:30Z")
    deployed.await_waking("trip-report")
    [report] = waited(lambda: topics.told("fleet.reports"), 120, "a report").values()
    assert report["day"] == day
    assert {each["vehicle"] for each in report["cars"]} == cars
    [pod] = deployed.pods("trip-report")
    written = deployed.kubectl.exec(pod["metadata"]["name"], "cat", f"{REPORTS}/fleet-{day}.json", container="worker")
    assert json.loads(written) == report


def test_in_the_end_no_pod_is_left_and_all_is_counted_and_nothing_given_up(deployed, frames, messages):
    names = ("battery-alert", "trip-report", "tyre-pressure")
    deployed.await_sleep(*names)
    listed = waited(lambda: all_sleep(deployed, names), 30, "all asleep, and that is told")
    assert {each["dead_letters"] for each in listed.values()} == {0}
    done = {name: listed[name]["counters"]["done"] for name in names}
    # At least: questions for what became of them, and what is handed over again when a partition moves, count, too.
    assert done["battery-alert"] >= len(frames)
    assert done["trip-report"] >= len(frames) + 1
    assert done["tyre-pressure"] >= len(messages) + 1
