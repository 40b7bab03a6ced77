"""A namespace's gateway and a real KEDA: a request to a function that sleeps brings a pod up, and idleness ends it.

The gateway is a process of the test, beside the cluster's node; what serves is a small program in a pod.
"""

import asyncio
import contextlib
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

import httpx
import msgspec
import pytest
from certificates import Authority
from fleetfn_gateway.cluster import kube_access
from fleetfn_gateway.cluster.demand import LINGER
from fleetfn_gateway.cluster.kube import Kube
from fleetfn_gateway.cluster.kube_objects import PODS, Pod
from fleetfn_spec.cluster import GATEWAY, SCALER, Head
from gateway_doubles import function

pytestmark = pytest.mark.e2e

INBOX, SCALER_PORT, CONTROL, HEALTH, ACTIVATOR = 21350, 21351, 21352, 21353, 21354
LIMIT = 120
IDLE = 3
"""Seconds: KEDA's cooldown."""

WORKER = """
import http.server, json, os, ssl, threading, time, urllib.parse

class State:
    in_flight, last = 0, None

class Http(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        State.in_flight += 1
        time.sleep(float(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)).get("sleep", 0)))
        self.reply({"pod": os.uname().nodename, "via": self.headers.get("via"), "path": self.path})
        State.in_flight, State.last = State.in_flight - 1, time.monotonic()
    def reply(self, said):
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass

class Delivery(Http):
    def do_GET(self):
        last = None if State.last is None else time.monotonic() - State.last
        self.reply({"in_flight": State.in_flight, "last": last, "ready": True})

context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="/tls/ca.crt")
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
plain = http.server.ThreadingHTTPServer(("", 8080), Http)
threading.Thread(target=plain.serve_forever, daemon=True).start()
delivery = http.server.ThreadingHTTPServer(("", 8443), Delivery)
delivery.socket = context.wrap_socket(delivery.socket, server_side=True, do_handshake_on_connect=False)
delivery.serve_forever()
"""


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def own_address(kubeconfig):
    """Of this machine, as pods reach it."""
    host = httpx.URL(kube_access.by_kubeconfig(kubeconfig).url).host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, 9))
        return sock.getsockname()[0]


@pytest.fixture(scope="module")
def deployed(kubectl, authority, folder, python_image, own_address):
    name = f"{GATEWAY}.{kubectl.namespace}.svc"
    authority.issue(folder / "gateway", GATEWAY, name)
    objects = [
        secret("fleetfn-scaler-tls", authority.issue(folder / "keda", SCALER)),
        secret("f-tls", authority.issue(folder / "f", "f")),
        service(GATEWAY, {"scaler": 9443}),
        endpoints(GATEWAY, own_address, {"scaler": SCALER_PORT}),
        service("f", {"http": 80}),
        made("v1", "ConfigMap", "worker", data={"worker.py": WORKER}),
        deployment(python_image),
        login(),
        scaled_object(name),
        head(),
    ]
    kubectl.apply(*objects)
    return kubectl


@pytest.fixture(scope="module")
def gateway(deployed, kubeconfig, folder, own_address):
    log = (folder / "log").open("w")
    command = [sys.executable, "-m", "fleetfn_gateway.cluster", "--data", str(folder / "data")]
    command += ["--namespace", deployed.namespace, "--kubeconfig", str(kubeconfig), "--address", own_address]
    command += ["--tls", str(folder / "gateway"), "--secrets", str(folder / "secrets")]
    command += ["--inbox-port", str(INBOX), "--scaler-port", str(SCALER_PORT), "--control-port", str(CONTROL)]
    command += ["--health-port", str(HEALTH), "--activator-ports", f"{ACTIVATOR}-{ACTIVATOR + 4}"]
    process = subprocess.Popen(command, stderr=log)
    until(lambda: "f: KEDA listens" in (folder / "log").read_text(), "KEDA's stream")
    yield process
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 0
    log.close()


def made(version, kind, name, **body):
    meta = {"name": name, "labels": body.pop("labels", {})}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **body}


def secret(name, files):
    data = {each: (files / each).read_text() for each in ("tls.crt", "tls.key", "ca.crt")}
    return made("v1", "Secret", name, stringData=data)


def service(name, ports):
    listed = [{"name": each, "port": port} for each, port in ports.items()]
    return made("v1", "Service", name, spec={"ports": listed})


def endpoints(name, address, ports):
    listed = [{"name": each, "port": port, "protocol": "TCP"} for each, port in ports.items()]
    return made(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        name,
        labels={"kubernetes.io/service-name": name},
        addressType="IPv4",
        endpoints=[{"addresses": [address], "conditions": {"ready": True}}],
        ports=listed,
    )


def deployment(image):
    labels = {"fleetfn.dev/function": "f", "fleetfn.dev/part": "worker", "fleetfn.dev/revision": "1"}
    volumes = [{"name": "tls", "secret": {"secretName": "f-tls"}}, {"name": "code", "configMap": {"name": "worker"}}]
    mounts = [{"name": "tls", "mountPath": "/tls"}, {"name": "code", "mountPath": "/code"}]
    container = {
        "name": "worker",
        "image": image,
        "command": ["python3", "-u", "/code/worker.py"],
        "volumeMounts": mounts,
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
    }
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 3}
    template = {"metadata": {"labels": labels}, "spec": pod}
    selector = {"matchLabels": {"fleetfn.dev/function": "f"}}
    return made("apps/v1", "Deployment", "f", spec={"replicas": 0, "selector": selector, "template": template})


def login():
    both = {"caCert": "ca.crt", "tlsClientCert": "tls.crt", "tlsClientKey": "tls.key"}
    refs = [{"parameter": parameter, "name": "fleetfn-scaler-tls", "key": key} for parameter, key in both.items()]
    return made("keda.sh/v1alpha1", "TriggerAuthentication", "scaler", spec={"secretTargetRef": refs})


def scaled_object(gateway):
    metadata = {"scalerAddress": f"{gateway}:9443", "enableTLS": "true", "function": "f", "concurrency": "8"}
    trigger = {"type": "external-push", "metadata": metadata, "authenticationRef": {"name": "scaler"}}
    spec = {
        "scaleTargetRef": {"name": "f"},
        "pollingInterval": 1,
        "cooldownPeriod": IDLE,
        "maxReplicaCount": 2,
        "triggers": [trigger],
    }
    return made("keda.sh/v1alpha1", "ScaledObject", "f", spec=spec)


def head():
    said = Head(
        function=function({"name": "show", "http": {"path": "/show", "methods": ["GET"]}}).function,
        revision="1" * 64,
        number=1,
        image="f",
        environment="e2e",
        created=time.time(),
    )
    data = {"head.json": msgspec.json.encode(said).decode()}
    return made("v1", "ConfigMap", "f", labels={"fleetfn.dev/part": "head"}, data=data)


def until(condition, what, limit=LIMIT):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {limit} s")


def led_to(kubectl):
    """(addresses, port) of the function's Service."""
    found = kubectl.read("endpointslice", "f-fleetfn")
    return [each["addresses"][0] for each in found["endpoints"] or []], found["ports"][0]["port"]


def asleep(kubectl):
    return not kubectl.read("pods", "--selector=fleetfn.dev/function=f")["items"]


@pytest.fixture
def url(gateway, deployed):
    until(lambda: asleep(deployed), "sleep")
    until(lambda: led_to(deployed)[1] == ACTIVATOR, "a Service that leads to the gateway")
    address = deployed.read("service", "f")["spec"]["clusterIP"]
    until(lambda: taken(address), "the node's rules for the Service, which follow what it leads to")
    return f"http://{address}"


def taken(address):
    """A connection is."""
    with contextlib.suppress(OSError), socket.create_connection((address, 80), timeout=5):
        return True
    return False


class Seen:
    """When pods of the namespace were first seen, had an address, and were ready by the kubelet's word."""

    def __init__(self, kubeconfig, namespace):
        self.created = {}
        self.addressed = {}
        self.ready = {}
        self._kube = Kube(kube_access.by_kubeconfig(kubeconfig), namespace)

    async def close(self):
        await self._kube.close()

    async def follow(self):
        listed = await self._kube.list(PODS, Pod)
        async for change in self._kube.watch(PODS, Pod, "", listed.version):
            if change.item is None:
                continue
            name, ready = change.item.metadata.name, change.item.condition("Ready")
            self.created.setdefault(name, time.monotonic())
            if change.item.status.pod_ip:
                self.addressed.setdefault(name, time.monotonic())
            if ready is not None and ready.status == "True":
                self.ready.setdefault(name, time.monotonic())


async def test_a_request_brings_a_pod_up_and_is_answered_by_it(url, deployed, kubeconfig):
    seen = Seen(kubeconfig, deployed.namespace)
    following = asyncio.create_task(seen.follow())
    figures = []
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        for _ in range(int(os.environ.get("FN_E2E_WAKES", "2"))):
            await asyncio.to_thread(until, lambda: asleep(deployed), "sleep")
            await asyncio.to_thread(until, lambda: led_to(deployed)[1] == ACTIVATOR, "the way to the gateway")
            began = time.monotonic()
            reply = await client.get(f"{url}/show")
            answered = time.monotonic()
            assert reply.status_code == 200
            said = reply.json()
            assert said["via"] == "1.1 fleetfn-gateway"
            # Asked all the while: it would fall asleep.
            await asyncio.to_thread(
                until, lambda pod=said["pod"]: asked(url) and pod in seen.ready, "the kubelet's word"
            )
            created, addressed, ready = (each[said["pod"]] for each in (seen.created, seen.addressed, seen.ready))
            figures.append((created - began, addressed - created, answered - created, ready - created))
            direct = until_direct(url)
            assert direct["via"] is None
            assert direct["pod"] == said["pod"]
    following.cancel()
    await asyncio.wait({following})
    await seen.close()
    names = (
        "request -> pod created",
        "created -> has an address",
        "created -> answered",
        "created -> ready, says the kubelet",
    )
    for name, values in zip(names, zip(*figures, strict=True), strict=True):
        print(
            f"{name}: median {statistics.median(values):.2f} s of {len(values)} ({min(values):.2f}-{max(values):.2f})"
        )


def asked(url):
    """What it replies."""
    return httpx.get(f"{url}/show", timeout=LIMIT).json()


def until_direct(url):
    """Once its Service leads to the pod, no request comes by the gateway. It is asked all the while, and so awake."""

    def direct():
        said = asked(url)
        return said if said["via"] is None else None

    return until(direct, "a direct request")


def test_requests_at_a_pod_keep_it_awake_and_idleness_ends_it(url, deployed):
    pod = httpx.get(f"{url}/show", timeout=LIMIT).json()["pod"]
    until_direct(url)
    assert httpx.get(f"{url}/show?sleep={3 * IDLE}", timeout=LIMIT).json()["pod"] == pod
    until(lambda: led_to(deployed)[1] == ACTIVATOR, "a Service that leads to the gateway before its pod is gone")
    until(lambda: asleep(deployed), "sleep")


def test_no_request_fails_while_a_function_falls_asleep(url):
    """Each comes just as the last pod goes: the gateway lets go of it, and KEDA then waits for its cooldown."""
    with httpx.Client(timeout=LIMIT) as client:
        for pause in (LINGER + IDLE + 0.5, LINGER + IDLE + 1, LINGER + IDLE + 1.5):
            assert client.get(f"{url}/show").status_code == 200
            end = time.monotonic() + pause
            until(lambda end=end: time.monotonic() >= end, "that time")
            assert httpx.get(f"{url}/show", timeout=LIMIT).status_code == 200


def test_what_is_for_no_trigger_wakes_nobody(url, deployed):
    assert httpx.get(f"{url}/nothing", timeout=LIMIT).status_code == 404
    assert asleep(deployed)


def test_it_tells_of_itself(url, gateway):
    assert httpx.get(f"http://127.0.0.1:{HEALTH}/readyz", timeout=LIMIT).status_code == 200
    assert httpx.get(f"http://127.0.0.1:{CONTROL}/v1/gateway", timeout=LIMIT).json()["problems"] == {}
    metrics = httpx.get(f"http://127.0.0.1:{HEALTH}/metrics", timeout=LIMIT).text
    assert 'fleetfn_gateway_pods_ready{function="f"} 0' in metrics


def test_a_second_gateway_on_the_same_folder_ends_and_says_who_has_it(gateway, kubeconfig, folder):
    command = [sys.executable, "-m", "fleetfn_gateway.cluster", "--data", str(folder / "data"), "--namespace", "x"]
    done = subprocess.run(
        [*command, "--kubeconfig", str(kubeconfig)], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 1
    assert f"already (pid {gateway.pid})" in done.stderr


def test_deleting_the_head_takes_the_endpoints_with_it(url, deployed, folder):
    deployed("delete", "configmap", "f")
    until(lambda: "f: deleted" in (folder / "log").read_text(), "the gateway's word")
    mine = ("endpointslice", "--selector=fleetfn.dev/function=f")
    until(lambda: not deployed.read(*mine)["items"], "the end of its endpoints")
