"""Revisions come and go as a user has them, by `fn`: under load nothing is lost and nothing counted twice, what is
broken is refused with its reason while the old one serves, and what is deleted is gone.
"""

import json
import re
import socket
import threading
import time
from collections import Counter

import pytest
from confluent_kafka import Producer
from kafka_broker import create_topic, fresh_name, produce
from user_of_a_cluster import waited

pytestmark = pytest.mark.e2e

CALLERS = 4

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: tally}}
spec:
  handler: handler:taken
  triggers:
  - {{name: telemetry, key: data.vehicle, kafka: {{topic: {topic}}}}}
  - {{name: ask, handler: handler:asked, key: path.vehicle, http: {{path: "/tally/{{vehicle}}", methods: [POST]}}}}
  - {{name: show, handler: handler:show, key: path.vehicle, http: {{path: "/tally/{{vehicle}}", methods: [GET]}}}}
  retry: {{attempts: 1}}
  scale: {{max: 2, idle: 5s}}
"""

HANDLER = """\
import logging
import socket

from fleetfn import Reject, Response, Snapshot, State
from msgspec import Struct, field

REVISION = "one"

log = logging.getLogger("tally")


class Said(Struct):
    vehicle: str
    number: int


class Tally(Struct):
    taken: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    revisions: list[str] = field(default_factory=list)


def taken(said: Said, state: State[Tally]) -> None:
    if said.number < 0:
        raise Reject("it is negative")
    note(state.value)
    state.value.taken.append(said.number)


def asked(said: Said, state: State[Tally]) -> str:
    note(state.value)
    state.value.asked.append(said.number)
    return REVISION


def show(state: Snapshot[Tally]) -> Tally | Response:
    log.info("shown by %s", socket.gethostname())
    return state.value if state.exists else Response(404)


def note(tally: Tally) -> None:
    if REVISION not in tally.revisions:
        tally.revisions.append(REVISION)
"""


class Tally:
    """The function, in its folder; and what asks and feeds it."""

    def __init__(self, user, kafka):
        self.user, self.fn = user, user.fn
        self.kafka, self.topic = kafka, fresh_name("tally")
        create_topic(kafka, self.topic)
        self.folder = user.folder / "tally"
        self.folder.mkdir()
        self.write()

    def write(self, *changes, function=()):
        """As it is above, with changes: (old, new) texts."""
        (self.folder / "function.yaml").write_text(changed(FUNCTION.format(topic=self.topic), function))
        (self.folder / "handler.py").write_text(changed(HANDLER, changes))

    def revise(self, revision):
        self.write(('REVISION = "one"', f'REVISION = "{revision}"'))

    def ask(self, vehicle, number):
        """Status and body."""
        url = self.user.url("tally", f"/tally/{vehicle}")
        return self.user.ask(("POST", url, {"vehicle": vehicle, "number": number}))[0]

    def answers(self, revision):
        """It alone: pods of another one that end serve on for a while."""
        url = self.user.url("tally", "/tally/other")
        replies = self.user.ask(*[("POST", url, {"vehicle": "other", "number": 0})] * 8)
        return set(replies) == {(200, revision)}

    def states(self, vehicles):
        """What is known of each."""
        replies = self.user.ask(*[("GET", self.user.url("tally", f"/tally/{each}")) for each in vehicles])
        empty = {"taken": [], "asked": [], "revisions": []}
        return {
            each: json.loads(body) if status == 200 else empty
            for each, (status, body) in zip(vehicles, replies, strict=True)
        }

    def serving(self):
        """Its number and digest."""
        head = json.loads(self.user.kubectl.read("configmap", "tally")["data"]["head.json"])
        return head["number"], head["revision"]

    def send(self, vehicle, *numbers):
        records = [(vehicle, json.dumps({"vehicle": vehicle, "number": each}).encode()) for each in numbers]
        produce(self.kafka, self.topic, records)


def changed(text, changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


class Feeding:
    """Records for vehicles 0, 1, ..., numbered, about 50 a second, until closed."""

    def __init__(self, tally, vehicles):
        self.sent = Counter()
        self._tally, self._vehicles = tally, vehicles
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._feed)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self._thread.join()

    def _feed(self):
        producer = Producer({"bootstrap.servers": self._tally.kafka, "linger.ms": 1})
        while not self._enough.wait(0.1):
            for each in range(self._vehicles):
                vehicle = str(each)
                said = json.dumps({"vehicle": vehicle, "number": self.sent[vehicle]})
                producer.produce(self._tally.topic, said.encode(), vehicle)
                self.sent[vehicle] += 1
            producer.poll(0)
        assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def user(user_of, kubectl):
    return user_of(kubectl)


@pytest.fixture(scope="module")
def tally(user, kafka_address):
    made = Tally(user, kafka_address)
    made.fn("deploy", made.folder)
    return made


@pytest.fixture
def serving(tally):
    """What serves before something is refused, and has to afterwards."""
    before = tally.serving()
    yield before
    assert tally.serving() == before
    tally.revise("one")


def test_a_redeploy_and_a_rollback_under_load_lose_nothing_and_count_nothing_twice(tally):
    asking = tally.user.ask_on("tally", "/tally", CALLERS)
    with Feeding(tally, CALLERS) as feeding:
        waited(lambda: tally.states(["0"])["0"]["asked"], 60, "requests counted")
        tally.revise("two")
        tally.fn("deploy", tally.folder)
        waited(lambda: tally.answers("two"), 30, "answers by the new one alone")
        waited(lambda: "two" in tally.states(["0"])["0"]["revisions"], 60, "something counted by the new one")
        tally.fn("rollback", "tally")
        waited(lambda: tally.answers("one"), 30, "answers by the old one alone")
    asked, wrong = tally.user.asked_enough(asking)
    assert wrong == []
    vehicles = sorted(feeding.sent)
    waited(lambda: len_of_taken(tally, vehicles) == feeding.sent, 120, "all records counted")
    for vehicle, found in tally.states(vehicles).items():
        assert found["taken"] == list(range(feeding.sent[vehicle]))
        assert found["asked"] == list(range(asked[vehicle]))


def len_of_taken(tally, vehicles):
    return {vehicle: len(found["taken"]) for vehicle, found in tally.states(vehicles).items()}


NOT_DECODED = (
    ("taken: list[int] = field(default_factory=list)", "taken: dict[str, int] = field(default_factory=dict)"),
    ("taken.append(said.number)", 'taken["n"] = said.number'),
)


@pytest.mark.parametrize(
    ("changes", "function", "told"),
    [
        pytest.param(
            [("import logging", "import logging\nimport httpx")],
            [],
            ["handler.py:2: handler needs the module 'httpx', which is not installed", "requirements.txt"],
            id="a module that is not in the image",
        ),
        pytest.param(
            [],
            [("topic: tally", "topic: nowhere-tally")],
            ["topic 'nowhere-tally", "does not exist", "create it"],
            id="a topic that is not there",
        ),
        pytest.param(
            NOT_DECODED,
            [],
            ['stored state of key "', "$.taken: Expected object, got array", "__upgrade__"],
            id="stored state that it cannot decode",
        ),
    ],
)
def test_a_broken_revision_is_refused_with_its_reason_and_the_old_one_serves(tally, serving, changes, function, told):
    tally.ask("kept", 1)
    tally.write(*changes, function=function)
    complaint = tally.fn.refused("deploy", tally.folder)
    for each in (*told, "did not pass its check", f"Revision {serving[0]} ({serving[1][:12]}) goes on serving"):
        assert each in complaint
    assert tally.ask("kept", 2) == (200, "one")


def test_images_that_nodes_cannot_pull_are_told_and_what_serves_goes_on(tally, serving, registry_address):
    """The registry is reached by another address, for which nodes were not told that it speaks plain HTTP."""
    port = int(registry_address.rpartition(":")[2])
    kubectl = tally.user.kubectl
    node = kubectl.read("nodes")["items"][0]["status"]["addresses"][0]["address"]
    kubectl.apply(*elsewhere(node, port))
    address = kubectl.read("service", "elsewhere")["spec"]["clusterIP"]
    if not connects(address, port):
        pytest.skip("the registry is not on the cluster's node, or services are not reached from here")
    tally.user.add_environment("elsewhere", registry=f"{address}:{port}/{kubectl.namespace}")
    tally.revise("four")
    complaint = tally.fn.refused("deploy", tally.folder, "-E", "elsewhere")
    for each in (f"image '{address}:{port}/", "cannot be pulled", "serves on"):
        assert each in complaint
    assert tally.ask("kept", 3) == (200, "one")


def connects(address, port):
    """Within a while: a new service is not there at once."""
    limit = time.monotonic() + 15
    while time.monotonic() < limit:
        try:
            socket.create_connection((address, port), 5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False


def elsewhere(node, port):
    """A Service that leads to a port of the node."""
    ports = [{"port": port}]
    yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "elsewhere"}, "spec": {"ports": ports}}
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "elsewhere", "labels": {"kubernetes.io/service-name": "elsewhere"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [node]}],
        "ports": ports,
    }


def test_what_a_deploy_would_change_is_told_and_nothing_changed(tally, serving):
    assert "no change" in tally.fn("diff", tally.folder)
    tally.write(('REVISION = "one"', 'REVISION = "five"'), function=[("idle: 5s", "idle: 7s")])
    told = tally.fn("diff", tally.folder)
    assert "spec.scale.idle" in told
    assert "source" in told


def test_paused_by_hand_it_takes_nothing_and_resumed_all(tally):
    tally.fn("pause", "tally")
    waited(lambda: tally.ask("meanwhile", 4)[0] == 503, 30, "a refusal")  # its pods are told a moment later
    tally.send("paused", 1, 2, 3)
    status, body = tally.ask("paused", 5)
    assert status == 503
    assert "paused" in body
    assert {each["paused"] for each in tally.fn.read("describe", "tally")["triggers"]} == {True}
    tally.fn("resume", "tally")
    waited(lambda: tally.states(["paused"])["paused"]["taken"] == [1, 2, 3], 60, "records that waited")
    assert tally.states(["paused"])["paused"]["asked"] == []


def test_dead_letters_are_listed_and_redriven(tally):
    tally.send("rejects", -1)
    [letter] = waited(lambda: tally.fn.read("dlq", "list", "tally"), 60, "a dead letter")
    assert (letter["trigger"], letter["key"]) == ("telemetry", "rejects")
    assert "it is negative" in tally.fn("dlq", "show", letter["sequence"])
    waited(lambda: tally.fn.read("describe", "tally")["dead_letters"] == 1, 30, "a dead letter that is counted")
    tally.fn("dlq", "redrive", letter["sequence"])
    waited(lambda: redriven(tally, letter), 60, "another dead letter")
    tally.fn("dlq", "discard", "--function", "tally", "--yes")
    assert tally.fn.read("dlq", "list", "tally") == []


def redriven(tally, before):
    return [each for each in tally.fn.read("dlq", "list", "tally") if each["sequence"] != before["sequence"]]


def test_state_is_read_key_by_key(tally):
    tally.ask("kept", 5)
    assert "kept" in tally.fn.read("state", "list", "tally")["keys"]
    assert 5 in tally.fn.read("state", "get", "tally", "kept")["value"]["asked"]


def test_describe_tells_what_runs_on_one_screen(tally):
    counted = len(tally.states(["0"])["0"]["taken"])
    tally.user.await_sleep("tally")  # however many pods earlier load has brought up
    print(waited(lambda: described(tally), 120, "a screen that tells of the one pod and of no backlog"))
    counters = waited(lambda: counts_of(tally, counted), 60, "counters")
    assert counters["cold_starts"] > 0


def described(tally):
    """What is on the screen, once all of it is: it falls asleep soon again."""
    tally.ask("described", 1)
    screen = tally.fn("describe", "tally")
    pods = [each["metadata"]["name"] for each in tally.user.pods("tally")]
    told = ["backlog 0", "in flight", *[f"pod {name}  ready" for name in pods]]
    alone = len(pods) == 1 and screen.startswith("tally  running: 1 of 1 pods ready")
    return screen if alone and all(each in screen for each in told) else None


def counts_of(tally, least):
    found = tally.fn.read("describe", "tally")["counters"]
    return found if found["done"] > least else None


def test_logs_of_all_pods_are_followed(tally):
    tally.write(function=[("max: 2, idle: 5s", "min: 2, max: 2, idle: 5s")])
    tally.fn("deploy", tally.folder)
    pods = {each["metadata"]["name"] for each in waited(lambda: ready(tally), 180, "two pods")}
    said = set()
    following = tally.fn.start("logs", "tally", "--follow")
    with following:
        reading = threading.Thread(target=lambda: said.update(hosts(following.stdout)))
        reading.start()
        waited(lambda: tally.states(["kept"] * 8) and said >= pods, 60, "a line of each pod")
        following.terminate()
        reading.join()
    assert said == pods


def ready(tally):
    """Two pods, if they are."""
    found = [each for each in tally.user.pods("tally") if "deletionTimestamp" not in each["metadata"]]
    conditions = [each for pod in found for each in pod["status"].get("conditions", ())]
    return found if sum(each["type"] == "Ready" and each["status"] == "True" for each in conditions) == 2 else None


def hosts(lines):
    """Who has shown something, from lines of logs."""
    for line in lines:
        if found := re.search(r"shown by (\S+)", line):
            yield found[1].strip('"')


OTHER = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {{name: every-kind}}
spec:
  handler: handler:taken
  triggers:
  - {{name: telemetry, key: data.vehicle, kafka: {{topic: {topic}}}}}
  - {{name: live, key: data.vehicle, mqtt: {{topic: {topic}/live}}}}
  - {{name: ask, handler: handler:asked, key: path.vehicle, http: {{path: "/other/{{vehicle}}", methods: [POST]}}}}
  - {{name: nightly, handler: handler:passed, cron: {{schedule: "@daily"}}}}
  scale: {{max: 2, idle: 60s}}
"""


def test_what_is_deleted_leaves_nothing(tally, redis_address):
    """Neither objects nor state; another function and the gateway stay as they are."""
    kubectl, folder = tally.user.kubectl, tally.user.folder / "every-kind"
    folder.mkdir()
    (folder / "function.yaml").write_text(OTHER.format(topic=tally.topic))
    (folder / "handler.py").write_text(HANDLER + "\n\ndef passed() -> None: ...\n")
    before = everything(kubectl)
    tally.fn("deploy", folder)
    url = tally.user.url("every-kind", "/other/7")

    def all_made():
        assert tally.user.ask(("POST", url, {"vehicle": "7", "number": 1})) == [(200, "one")]  # it is not to sleep yet
        return {name.partition("/")[0] for name in everything(kubectl) - before} >= MADE

    waited(all_made, 120, "an object of every kind")
    assert keys(redis_address, f"{kubectl.namespace}*every-kind*")
    told = tally.fn.run("delete", "every-kind", "--yes").stderr
    assert "stay in Kafka (telemetry)" in told
    waited(lambda: everything(kubectl) <= before, 60, "nothing that is left")  # Kubernetes collects what hung on it
    assert keys(redis_address, f"{kubectl.namespace}*every-kind*") == []
    assert [each["name"] for each in tally.fn.read("list")] == ["tally"]


MADE = {
    "configmap",
    "deployment.apps",
    "endpointslice.discovery.k8s.io",
    "horizontalpodautoscaler.autoscaling",
    "networkpolicy.networking.k8s.io",
    "pod",
    "poddisruptionbudget.policy",
    "scaledobject.keda.sh",
    "secret",
    "service",
    "serviceaccount",
}


def everything(kubectl):
    """Names of all objects of the namespace, of whatever kind; without what happened, and turns of commands."""
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").split()
    others = {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}
    asked = ",".join(each for each in kinds if each not in others and "metrics.k8s.io" not in each)
    return set(kubectl("get", asked, "--output=name", "--ignore-not-found").split())


def keys(redis, pattern):
    """Of a Redis, by the plainest of its protocols."""
    host, _, port = redis.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection, connection.makefile("rwb") as stream:
        stream.write(f"KEYS {pattern}\r\nQUIT\r\n".encode())
        stream.flush()
        return [line for line in stream.read().decode().splitlines() if line[0] not in "*$+"]


def test_an_export_applied_by_kubectl_works_and_is_deleted_by_fn(tally, fresh_namespace):
    fresh = fresh_namespace("exported")
    tally.user.add_environment("fresh", namespace=fresh.namespace)
    before = everything(fresh)
    fresh("apply", "--filename=-", given=tally.fn("export", tally.folder, "-E", "fresh"))
    tally.fn("certificates", "-E", "fresh")
    fresh("rollout", "status", "statefulset/fleetfn-gateway", "--timeout=120s")
    url = f"http://tally.{fresh.namespace}.svc/tally/1"
    body = {"vehicle": "1", "number": 1}
    waited(lambda: tally.user.ask(("POST", url, body))[0] == (200, "one"), 180, "an answer")
    waited(lambda: tally.user.ask(("POST", url, body)) and running(tally, "fresh"), 60, "it runs, and that is told")
    tally.fn("delete", "tally", "--yes", "-E", "fresh")
    waited(lambda: all("fleetfn" in name for name in everything(fresh) - before), 60, "the gateway alone")
    assert "statefulset.apps/fleetfn-gateway" in everything(fresh)


def running(tally, environment):
    return tally.fn.read("describe", "tally", "-E", environment)["phase"] == "running"
