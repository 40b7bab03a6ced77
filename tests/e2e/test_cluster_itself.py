"""The cluster that the other tests stand on: each part of it is really there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubectl_command import Kubectl
from network_policies import enforces_network_policy

pytestmark = pytest.mark.e2e

Objects = dict[str, Any]


def pod(name: str, image: str, *command: str, **spec: Any) -> Objects:
    container = {"name": "main", "image": image, "command": list(command), **spec.pop("container", {})}
    spec = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


def idle(name: str, image: str) -> Objects:
    return pod(name, image, "sleep", "3600")


def test_keda_serves_its_objects(everywhere: Kubectl):
    kinds = everywhere("api-resources", "--api-group=keda.sh", "--output=name").split()
    assert {"scaledobjects.keda.sh", "triggerauthentications.keda.sh"} <= set(kinds)


def test_keda_serves_external_metrics(everywhere: Kubectl):
    assert json.loads(everywhere("get", "--raw", "/apis/external.metrics.k8s.io/v1beta1"))["kind"] == "APIResourceList"


def test_a_claim_keeps_its_data_over_its_pods_end(kubectl: Kubectl, python_image: str):
    """The pod is not root: the volume is its group's."""
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim})
    spec = {
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": True, "fsGroup": 1000},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
    }
    kubectl.apply(pod("writer", python_image, "sh", "-c", "echo kept >/data/file", **spec))
    kubectl.await_pod("writer", "jsonpath={.status.phase}=Succeeded")
    kubectl("delete", "pod", "writer")
    kubectl.apply(pod("reader", python_image, "cat", "/data/file", **spec))
    kubectl.await_pod("reader", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("logs", "reader") == "kept\n"
    assert kubectl.read("persistentvolumeclaim", "data")["status"]["phase"] == "Bound"


def test_an_image_that_was_pushed_runs(kubectl: Kubectl, python_image: str):
    kubectl.apply(pod("pulled", python_image, "python3", "-c", "print(6 * 7)", container={"imagePullPolicy": "Always"}))
    kubectl.await_pod("pulled", "jsonpath={.status.phase}=Succeeded")
    assert kubectl("logs", "pulled") == "42\n"


def test_an_image_that_was_not_pushed_is_said_to_be_missing(kubectl: Kubectl, registry_address: str):
    kubectl.apply(idle("missing", f"{registry_address}/e2e/nobody-pushed:1"))
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull"
    kubectl.await_pod("missing", waiting, seconds=120)
    kubectl("delete", "pod", "missing")


@pytest.fixture(scope="module")
def asker(kubectl: Kubectl, python_image: str) -> str:
    """A pod to ask from."""
    kubectl.apply(idle("asker", python_image))
    kubectl.await_pod("asker")
    return "asker"


ASK = """
import socket
with socket.create_connection(({host!r}, {port}), timeout=5) as broker:
    broker.sendall({question!r})
    print(broker.recv(100).hex())
"""


def ask(kubectl: Kubectl, asker: str, address: str, question: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    return bytes.fromhex(kubectl.run(asker, ASK.format(host=host, port=int(port), question=question)))


def test_kafka_answers_a_pod(kubectl: Kubectl, asker: str, kafka_address: str):
    versions = (18).to_bytes(2) + (0).to_bytes(2) + (7).to_bytes(4) + b"\xff\xff"  # ApiVersions, number 7, no client id
    assert ask(kubectl, asker, kafka_address, len(versions).to_bytes(4) + versions)[4:8] == (7).to_bytes(4)


def test_mosquitto_answers_a_pod(kubectl: Kubectl, asker: str, mosquitto_address: str):
    connect = b"\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"
    assert ask(kubectl, asker, mosquitto_address, b"\x10" + bytes([len(connect)]) + connect) == b"\x20\x02\x00\x00"


def test_redis_and_postgresql_answer_a_pod(kubectl: Kubectl, asker: str, redis_address: str, postgresql: str):
    host, _, port = redis_address.rpartition(":")
    with socket.socket() as sock:
        if sock.connect_ex((host, int(port))):
            pytest.skip("they do not run; start them: tests/cluster/up.sh redis postgresql")
    assert ask(kubectl, asker, redis_address, b"PING\r\n") == b"+PONG\r\n"
    words = dict(word.split("=", 1) for word in postgresql.split())
    wants_tls = (8).to_bytes(4) + (80877103).to_bytes(4)
    assert ask(kubectl, asker, f"{words['host']}:{words['port']}", wants_tls) in {b"N", b"S"}


def test_names_of_services_are_found(kubectl: Kubectl, asker: str):
    found = kubectl.run(asker, "import socket; print(socket.gethostbyname('kubernetes.default'))")
    assert found.strip().count(".") == 3


def test_network_policies_are_enforced(fresh_namespace: Callable[[str], Kubectl], python_image: str, kubeconfig: Any):
    assert enforces_network_policy(fresh_namespace("policies"), python_image), (
        "NetworkPolicy is accepted, and not enforced"
    )


def test_a_policy_names_ports_addresses_and_namespaces(
    fresh_namespace: Callable[[str], Kubectl], python_image: str, kafka_address: str
):
    """What a function's pod is given: Kafka by address, a neighbour by a port's name, and no API server."""
    ours, theirs = fresh_namespace("policy-ours"), fresh_namespace("policy-theirs")
    port = {"container": {"ports": [{"name": "web", "containerPort": 8000}]}}
    for each in (ours, theirs):
        each.apply(pod("server", python_image, "python3", "-m", "http.server", **port))
    ours.apply(idle("client", python_image))
    for each, name in ((ours, "server"), (theirs, "server"), (ours, "client")):
        each.await_pod(name)
    host, _, kafka_port = kafka_address.rpartition(":")
    spec = {
        "podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Egress"],
        "egress": [
            {"to": [{"ipBlock": {"cidr": f"{host}/32"}}], "ports": [{"port": int(kafka_port)}]},
            {"to": [{"podSelector": {"matchLabels": {"app": "server"}}}], "ports": [{"port": "web"}]},
        ],
    }
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "few"}}
    api = ours.read("endpoints", "kubernetes", "--namespace=default")["subsets"][0]
    places = {
        "kafka": (host, int(kafka_port)),
        "neighbour": (ours.read("pod", "server")["status"]["podIP"], 8000),
        "stranger": (theirs.read("pod", "server")["status"]["podIP"], 8000),
        "api": (api["addresses"][0]["ip"], api["ports"][0]["port"]),
    }
    limit = time.monotonic() + 60  # a pod is ready before its server listens
    while reached(ours, places) != set(places):
        if time.monotonic() > limit:
            pytest.fail(f"without a policy it reaches {reached(ours, places)}")
    ours.apply({**policy, "spec": spec})
    limit = time.monotonic() + 60
    while reached(ours, places) != {"kafka", "neighbour"}:
        if time.monotonic() > limit:
            pytest.fail(f"it reaches {reached(ours, places)}")


REACH = """
import socket
for name, place in {places!r}.items():
    with socket.socket() as sock:
        sock.settimeout(1)
        if not sock.connect_ex(place):
            print(name)
"""


def reached(kubectl: Kubectl, places: dict[str, tuple[str, int]]) -> set[str]:
    return set(kubectl.run("client", REACH.format(places=places)).split())


def test_nothing_leaves_the_machine(kubectl: Kubectl, asker: str):
    """Of the cluster of tests/cluster alone: others may have ways out."""
    if kubectl.read("nodes", "--output=json")["items"][0]["metadata"]["name"] != "fleetfn":
        pytest.skip("it is another cluster")
    began = time.monotonic()
    left = "import socket; print(socket.socket().connect_ex(('1.1.1.1', 443)))"
    assert int(kubectl.run(asker, left)) != 0
    assert time.monotonic() - began < 60  # a packet that is dropped would be sent again for two minutes
