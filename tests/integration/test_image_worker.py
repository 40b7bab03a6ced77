"""A function's image, run as anywhere: read-only, as nobody, without privileges or a shell; by `fn run`, or by hand."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import docker
import pytest
from confluent_kafka import Producer
from docker.types import Mount
from fleetfn_builder import lifecycle_run
from fleetfn_builder.assembly import anatomy

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FN = Path(sys.executable).parent / "fn"

CACHE = Path(__file__).parents[2] / ".cache" / "buildpacks"
"""Of the lifecycle's programs, which Go takes minutes to build."""

BUILDER = "fleetfn-tests/worker-builder:1"

HANDLER = '''
import os, pathlib, time
from fleetfn import Request, Response, State


def add(n: int, state: State[dict[str, int]]) -> int:
    print("adding", n)
    if n == 100:
        time.sleep(1)
    state.value["n"] = state.value.get("n", 0) + n
    return state.value["n"]


def about(request: Request) -> dict:
    """Of the process that runs this."""
    status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "capabilities": [status[name] for name in ("CapEff", "CapPrm", "CapBnd")],
        "no_new_privileges": status["NoNewPrivs"],
        "home": os.environ.get("HOME", ""),
        "writable": [place for place in ("/", "/workspace", "/etc", "/layers", "/data") if _is_writable(place)],
    }


def _is_writable(place: str) -> bool:
    try:
        path = pathlib.Path(place, "tried")
        path.touch()
        path.unlink()
    except OSError:
        return False
    return True


def plain(n: int) -> int:
    return n
'''

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: adder}
spec:
  handler: handler:add
  triggers:
  - {name: add, key: path.car, http: {path: "/add/{car}"}}
  - {name: about, handler: handler:about, http: {path: /about, methods: [GET]}}
"""

KAFKA = """
  - {name: numbers, key: kafka.key, kafka: {topic: %s, start: earliest}}
"""

PLAIN = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: plain}
spec:
  handler: handler:plain
  triggers:
  - {name: web, http: {path: /plain}}
"""


class Workshop:
    """Builds images in an engine, each function once, and takes away what was made."""

    def __init__(self, folder, base, address, builder):
        self.folder = folder
        self.environ = {
            **os.environ,
            "FN_CACHE": str(folder / "cache"),
            "FN_BUILD_BASE": str(base),
            "FN_BUILD_BUILDER": builder,
            "DOCKER_HOST": address,
        }
        if builder == "buildpacks":
            self.environ |= {"FN_CACHE": str(CACHE), "FN_BUILD_BUILDER_IMAGE": BUILDER}
            self.fn("builder", "create", BUILDER, "--base", base)
        self.client = docker.DockerClient(base_url=address)
        self.mark = f"fn-test-{os.getpid()}"
        self._images = []

    def write(self, name, function):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "handler.py").write_text(HANDLER)
        (folder / "function.yaml").write_text(function)
        return folder

    def build(self, name, function):
        image = f"{self.mark}-{name}:1"
        self._images.append(image)
        return json.loads(self.fn("build", self.write(name, function), "-t", image, "-o", "json"))["reference"]

    def fn(self, *line):
        done = subprocess.run([FN, *line], env=self.environ, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextlib.contextmanager
    def by_hand(self, image, **more):
        """A container as somebody else's tools would make it, on no network."""
        options = {"read_only": True, "cap_drop": ["ALL"], "network_mode": "none", **more}
        container = self.client.containers.run(image, detach=True, **options)
        try:
            yield container
        finally:
            container.remove(force=True, v=True)

    def close(self):
        for name in self._images:
            self.client.images.remove(name, force=True)
        kept = {lifecycle_run.volume(name) for name in ("adder", "counter", "plain")}
        for volume in self.client.volumes.list():
            if volume.name.startswith(self.mark) or volume.name in kept:
                volume.remove(force=True)
        self.client.close()


@pytest.fixture(scope="module", params=["direct", "buildpacks"])
def workshop(request, docker_address, base_tarball, tmp_path_factory):
    made = Workshop(tmp_path_factory.mktemp("images"), base_tarball, docker_address, request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def adder(workshop):
    return workshop.build("adder", FUNCTION)


class Running:
    """`fn run`, on the machine's network: an engine for tests has no other."""

    def __init__(self, workshop, what, *line, volume="state"):
        self.volume = f"{workshop.mark}-{volume}"
        self.process = subprocess.Popen(
            [FN, "run", what, "--network", "host", "--port", "0", "--volume", self.volume, *line],
            env=workshop.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(self.process.stdout))
        self._reader.start()

    @property
    def text(self):
        return "".join(self.said)

    @property
    def url(self):
        until(lambda: "ready\n" in self.said or self.process.poll() is not None)
        assert "ready\n" in self.said, self.text
        return re.search(r"(http://\S+), state in the volume", self.text)[1]

    def ask(self, path, body=None, headers=None):
        asked = urllib.request.Request(self.url + path, body, headers or {})  # noqa: S310 - our own address
        with urllib.request.urlopen(asked, timeout=60) as reply:  # noqa: S310 - as above
            return reply.read()

    def join(self):
        """Until all that it said was read."""
        self._reader.join()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self._reader.join()
        self.process.stdout.close()


def until(true, limit=60.0):
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_it_runs_as_nobody_read_only_without_privileges_and_says_how_it_is(workshop, adder):
    with Running(workshop, adder) as one:
        assert json.loads(one.ask("/-/healthz")) == {"status": "ok"}
        assert json.loads(one.ask("/-/readyz")) == {"status": "ready"}
        about = json.loads(one.ask("/about"))
        assert (about["uid"], about["gid"]) == (65532, 65532)
        assert set(about["capabilities"]) == {"0" * 16}
        assert about["no_new_privileges"] == "1"
        assert about["writable"] == ["/data"]
        done = 'fleetfn_invocations_total{function="adder",outcome="done",trigger="about"} 1.0'
        until(lambda: done in one.ask("/-/metrics").decode())
        assert one.stop(signal.SIGINT) == 0
    assert "draining: SIGTERM" in one.text
    assert not workshop.client.containers.list(all=True, filters={"name": "fleetfn-adder"})


def test_state_outlives_the_container_and_what_is_under_way_ends_first(workshop, adder):
    with Running(workshop, adder, volume="kept") as one:
        assert one.ask("/add/a", b"2") == b"2"
        answers = []
        asking = threading.Thread(target=lambda: answers.append(one.ask("/add/a", b"100")))
        asking.start()
        until(lambda: "adding 100" in one.text)
        assert one.stop() == 0
        asking.join()
    assert answers == [b"102"]
    with Running(workshop, adder, volume="kept") as other:
        assert other.ask("/add/a", b"1") == b"103"
        assert other.stop() == 0


def test_what_was_accepted_outlives_a_container_that_is_killed(workshop, adder):
    later = {"prefer": "respond-async"}
    with Running(workshop, adder, volume="killed") as one:
        assert one.ask("/add/a", b"2", later).startswith(b'{"id"')
        assert one.ask("/add/a", b"100", later).startswith(b'{"id"')
        until(lambda: "adding 100" in one.text)
        workshop.client.containers.get("fleetfn-adder").kill()
        assert one.process.wait(60) == 1
        one.join()
    assert "ended with exit code 137" in one.text
    with Running(workshop, adder, volume="killed") as other:
        until(lambda: other.ask("/add/a", b"0") == b"102")
        assert other.stop() == 0


def test_callers_must_present_the_key_that_is_mounted(workshop, adder, tmp_path):
    (tmp_path / "key").write_text("secret")
    (tmp_path / "key").chmod(0o444)
    tmp_path.chmod(0o755)
    asking = (
        "import urllib.request, urllib.error\n"
        "def ask(path, **headers):\n"
        "    asked = urllib.request.Request('http://127.0.0.1:8080' + path, headers=headers)\n"
        "    try: return urllib.request.urlopen(asked, timeout=60).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        "key = {'authorization': 'Bearer secret'}\n"
        "print(ask('/-/readyz'), ask('/-/metrics'), ask('/about'), ask('/-/metrics', **key), ask('/about', **key))"
    )
    mounts = [Mount("/data", f"{workshop.mark}-key"), Mount("/run/key", str(tmp_path / "key"), "bind", read_only=True)]
    with workshop.by_hand(adder, mounts=mounts, environment={"FLEETFN_KEY_FILE": "/run/key"}) as container:
        until(lambda: b"ready" in container.logs())
        status, said = container.exec_run([anatomy.PYTHON, "-c", asking])
    assert (status, said.split()) == (0, [b"200", b"401", b"401", b"200", b"200"]), said


def test_a_folder_is_built_first(workshop):
    folder = workshop.write("plain", PLAIN)
    with Running(workshop, folder, volume="plain") as one:
        assert one.ask("/plain", b"7") == b"7"
        assert one.stop() == 0
    workshop.client.images.remove("plain:latest", force=True)


@pytest.mark.kafka
def test_connections_that_are_given_reach_it(workshop, kafka, topic):
    image = workshop.build("counter", FUNCTION.replace("adder", "counter") + KAFKA % topic)
    producer = Producer({"bootstrap.servers": kafka})
    producer.produce(topic, b"5", key=b"V1")
    assert producer.flush(60) == 0
    with Running(workshop, image, "--connection", f"kafka={kafka}", volume="counter") as one:
        until(lambda: int(one.ask("/add/V1", b"0")) == 5)
        assert one.stop() == 0


def test_without_a_volume_it_refuses_to_start_and_says_what_to_mount(workshop, adder):
    with workshop.by_hand(adder) as container:
        assert container.wait(timeout=90)["StatusCode"] == 2
        said = container.logs().decode()
    assert "nothing is mounted at /data" in said
    assert "docker run -v adder:/data" in said
    assert "Traceback" not in said


def test_it_needs_no_shell_and_no_folder_for_temporary_files(workshop, adder):
    mounts = [
        Mount("/data", f"{workshop.mark}-bare"),
        *(Mount(shell, "/dev/null", "bind", read_only=True) for shell in ("/bin/sh", "/bin/bash")),
    ]
    with workshop.by_hand(adder, mounts=mounts) as container:
        until(lambda: b"ready" in container.logs())
        assert b"/dev/shm/fleetfn-" in container.logs()
        container.kill("SIGTERM")
        assert container.wait(timeout=90)["StatusCode"] == 0


def test_one_without_state_needs_no_volume_where_a_gateway_runs(workshop, adder):
    image = workshop.build("plain", PLAIN)
    shared = f"{workshop.mark}-gateway"
    gateway = ["-m", "fleetfn_gateway", "--data", "/data/gateway", "--socket", "/data/gateway.sock"]
    named = {
        "environment": {"FLEETFN_GATEWAY": "/shared/gateway.sock"},
        "mounts": [Mount("/shared", shared)],
    }
    with workshop.by_hand(
        image,
        entrypoint=[anatomy.PYTHON, *gateway, "--worker", "/data/deliver.sock"],
        environment=anatomy.ENVIRONMENT,
        mounts=[Mount("/data", shared)],
    ) as there:
        until(lambda: b"the gateway is up" in there.logs())
        with workshop.by_hand(image, **named) as one:
            until(lambda: b"ready" in one.logs())
        with workshop.by_hand(adder, **named) as other:
            assert other.wait(timeout=90)["StatusCode"] == 1
            assert b"adder keeps state, which would be gone with the container" in other.logs()
