"""Pods as they are rendered, in a real cluster: what they reach, what they may write, what their sidecar keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cluster_functions import deployable, environment, function
from fleetfn_deploy.kubernetes import pki, render
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable
from kubectl_command import Kubectl
from network_policies import enforces_network_policy

pytestmark = pytest.mark.e2e

DAPRD = "docker.io/daprio/daprd:1.14.0"
PORT = 6379
SERVED = """
import socket
with socket.create_server(("", 6379)) as server:
    while True:
        server.accept()[0].close()
"""
NEEDED = ("ServiceAccount", "ConfigMap", "NetworkPolicy")


@pytest.fixture(scope="module")
def stores(fresh_namespace: Callable[[str], Kubectl], python_image: str) -> list[Kubectl]:
    """Two namespaces, each with a Service `store`."""
    found = [fresh_namespace("stores-ours"), fresh_namespace("stores-theirs")]
    container = {"name": "store", "image": python_image, "command": ["python3", "-c", SERVED]}
    for each in found:
        labels = {"app": "store"}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        service = {"selector": labels, "ports": [{"port": PORT}]}
        each.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "store", "labels": labels}, "spec": spec},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "store"}, "spec": service},
        )
    for each in found:
        each.await_pod("store")
    return found


@pytest.fixture(scope="module")
def worker(kubectl: Kubectl, stores: list[Kubectl], python_image: str) -> str:
    """The name of a pod as a worker's is, but that it sleeps. The component of its state names the first store, and
    has it in memory for all that.
    """
    component = {
        "component": "vehicles",
        "type": "state.in-memory",
        "metadata": [
            {"name": "redisHost", "value": f"store.{stores[0].namespace}.svc:{PORT}"},
            {"name": "redisPassword", "value": {"secret": "login/password"}},
        ],
    }
    spec = {"triggers": [{"name": "show", "http": {"path": "/show"}}], "config": {"token": {"secret": "login/token"}}}
    place = environment({"namespace": kubectl.namespace, "dapr": {"image": DAPRD}}, state={"dapr": component})
    return start(kubectl, replace(deployable(function(spec), place), image=python_image))


def start(kubectl: Kubectl, made: Deployable, *more: Object) -> str:
    login = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}}
    things: list[Object] = [login | {"stringData": {"password": "secret", "token": "t0ken"}}, *more]
    things += pki.due(kubectl.namespace, {}, datetime.now(UTC), function=made.name)
    things += [each for each in render.objects(made) if each["kind"] in NEEDED]
    pod = render.check_pod(made)
    pod["metadata"]["labels"]["fleetfn.dev/part"] = "worker"  # whose policy it is to have
    (container,) = pod["spec"]["containers"]
    del container["args"]
    container["command"] = ["sleep", "3600"]
    kubectl.apply(*things, pod)
    name: str = pod["metadata"]["name"]
    kubectl.await_pod(name)
    return name


def run(kubectl: Kubectl, worker: str, script: str) -> Any:
    """What a Python script in the worker's container prints, as JSON."""
    return json.loads(kubectl("exec", "--stdin", worker, "--container=worker", "--", "python3", "-", given=script))


REACH = """
import json, socket
found = []
for name, place in {places!r}.items():
    try:
        socket.create_connection(place, timeout=1).close()
        found.append(name)
    except OSError:
        pass
print(json.dumps(found))
"""


def test_it_reaches_its_store_and_neither_another_namespace_s_nor_the_api_server(
    kubectl: Kubectl,
    stores: list[Kubectl],
    worker: str,
    fresh_namespace: Callable[[str], Kubectl],
    python_image: str,
) -> None:
    if not enforces_network_policy(fresh_namespace("enforced"), python_image):
        pytest.skip("the cluster does not enforce NetworkPolicy: what is rendered is in test_cluster_policies.py")
    api = kubectl.read("endpoints", "kubernetes", "--namespace=default")["subsets"][0]
    places = {
        "its store": (f"store.{stores[0].namespace}.svc", PORT),
        "another": (f"store.{stores[1].namespace}.svc", PORT),
        "API server": (api["addresses"][0]["ip"], api["ports"][0]["port"]),
        "API server's Service": ("kubernetes.default.svc", 443),
    }
    limit = time.monotonic() + 60
    while (found := run(kubectl, worker, REACH.format(places=places))) != ["its store"]:
        assert time.monotonic() < limit, found


def test_it_writes_into_its_folders_alone_and_has_no_token(kubectl: Kubectl, worker: str) -> None:
    tried = ["/data/x", "/tmp/x", "/x", "/etc/fleetfn/x", "/var/run/fleetfn/tls/x", "/var/run/secrets/kubernetes.io"]
    script = f"""
import json, os, pathlib
def writes(path):
    try:
        pathlib.Path(path).write_text("")
        return True
    except OSError:
        return False
print(json.dumps([[path for path in {tried!r} if writes(path)], os.getuid(), os.path.exists({tried[-1]!r})]))
"""
    assert run(kubectl, worker, script) == [tried[:2], 65532, False]


def test_its_files_are_there(kubectl: Kubectl, worker: str) -> None:
    script = """
import json, pathlib
tls = pathlib.Path("/var/run/fleetfn/tls")
place = json.loads(pathlib.Path("/etc/fleetfn/environments.yaml").read_text())["environments"][0]
token = pathlib.Path("/var/run/fleetfn/secrets/login/token").read_text()
kinds = [(tls / name).read_text().split()[1] for name in ("tls.crt", "tls.key", "ca.crt")]
print(json.dumps([kinds, place["name"], token]))
"""
    assert run(kubectl, worker, script) == [["CERTIFICATE-----", "PRIVATE", "CERTIFICATE-----"], "prod", "t0ken"]


STATE = """
import json, os, time, urllib.request
base = f"http://127.0.0.1:{os.environ['DAPR_HTTP_PORT']}/v1.0"
def ask(path, data=None):
    headers = {"content-type": "application/json"}
    return urllib.request.urlopen(urllib.request.Request(base + path, data, headers), timeout=30).read()
limit = time.monotonic() + 60
while True:
    try:
        ask("/healthz/outbound")
        break
    except OSError:
        if time.monotonic() > limit:
            raise
        time.sleep(0.05)
ask("/state/vehicles", json.dumps([{"key": "k", "value": 42}]).encode())
about = json.loads(ask("/metadata"))
print(json.dumps([json.loads(ask("/state/vehicles/k")), about["id"], [each["name"] for each in about["components"]]]))
"""


def test_its_sidecar_keeps_state(kubectl: Kubectl, worker: str) -> None:
    assert run(kubectl, worker, STATE) == [42, "battery-alert", ["vehicles"]]


def test_an_injected_sidecar_does_so_too(
    fresh_namespace: Callable[[str], Kubectl], everywhere: Kubectl, python_image: str
) -> None:
    """Where Dapr's control plane is: the component is an object of the cluster."""
    if "dapr-sidecar-injector" not in everywhere("get", "deployments", "--all-namespaces", "--output=name"):
        pytest.skip("the cluster has no Dapr")
    kubectl = fresh_namespace("injected")
    fields: Iterable[Object] = [
        {"name": "keyPrefix", "value": "namespace"},
        {"name": "password", "secretKeyRef": {"name": "login", "key": "password"}},
    ]
    component = {"apiVersion": "dapr.io/v1alpha1", "kind": "Component", "metadata": {"name": "vehicles"}}
    spec = {"type": "state.in-memory", "version": "v1", "metadata": list(fields)}
    place = environment({"namespace": kubectl.namespace}, state={"dapr": {"component": "vehicles"}})
    made = deployable(function({"triggers": [{"name": "show", "http": {"path": "/show"}}]}), place)
    worker = start(kubectl, replace(made, image=python_image), component | {"spec": spec})
    assert run(kubectl, worker, STATE) == [
        42,
        "battery-alert",
        ["vehicles"],
    ]
