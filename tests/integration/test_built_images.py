"""A sample as an image, by either builder: pushed, pulled, run without privileges, fed by a real Kafka, it tells what a
node tells of the same recording; and what its bill of materials lists is what is installed in it.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import docker
import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from docker.types import Mount
from fleetfn_builder import wheel as wheels
from fleetfn_builder.assembly import anatomy
from fleetfn_spec.environments import Connection, Environment
from fleetfn_triggers.kafka_connection import KafkaConnection
from kafka_broker import create_topic, eventually, fresh_name, produce, read_all
from registry_server import fresh_repository
from running_node import RunningNode, free_port

pytestmark = [pytest.mark.docker, pytest.mark.registry, pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "battery-alert"
RECORDINGS = ROOT / ".cache" / "recordings" / "bin" / "python"
FN = Path(sys.executable).parent / "fn"

INSTALLED = """
import importlib.metadata, json
found = [(each.metadata["Name"], each.version) for each in importlib.metadata.distributions()]
print(json.dumps(found))
"""


def fn(*words, **environ):
    command = [str(FN), *map(str, words)]
    done = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def frames():
    """Some hours of four cars, two of which become too hot: (key, value) of each frame."""
    if not RECORDINGS.exists():
        text = "the recordings are not installed: scripts/recordings.sh .venv .cache/recordings"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
    script = SAMPLE.parent / "recordings" / "record.py"
    command = [RECORDINGS, script, "--vehicles", "4", "--every", "10", "--faults", "heat,runaway,spread"]
    done = subprocess.run([*command, "--late", "0.05"], capture_output=True, text=True, timeout=300, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [(line["key"], json.dumps(line["data"]).encode()) for line in lines]


class Place:
    """A copy of the sample, with topics that nobody else has."""

    def __init__(self, folder, kafka):
        self.kafka = kafka
        self.telemetry, self.alerts = fresh_name("telemetry"), fresh_name("alerts")
        for topic in (self.telemetry, self.alerts):
            create_topic(kafka, topic)
        self.folder = folder / "battery-alert"
        shutil.copytree(SAMPLE, self.folder, ignore=shutil.ignore_patterns("__pycache__", ".fleetfn"))
        file = self.folder / "function.yaml"
        text, count = re.subn(
            r"kafka: \{topic: (vehicle\.telemetry|alerts)\}",
            lambda found: (
                f"kafka: {{topic: {self.alerts}}}"
                if found[1] == "alerts"
                else f"kafka: {{topic: {self.telemetry}, start: earliest}}"
            ),
            file.read_text(),
        )
        assert count == 2
        file.write_text(text)

    def environment(self, name):
        return Environment(
            name=name, connections=[Connection(name="kafka", kafka=KafkaConnection(brokers=[self.kafka]))]
        )

    def play(self, frames, url):
        """Until state tells that each was handled."""
        produce(self.kafka, self.telemetry, frames)
        cars = {key for key, _ in frames}
        eventually(lambda: sum(handled(url, car) for car in cars) == len(frames), 120)

    def told(self):
        """(event id, vehicle, reason) of each alert in the topic, where nothing is written any more. An id names the
        topic that its cause came from: it is left out.
        """
        reader = Consumer({"bootstrap.servers": self.kafka, "group.id": self.alerts})
        try:
            ends = [reader.get_watermark_offsets(TopicPartition(self.alerts, each), 60)[1] for each in range(4)]
        finally:
            reader.close()
        found = read_all(self.kafka, self.alerts, sum(ends))
        assert len(found) == sum(ends)
        told = [
            (
                dict(message.headers())["ce_id"].decode().replace(self.telemetry, "telemetry"),
                alert["vehicle"],
                alert["reason"],
            )
            for message in found
            for alert in [json.loads(message.value())]
        ]
        return set(told)  # what is published twice is the same event


def handled(url, car):
    """Frames that the state of a car counts."""
    reply = httpx.get(f"{url}/battery/{car}", timeout=60)
    return reply.json()["frames"] if reply.status_code == 200 else 0


@pytest.fixture(scope="module")
def told_by_a_node(frames, kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    place, node = Place(folder, kafka), RunningNode(folder)
    try:
        node.start()
        _, last = node.deploy(place.folder, place.environment("node"))
        assert last.revision is not None, last
        place.play(frames, f"http://127.0.0.1:{node.port}")
        assert node.stop() == 0
    finally:
        node.close()
    return place.told()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """FleetFn's own, made once: a checkout may change while tests run."""
    return wheels.of_this_fleetfn(tmp_path_factory.mktemp("wheels"))


class Workshop:
    """One builder, an engine, a registry; what was built is built once."""

    def __init__(self, builder, folder, kafka, address, base, builder_image, registry, wheel):
        self.builder = builder
        self.folder = folder
        self.place = Place(folder, kafka)
        self.client = docker.DockerClient(base_url=address)
        self._repository = f"{registry}/{fresh_repository()}"
        self._versions = itertools.count(1)
        self._wheel = wheel
        self.environ = {"DOCKER_HOST": address, "FN_BUILD_BASE": str(base), "FN_CACHE": str(folder / "cache")}
        if builder == "buildpacks":
            self.environ["FN_BUILD_BUILDER_IMAGE"] = builder_image

    def build(self, folder, *more, **environ):
        """What `fn build` says of it. All go to one repository: the lifecycle writes its name into an image."""
        tag = f"{self._repository}:{next(self._versions)}"
        line = ["build", folder, "--builder", self.builder, "--fleetfn", self._wheel, "--tag", tag, "--push", *more]
        built = json.loads(fn(*line, "-o", "json", **self.environ | environ))
        assert built["builder"] == self.builder
        assert built["reference"] == f"{tag}@{built['digest']}"
        return built

    @cached_property
    def built(self):
        return self.build(self.place.folder, "--sbom", self.folder / "bill.json")

    @property
    def bill(self):
        assert self.built
        return json.loads((self.folder / "bill.json").read_bytes())

    @cached_property
    def image(self):
        """Out of the registry, by its digest; its id."""
        name, _, digest = self.built["reference"].partition("@")
        return self.client.images.pull(f"{name.rpartition(':')[0]}@{digest}").id

    def run(self, *words):
        """Its own Python, and what that prints; of a container that is gone."""
        said = self.client.containers.run(
            self.image, words[1:], entrypoint=words[0], network_mode="none", read_only=True, remove=True
        )
        return said.decode()

    @contextlib.contextmanager
    def running(self):
        """As anybody's tools run it; the container, and where it serves HTTP."""
        volume, port = self.client.volumes.create(), free_port()
        file = self.folder / "environments.yaml"
        connection = f"{{name: kafka, kafka: {{brokers: ['{self.place.kafka}']}}}}"
        file.write_text(
            "apiVersion: fleetfn.dev/v1alpha1\nkind: Environments\nenvironments:\n"
            f"- {{name: {self.builder}, connections: [{connection}]}}\n"
        )
        container = self.client.containers.run(
            self.image,
            ["--host", "127.0.0.1", "--port", str(port)],
            detach=True,
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="host",
            mounts=[Mount(anatomy.DATA, volume.name), Mount(anatomy.ENVIRONMENTS, str(file), "bind", read_only=True)],
        )
        try:
            yield container, f"http://127.0.0.1:{port}"
        finally:
            container.remove(force=True)
            volume.remove(force=True)

    def close(self):
        if "image" in vars(self):
            self.client.images.remove(self.image, force=True)
        self.client.close()


@pytest.fixture(scope="module", params=["direct", "buildpacks"])
def workshop(request, tmp_path_factory, kafka, docker_address, base_tarball, builder_image, registry, wheel):
    folder = tmp_path_factory.mktemp(request.param)
    made = Workshop(request.param, folder, kafka, docker_address, base_tarball, builder_image, registry, wheel)
    yield made
    made.close()


def test_an_image_tells_what_a_node_tells_of_the_same_recording(workshop, frames, told_by_a_node):
    assert {reason.partition(":")[0] for _, _, reason in told_by_a_node} >= {"over temperature", "thermal runaway"}
    with workshop.running() as (container, url):
        eventually(lambda: b"ready" in container.logs(), 120)
        container.reload()
        pid = container.attrs["State"]["Pid"]
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Uid"].split() == status["Gid"].split() == [str(anatomy.USER)] * 4
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0" * 16}
        workshop.place.play(frames, url)
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] == 0, container.logs().decode()
    assert workshop.place.told() == told_by_a_node


def test_the_bill_of_materials_lists_what_is_installed_no_more_and_no_less(workshop):
    kinds = {"pypi": set(), "deb": set()}
    for each in workshop.bill["components"]:
        kind = re.match(r"pkg:(\w+)/", each.get("purl", ""))
        if kind is not None:
            kinds[kind[1]].add((each["name"], each["version"]))
    assert kinds["pypi"] == set(map(tuple, json.loads(workshop.run(anatomy.PYTHON, "-c", INSTALLED))))
    listed = workshop.run("dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package} ${Version}\n")
    packages = {tuple(line.split()[1:]) for line in listed.splitlines() if line.startswith("ii")}
    assert kinds["deb"] == packages
    assert len(packages) > 50


def test_a_copy_elsewhere_is_the_same_image_and_after_an_edit_the_code_alone_is_another(workshop, tmp_path):
    copy = tmp_path / "elsewhere" / "copied"
    shutil.copytree(workshop.place.folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1e9, 1e9))
    as_if_nothing_was_kept = {"FN_CACHE": str(tmp_path / "cache"), "UV_CACHE_DIR": str(tmp_path / "uv")}
    again = workshop.build(copy, "--fresh", **as_if_nothing_was_kept)
    assert (again["digest"], again["unchanged"]) == (workshop.built["digest"], False)
    handler = copy / "handler.py"
    text = handler.read_text()
    handler.write_text(text.replace("WINDOW = 60.0", "WINDOW = 61.0"))
    assert handler.read_text() != text
    edited = workshop.build(copy, **as_if_nothing_was_kept)
    both = zip(again["layers"], edited["layers"], strict=True)
    assert [one["name"] for one, other in both if one["digest"] != other["digest"]] == ["code"]
