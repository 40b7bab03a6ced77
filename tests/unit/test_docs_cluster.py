"""The pages about clusters say what the code does: rights, bounds, figures and messages."""

import ast
import re
from types import SimpleNamespace

import pytest
import yaml
from documents import ROOT, blocks
from fleetfn_deploy.kubernetes import gateway_objects, pki, preflight, revisions, rights, turns, worker_pod
from fleetfn_gateway import __main__ as gateway_main
from fleetfn_gateway import queue_space
from fleetfn_gateway.cluster import activator, health, secret_files
from fleetfn_gateway.mqtt_names import client_id
from fleetfn_spec import kubernetes
from fleetfn_spec.cluster import ACTIVATOR_PORTS, HEALTH_PORT, INBOX_PORT, SCALER_PORT
from fleetfn_spec.function import Scale
from fleetfn_triggers import kafka_scaler

GATEWAY = gateway_main._parser().parse_args(["--data", "data", "--socket", "socket"])
PLACE = kubernetes.GatewayPlace()
WORKER, SIDECAR = kubernetes.WORKER, kubernetes.SIDECAR
MIB = 1 << 20
YEARS = pki.LIFE.days // 365


def dotted(version):
    return ".".join(map(str, version))


def test_the_role_on_the_page_is_what_a_deploy_asks_for():
    (shown,) = [block.text for block in blocks("docs/cluster.md") if block.note == "role"]
    assert yaml.safe_load(shown)["rules"] == yaml.safe_load("\n".join(rights.role(rights.NEEDS)))


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("cluster", f"Kubernetes {dotted(preflight.SERVER)} or later"),
        ("cluster", f"KEDA](https://keda.sh/docs/latest/deploy/) {dotted(preflight.KEDA)} or later"),
        ("cluster", {2: "serve on for two seconds"}[worker_pod.MOVING]),
        ("cluster", f"the last {revisions.KEPT} are kept"),
        ("cluster-objects", f"longest `timeout` and {worker_pod.MOVING + worker_pod._MARGIN} s more"),
        ("scaling-in-a-cluster", f"longest `timeout` and {worker_pod.MOVING + worker_pod._MARGIN} s more"),
        ("scaling-in-a-cluster", f"serves on for {worker_pod.MOVING} s"),
        ("scaling-in-a-cluster", f"keda: {{polling: {kubernetes.Keda().polling}}}"),
        ("scaling-in-a-cluster", f"for `scale.idle` ({Scale().idle[:-1]} s)"),
        ("scaling-in-a-cluster", {2: "twice `scale.concurrency` of lag"}[kafka_scaler._AHEAD]),
        ("scaling-in-a-cluster", f"{2 * Scale().concurrency} records with the default of {Scale().concurrency}"),
        ("scaling-in-a-cluster", f"{activator.WAITING:,} for a function, {activator.KEPT // MIB} MiB for all"),
        ("scaling-in-a-cluster", f"MiB for all, {activator.WAKE_LIMIT:g} s)"),
        ("scaling-in-a-cluster", f"{WORKER.requests.cpu} of a CPU and {WORKER.requests.memory}"),
        ("scaling-in-a-cluster", f"and may take {WORKER.limits.memory}"),
        ("gateway-in-a-cluster", f"{PLACE.storage} of the default class"),
        ("gateway-in-a-cluster", f"takes {gateway_objects.INBOX_SHARE:.0%} of it at most".replace("%", " %")),
        ("gateway-in-a-cluster", f"leaves {queue_space.MARGIN // MIB} MiB free"),
        ("gateway-in-a-cluster", f"kept for {GATEWAY.dead_letters / 86400:.0f} days"),
        ("gateway-in-a-cluster", {2: "They hold for two years"}[YEARS]),
        ("gateway-in-a-cluster", {3: "the last third of that is for renewing"}[pki.RENEW]),
        ("gateway-in-a-cluster", f"`{client_id('<environment>', '<namespace>', '<function>', '<trigger>')}`"),
        ("gateway-in-a-cluster", f"on {INBOX_PORT} and by certificate"),
        ("gateway-in-a-cluster", f"KEDA on {SCALER_PORT}"),
        (
            "gateway-in-a-cluster",
            f"on {ACTIVATOR_PORTS[0]} to {ACTIVATOR_PORTS[1]}, figures and health on {HEALTH_PORT}",
        ),
        ("connections-and-secrets", {60: "the gateway looks once a minute"}[secret_files.LOOK]),
        ("operations", f"given up on after {activator.WAKE_LIMIT:g} s"),
        ("operations", f"Service `fleetfn-gateway`, port {HEALTH_PORT}"),
        ("operations", f"asks for {WORKER.requests.cpu} and {WORKER.requests.memory}"),
        ("operations", f"for {SIDECAR.requests.cpu} and {SIDECAR.requests.memory}"),
        ("operations", f"{WORKER.limits.memory} and {SIDECAR.limits.memory}"),
        ("operations", {60: "of one that was killed, a minute"}[turns.LASTS]),
    ],
)
def test_numbers_on_the_pages_are_those_of_the_code(page, words):
    assert words in " ".join((ROOT / f"docs/{page}.md").read_text("utf-8").split())


def test_the_metrics_that_only_clusters_have_are_all_listed():
    demand = SimpleNamespace(wanted=lambda _: True, amount=lambda _: 1.0, requests={"f": 1})
    refusing = SimpleNamespace(held={"f": 1}, refused={("f", "waiting"): 1})
    pods = SimpleNamespace(ready=lambda _: ())
    served = health.Health(SimpleNamespace(functions={"f": None}), pods, demand, refusing, str)
    names = set(re.findall(r"^# TYPE (\w+)", "\n".join(served._lines()), re.MULTILINE))
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    table = page.partition("| metric in a cluster |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == names


def pieces():
    """What the code may say: each text of two words or more in it, between the values that go in there."""
    for room in ("cli", "deploy", "gateway", "runtime"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts = (each.strip(" :;,.'") for each in re.split(r"%[.\d]*[a-z]|[\n();]", node.value))
                    yield from (text for text in texts if len(text) >= 8 and " " in text)


@pytest.fixture(scope="module")
def said():
    """A predicate: does the code say something of it, or it as a part of something?"""
    known = set(pieces())
    return lambda text: any(each in text or text in each for each in known)


def rows(page, heading):
    table = (ROOT / page).read_text("utf-8").partition(f"| {heading} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)


def test_the_messages_that_are_explained_are_those_of_the_code(said):
    listed = rows("docs/operations.md", "message")
    assert len(listed) > 15
    missing = [each for each in listed if not said(each)]
    assert missing == []


def test_the_steps_that_are_explained_are_those_that_a_deploy_tells(said):
    listed = rows("docs/cluster.md", "step")
    assert len(listed) == 5
    assert [each for each in listed if not said(each.removesuffix(" ..."))] == []
