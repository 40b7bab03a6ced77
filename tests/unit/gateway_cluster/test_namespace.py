"""A namespace's whole gateway in this process, between a fake API server, KEDA and a worker's ports of a test."""

import asyncio
import contextlib
import json

import msgspec
import pytest
from certificates import Authority
from fake_api_server import FakeApi
from fleetfn.position import At
from fleetfn_gateway.cluster import slices, wiring
from fleetfn_gateway.cluster.wiring import Namespace, Options
from fleetfn_gateway.queue import Queue
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.tls_http import TlsClient
from fleetfn_spec.cluster import Activity, Head
from fleetfn_spec.gateway import Passed
from fleetfn_triggers.inbox import Arrival, Claim, Letter, Offer
from fleetfn_triggers.push import MSGPACK, OUTCOME, Pushed, Told
from free_ports import free_ports
from gateway_doubles import arrival, function, until
from keda_client import Keda, reference


def head(name="f", *, paused=(), activates=True):
    triggers = [
        {"name": "show", "http": {"path": "/show", "methods": ["GET"]}},
        {"name": "nightly", "cron": {"schedule": "30 2 29 2 *"}},
    ]
    made = Head(
        function=function(*triggers, name=name).function,
        revision="1" * 64,
        number=1,
        image="registry/f@sha256:0",
        environment="prod",
        paused=paused,
        activates=activates,
        created=1.0,
    )
    return msgspec.json.encode(made).decode()


class Pod:
    """A worker's delivery port: takes rows, runs what is invoked, tells its activity."""

    def __init__(self, folder):
        self.folder = folder
        self.activity = Activity(ready=True)
        self.rows = []
        self.asked = []
        self._server = None

    async def __aenter__(self):
        context = TlsFolder(self.folder).server()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _accepted(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                size = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
                writer.write(self._answer(head.split(" ")[0], head.split(" ")[1], await reader.readexactly(size)))
        writer.close()

    def _answer(self, method, path, body):
        if path == "/activity":
            return self._whole(msgspec.json.encode(self.activity))
        self.asked.append((method, path, body))
        if path != "/deliver":
            return self._whole(json.dumps({"path": path}).encode())
        pushed = msgspec.msgpack.decode(body, type=list[Pushed])
        self.rows += [each.sequence for each in pushed]
        told = msgspec.msgpack.encode([Told(each.sequence, "done") for each in pushed])
        return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n%s: %d\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            OUTCOME.encode(),
            len(pushed),
            len(told),
            told,
        )

    def _whole(self, body):
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Place:
    def __init__(self, api, tmp_path, authority):
        self.api = api
        self.authority = authority
        self.tmp_path = tmp_path
        self.folder = authority.issue(tmp_path / "gateway", "fleetfn-gateway")
        self.data = tmp_path / "data"
        self.data.mkdir()
        self.first = free_ports(10)

    async def start(self):
        self.queue = await Queue.open(self.data / "inbox.db", quota=2**30)
        options = Options(
            namespace="alerts",
            data=self.data,
            quota=2**30,
            retention=60,
            access=self.api.access,
            tls=self.folder,
            secrets=self.tmp_path / "secrets",
            host="127.0.0.1",
            inbox_port=0,
            scaler_port=0,
            control_port=0,
            health_port=0,
            activator_ports=(self.first, self.first + 9),
        )
        self.namespace = Namespace(options, self.queue)
        await self.namespace.open()

    async def stop(self):
        await self.namespace.close()
        await self.queue.close()

    async def deploy(self):
        self.api.head("f", head())
        await until(lambda: self.namespace.activator.port("f"))

    async def http(self, port, method, path, body=b"", headers=""):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}".encode())
        writer.write(f"content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        return int(top.split(b" ")[1]), rest

    async def control(self, method, path, body=None, headers="fleetfn-api: 1.0\r\n"):
        sent = b"" if body is None else json.dumps(body).encode()
        status, answer = await self.http(self.namespace.control.port, method, path, sent, headers)
        return status, json.loads(answer) if answer else None

    def worker(self, name):
        folder = self.authority.issue(self.tmp_path / name, name)
        return TlsClient("127.0.0.1", self.namespace.inbox.port, TlsFolder(folder), name="fleetfn-gateway")

    def slice(self):
        """(addresses, port) that the function's Service leads to."""
        *_, (_, _, body) = [each for each in self.api.applied if each[1] == "f-fleetfn"]
        assert body["metadata"]["labels"]["kubernetes.io/service-name"] == "f"
        return [one["addresses"][0] for one in body["endpoints"]], body["ports"][0]["port"]


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
async def place(tmp_path, authority):
    async with FakeApi() as api:
        place = Place(api, tmp_path, authority)
        await place.start()
        yield place
        await place.stop()


@pytest.fixture
async def pod(place, authority, tmp_path, monkeypatch):
    async with Pod(authority.issue(tmp_path / "pod", "f")) as pod:
        real = wiring.http_places.client
        monkeypatch.setattr(
            wiring.http_places,
            "client",
            lambda _, certificates, name: real(f"https://127.0.0.1:{pod.port}", certificates, name=name),
        )
        yield pod


async def test_a_row_wakes_its_function_by_keda_and_is_pushed_to_the_pod(place, pod, tmp_path):
    await place.deploy()
    keda = Keda(place.namespace.scaler.port, place.authority.issue(tmp_path / "keda", "keda"))
    stream = keda.stream(reference())
    await until(lambda: place.namespace.demand.listeners("f"))
    [sequence] = await place.queue.put([arrival(1, trigger="nightly")])
    assert await asyncio.wait_for(stream.read(), 60) == b"\x08\x01"
    place.api.pod("f-1", "f", ip="127.0.0.1")
    await until(lambda: pod.rows)
    assert pod.rows == [sequence]
    await until(lambda: not place.queue.counts().get("f"))
    stream.cancel()
    await keda.channel.close()


async def test_a_service_leads_to_pods_that_are_ready_and_else_to_the_gateway(place, pod):
    await place.deploy()
    await until(lambda: place.api.applied)
    assert place.slice() == (["127.0.0.1"], place.first)
    pod.activity = Activity(ready=False)
    place.api.pod("f-1", "f", ip="127.0.0.1")
    applied = len(place.api.applied)
    pod.activity = Activity(ready=True)
    await until(lambda: len(place.api.applied) > applied)
    assert place.slice() == (["127.0.0.1"], 8080)
    place.api.pod("f-1", "f", ip="127.0.0.1", ready=True, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    await until(lambda: place.slice() == (["127.0.0.1"], place.first))
    body = place.api.applied[-1][2]
    [owner] = body["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("ConfigMap", place.api.objects["configmaps", "f"]["metadata"]["uid"])


async def test_services_are_not_led_away_before_pods_are_seen(place, pod):
    place.api.denied.add(("list", "pods"))
    await place.stop()
    await place.start()
    place.api.head("f", head())
    place.api.pod("f-1", "f", ip="127.0.0.1", ready=True)
    await until(lambda: place.namespace.activator.port("f"))
    await until(lambda: "list pods" in place.namespace.problems().get("", ""))
    assert place.api.applied == []
    place.api.denied.clear()
    await until(lambda: place.api.applied)
    assert {each[2]["ports"][0]["port"] for each in place.api.applied} == {8080}


async def test_a_slice_that_cannot_be_written_is_told_and_tried_again(place):
    place.api.denied.add(("patch", "endpointslices"))
    await place.deploy()
    problem = await until(lambda: place.namespace.problems().get("f"))
    assert "its Service cannot be led to it" in problem
    assert "'patch' on 'endpointslices'" in problem
    place.api.denied.clear()
    await until(lambda: place.api.applied)
    await until(lambda: not place.namespace.problems())


async def test_it_is_ready_once_it_knows_functions_and_pods(place):
    await until(lambda: place.namespace.waits_for() == "")
    health = place.namespace.health.port
    assert await place.http(health, "GET", "/readyz") == (200, b'{"status":"ready"}')
    await place.stop()
    await place.api.stop()
    await place.start()
    await until(lambda: "does not answer" in place.namespace.waits_for())
    health = place.namespace.health.port
    status, body = await place.http(health, "GET", "/readyz")
    assert (status, json.loads(body)["status"]) == (503, "waiting")
    assert (await place.http(health, "GET", "/healthz"))[0] == 200
    await place.api.start()


async def test_it_serves_with_what_it_knew_while_the_api_server_is_away(place):
    await place.deploy()
    await place.stop()
    await place.api.stop()
    await place.start()
    assert place.namespace.activator.port("f") == place.first
    status, answer = await place.control("GET", "/v1/functions/f/rows")
    assert (status, sorted(answer)) == (200, ["nightly", "show"])
    worker = place.worker("f")
    sent = msgspec.msgpack.encode([arrival(1, trigger="nightly")])
    assert (await worker.request("POST", "/v1/put", sent, content_type=MSGPACK)).status == 200
    await worker.close()
    await place.api.start()


EVENT = {"event": arrival(1).event, "key": None, "function": "f", "trigger": "nightly"}
SAID = {
    "put": [Arrival(**EVENT)],
    "offer": [Offer(**EVENT, position=At("kafka:t:", 0, 1), attempts=0, due=None)],
    "bury": [
        Letter(
            **EVENT,
            position=At("kafka:t:", 0, 1),
            attempts=1,
            revision="1",
            reason="rejected",
            detail="",
            failure=None,
            created=1.0,
        )
    ],
    "claim": Claim(function="f", trigger="nightly", stream="s", partitions={0: None}),
    "passed": Passed(function="f", trigger="nightly", stream="s", offsets={0: 1}),
}


@pytest.mark.parametrize("call", SAID)
async def test_a_worker_asks_for_its_own_function_alone(place, call):
    await place.deploy()
    body = msgspec.msgpack.encode(SAID[call])
    own, other = place.worker("f"), place.worker("g")
    reply = await other.request("POST", f"/v1/{call}", body, content_type=MSGPACK)
    assert reply.status == 403
    assert "'g' asks for function 'f'" in msgspec.json.decode(reply.body)["message"]
    assert (await own.request("POST", f"/v1/{call}", body, content_type=MSGPACK)).status in (200, 204)
    await own.close()
    await other.close()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/gateway"),
        ("PUT", "/v1/functions"),
        ("DELETE", "/v1/functions/f"),
        ("GET", "/v1/functions/g/paused"),
        ("POST", "/v1/functions/g/ready"),
        ("POST", "/v1/functions/f/fire"),
        ("GET", "/v1/dlq"),
        ("POST", "/v1/dlq/discard"),
        ("GET", "/metrics"),
    ],
)
async def test_workers_are_refused_all_that_is_not_theirs(place, method, path):
    await place.deploy()
    worker = place.worker("f")
    assert (await worker.request(method, path)).status == 403
    await worker.close()


async def test_a_worker_learns_what_is_paused_by_hand(place):
    place.api.head("f", head(paused=("nightly",)))
    await until(lambda: place.namespace.gateway.functions)
    worker = place.worker("f")
    reply = await worker.request("GET", "/v1/functions/f/paused")
    assert msgspec.json.decode(reply.body) == {"triggers": ["nightly"]}
    await worker.close()


@pytest.mark.parametrize(("address", "ready"), [("127.0.0.1", ["f-1"]), ("10.9.9.9", [])], ids=["its own", "another"])
async def test_a_worker_says_that_it_takes_work_from_where_it_is_alone(place, address, ready):
    place.api.head("f", head(paused=("nightly",)))
    place.api.pod("f-1", "f", ip="")
    await until(lambda: place.namespace.gateway.functions and place.namespace.pods.all())
    worker = place.worker("f")
    said = msgspec.json.encode({"pod": "f-1", "address": address})
    reply = await worker.request("POST", "/v1/functions/f/ready", said)
    assert msgspec.json.decode(reply.body) == {"triggers": ["nightly"]}
    assert [each.name for each in place.namespace.pods.ready("f")] == ready
    await worker.close()


async def test_control_asks_a_pod_that_is_woken_for_it(place, pod):
    await place.deploy()
    asking = asyncio.create_task(
        place.control("POST", "/v1/functions/f/invoke", {"trigger": "show", "event": {"data": 1}})
    )
    await until(lambda: place.namespace.demand.wanted("f"))
    place.api.pod("f-1", "f", ip="127.0.0.1")
    assert await asking == (200, {"path": "/invoke"})
    assert await place.control("GET", "/v1/functions/f/state?after=a&limit=5") == (
        200,
        {"path": "/state?after=a&limit=5"},
    )
    assert (await place.control("GET", "/v1/functions/f/state/v%201"))[1] == {"path": "/state/v%201"}


async def test_control_has_rows_fires_and_dead_letters(place):
    await place.deploy()
    status, fired = await place.control("POST", "/v1/functions/f/fire", {"trigger": "nightly"})
    assert (status, sorted(fired)) == (200, ["at", "id", "sequence"])
    _, rows = await place.control("GET", "/v1/functions/f/rows")
    assert rows["nightly"]["waiting"] == 1
    await place.queue.put([Arrival(**EVENT, problem="it has no key")])
    _, letters = await place.control("GET", "/v1/dlq?function=f")
    assert [each["reason"] for each in letters] == ["unreadable"]
    assert (await place.control("GET", f"/v1/dlq/{letters[0]['sequence']}"))[0] == 200
    assert await place.control("POST", "/v1/dlq/discard", {"function": "f"}) == (200, {"discarded": 1})


async def test_control_tells_problems_of_what_it_follows(place):
    place.api.head("f", "{")
    await until(place.namespace.problems)
    status, told = await place.control("GET", "/v1/gateway")
    assert status == 200
    assert "ConfigMap 'f'" in told["problems"]["f"]


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v1/functions/nobody/rows", 404, "there is no function 'nobody'"),
        ("POST", "/v1/functions/nobody/fire", 404, "there is no function 'nobody'"),
        ("PUT", "/v1/functions/f", 404, "is not served here"),
        ("DELETE", "/v1/functions/f", 400, "function 'f' is deployed"),
    ],
)
async def test_control_refuses_in_words(place, method, path, status, words):
    await place.deploy()
    answered, told = await place.control(method, path, {"trigger": "nightly"})
    assert answered == status
    assert words in told["message"]


async def test_what_is_left_of_a_deleted_function_can_be_dropped(place):
    await place.queue.put([arrival(1, function="gone", trigger="x")])
    assert (await place.control("DELETE", "/v1/functions/gone?rows=drop"))[0] == 204
    assert not place.queue.counts().get("gone")


async def test_another_major_of_the_api_is_refused(place):
    status, told = await place.control("GET", "/v1/gateway", headers="fleetfn-api: 9.0\r\n")
    assert status == 426
    assert "update the gateway" in told["hint"]


async def test_metrics_tell_of_pods_and_requests(place):
    await place.deploy()
    _, text = await place.http(place.namespace.health.port, "GET", "/metrics")
    lines = text.decode().splitlines()
    assert 'fleetfn_gateway_pods_ready{function="f"} 0' in lines
    assert 'fleetfn_gateway_wanted{function="f"} 0' in lines
    assert "fleetfn_gateway_inbox_accepting 1" in lines
    heads = [line for line in lines if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


async def test_endpoints_that_somebody_deleted_are_written_again(tmp_path, authority, monkeypatch):
    monkeypatch.setattr(slices, "REFRESH", 0.05)
    async with FakeApi() as api:
        place = Place(api, tmp_path, authority)
        await place.start()
        await place.deploy()
        await until(lambda: len(place.api.applied) > 2)
        await place.stop()
    assert {each[1] for each in api.applied} == {"f-fleetfn"}


async def test_endpoints_belong_to_a_head_that_was_made_anew(place):
    await place.deploy()
    await until(lambda: place.api.applied)
    place.api.objects["configmaps", "f"]["metadata"]["uid"] = "another"
    place.api.head("f", head())
    await until(lambda: place.api.applied[-1][2]["metadata"]["ownerReferences"][0]["uid"] == "another")


async def test_endpoints_are_others_where_the_add_on_activates(place):
    await place.deploy()
    place.api.head("f", head(activates=False))
    await until(lambda: ("delete", "endpointslices", "f-fleetfn") in place.api.asked)
    assert place.namespace.activator.port("f") is not None  # fn send goes by it


async def test_endpoints_go_where_a_function_takes_no_requests_any_more(place):
    await place.deploy()
    await until(lambda: place.api.applied)
    kafka = function({"name": "k", "kafka": {"topic": "t"}}).function
    place.api.head("f", msgspec.json.encode(msgspec.structs.replace(_decoded(head()), function=kafka)).decode())
    await until(lambda: ("delete", "endpointslices", "f-fleetfn") in place.api.asked)
    assert place.namespace.activator.port("f") is None


def _decoded(text):
    return msgspec.json.decode(text, type=Head)
