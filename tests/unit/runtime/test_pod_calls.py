"""The delivery port of a pod: who may ask there, state, pauses, and bodies of any size over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from certificates import Authority
from fleetfn.errors import UsageError
from fleetfn.memory import MemoryStore
from fleetfn.position import Marks
from fleetfn.store import Record, Write
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_plumbing.tls_http import TlsClient
from fleetfn_runtime import tls_listener
from fleetfn_runtime.deliver import DeliverServer
from fleetfn_runtime.pod_calls import PodCalls
from fleetfn_runtime.push_source import PushSource
from fleetfn_spec.cluster import GATEWAY, Activity, Figures
from fleetfn_spec.control import Counters, Refusal, StateEntry, StatePage
from fleetfn_spec.gateway import SendRecord, SendRecords, SendReply

FIGURES = Figures(run="r", counters=Counters(done=3))

LARGE = 5_000_000


class Pod:
    def __init__(self, folder: Path, authority: Authority) -> None:
        self.authority = authority
        self.folder = folder
        self.store = MemoryStore()
        self.sent: list[SendRecord] = []
        self.told: list[tuple[str, tuple[str, ...]]] = []
        self.calls = PodCalls(
            0,
            TlsFolder(authority.issue(folder / "f", "f")),
            triggers=("a", "b"),
            http=None,
            store=self.store,
            pause=lambda names: self.told.append(("pause", names)),
            resume=lambda names: self.told.append(("resume", names)),
            figures=lambda: FIGURES,
            send=self.send,
        )
        self.figures = b"up 1\n"
        self.server = DeliverServer(
            folder / "d", (), run_once=_never, pushes=PushSource((), lambda _: None), metrics=lambda: self.figures
        )
        self.server.remote = self.calls
        self.server.listen()

    async def send(self, asked: SendRecords) -> SendReply:
        if asked.trigger == "z":
            raise UsageError("there is no trigger 'z'")
        self.sent += asked.records
        return SendReply(written=len(asked.records), refusal=Refusal("no", "hint"))

    def client(self, who: str = GATEWAY) -> TlsClient:
        folder = TlsFolder(self.authority.issue(self.folder / who, who))
        return TlsClient("127.0.0.1", self.calls.port, folder, name="f")


async def _never(_: object) -> None:
    raise NotImplementedError


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def pod(tmp_path: Path, authority: Authority) -> AsyncIterator[Pod]:
    pod = Pod(tmp_path, authority)
    yield pod
    await pod.server.drain()
    pod.server.close()


@pytest.fixture
async def gateway(pod: Pod) -> AsyncIterator[TlsClient]:
    client = pod.client()
    yield client
    await client.close()


async def test_state_is_told_by_pages_and_by_key(pod: Pod, gateway: TlsClient) -> None:
    record = Record(b'{"n":1}', Marks({"kafka:t:1/0": 7}), ())
    await pod.store.save([Write(key, record, None) for key in ("a/b ü", "b", "c")])
    page = msgspec.json.decode((await gateway.request("GET", "/state?limit=2")).body, type=StatePage)
    assert (page.keys, page.after) == (["a/b ü", "b"], "b")
    rest = msgspec.json.decode((await gateway.request("GET", "/state?after=b")).body, type=StatePage)
    assert (rest.keys, rest.after) == (["c"], None)
    entry = msgspec.json.decode((await gateway.request("GET", "/state/a%2Fb%20%C3%BC")).body, type=StateEntry)
    assert entry == StateEntry(key="a/b ü", value={"n": 1}, marks={"kafka:t:1/0": 7})
    nothing = await gateway.request("GET", "/state/d")
    refusal = Refusal("nothing is kept of key 'd'", "list the keys it has")
    assert (nothing.status, msgspec.json.decode(nothing.body, type=Refusal)) == (404, refusal)


async def test_records_are_written_for_the_gateway(pod: Pod, gateway: TlsClient) -> None:
    records = [SendRecord("v1", b"\xff", {"a": "b"}), SendRecord(None, None, {})]
    reply = await gateway.request("POST", "/send", msgspec.msgpack.encode(SendRecords(trigger="a", records=records)))
    assert msgspec.json.decode(reply.body, type=SendReply) == SendReply(written=2, refusal=Refusal("no", "hint"))
    assert pod.sent == records
    for body in (b"\xc1", msgspec.msgpack.encode(SendRecords(trigger="z", records=[]))):
        assert (await gateway.request("POST", "/send", body)).status == 400


async def test_pauses_are_told_on_and_remembered(pod: Pod, gateway: TlsClient) -> None:
    assert (await gateway.request("POST", "/pause", b"{}")).status == 204
    assert (await gateway.request("POST", "/resume", b'{"triggers": ["a"]}')).status == 204
    assert (await gateway.request("POST", "/pause", b'{"triggers": ["b", "of another revision"]}')).status == 204
    assert pod.told == [("pause", ("a", "b")), ("resume", ("a",)), ("pause", ("b",))]
    activity = msgspec.json.decode((await gateway.request("GET", "/activity")).body, type=Activity)
    assert activity == Activity(ready=True, paused=("b", "of another revision"), figures=FIGURES)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/state?limit=many", b""),
        ("POST", "/pause", b"[]"),
        ("POST", "/resume", b"no JSON"),
        ("GET", "/elsewhere", b""),
    ],
)
async def test_what_cannot_be_asked_is_refused(gateway: TlsClient, method: str, path: str, body: bytes) -> None:
    assert (await gateway.request(method, path, body)).status == 400


async def test_others_of_the_same_authority_are_refused_whatever_they_ask(pod: Pod) -> None:
    other = pod.client("other-function")
    for path in ("/activity", "/state", "/metrics", "/healthz"):
        reply = await other.request("GET", path)
        assert reply.status == 403
    assert (await other.request("POST", "/deliver", b"x" * LARGE)).status == 403
    await other.close()


async def test_large_bodies_come_whole_both_ways(pod: Pod, gateway: TlsClient) -> None:
    pod.figures = b"x" * LARGE
    for _ in range(2):
        assert (await gateway.request("GET", "/metrics")).body == pod.figures
    reply = await gateway.request("POST", "/deliver", b"\xc1" * LARGE, limit=60)
    assert (reply.status, b"cannot be read" in reply.body) == (400, True)


async def test_who_does_not_shake_hands_is_let_go(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_listener, "HANDSHAKE", 0.1)
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", pod.calls.port)
        writer.write(said)
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                while await reader.read(100):
                    pass
        writer.close()
    monkeypatch.setattr(tls_listener, "HANDSHAKE", 60.0)
    client = pod.client()
    assert (await client.request("GET", "/healthz")).status == 200
    await client.close()


async def test_a_drain_lets_nobody_in_any_more(pod: Pod, gateway: TlsClient) -> None:
    await gateway.request("GET", "/healthz")
    await pod.server.drain()
    with pytest.raises(UnreachableError):
        await gateway.request("GET", "/healthz")
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", pod.calls.port)) != 0
