"""The scaler as KEDA meets it: gRPC over mutual TLS, activity pushed at once, its load as a metric."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest
import uvloop
from certificates import Authority
from fleetfn.errors import UsageError
from fleetfn_gateway.cluster import scaler
from fleetfn_gateway.cluster.demand import Demand
from fleetfn_gateway.cluster.kube_objects import Meta, Pod, PodStatus
from fleetfn_gateway.cluster.pods import Pods
from fleetfn_gateway.cluster.scaler import Scaler
from fleetfn_gateway.cluster.scaler_messages import _fields
from fleetfn_gateway.dispatch import Load
from fleetfn_plumbing.tls import TlsFolder
from fleetfn_spec.cluster import LABEL_FUNCTION
from gateway_doubles import until
from grpc import aio
from keda_client import Keda, block, reference

LIMIT = 60


@pytest.fixture
def authority():
    return Authority()


@asynccontextmanager
async def serving(tmp_path, authority):
    """A scaler, its demand, its pods, the rows it sees."""

    class Place:
        rows = Load()

    place = Place()
    place.pods = Pods(lambda _: None)
    place.demand = Demand(place.pods, lambda _: place.rows)
    folder = authority.issue(tmp_path / "gateway", "fleetfn-gateway")
    place.scaler = Scaler(place.demand, TlsFolder(folder))
    await place.scaler.open("127.0.0.1", 0)
    place.keda = Keda(place.scaler.port, authority.issue(tmp_path / "keda", "keda"))
    try:
        yield place
    finally:
        await place.keda.channel.close()
        await place.scaler.close()


@pytest.fixture
async def place(tmp_path, authority):
    async with serving(tmp_path, authority) as place:
        yield place


def pod(name="f-1", ip="10.9.9.9", **more):
    return Pod(metadata=Meta(name=name, labels={LABEL_FUNCTION: "f"}), status=PodStatus(pod_ip=ip, **more))


async def test_a_function_that_nobody_needs_is_not_active(place):
    assert await place.keda.ask("IsActive", reference()) == b""


async def test_rows_that_can_run_make_it_active_and_are_its_metric(place):
    place.rows = Load(ready=7, in_flight=3)
    assert await place.keda.ask("IsActive", reference()) == b"\x08\x01"
    answer = await place.keda.ask("GetMetrics", block(1, reference()) + block(2, b"work"))
    [(_, value)] = _fields(answer)
    fields = dict(_fields(value))
    assert (fields[1], fields[2]) == (b"work", 10)


async def test_the_target_is_the_concurrency_that_the_scaled_object_names(place):
    [(_, spec)] = _fields(await place.keda.ask("GetMetricSpec", reference(concurrency="64")))
    assert dict(_fields(spec))[2] == 64


async def test_activity_is_pushed_at_once_and_again_until_there_is_a_pod(place, monkeypatch):
    never = 10 * LIMIT
    monkeypatch.setattr(scaler, "LOOK", never)
    stream = place.keda.stream(reference())
    await until(lambda: place.demand.listeners("f"))
    with place.demand.waiting("f"):
        began = time.monotonic()
        assert await asyncio.wait_for(stream.read(), LIMIT) == b"\x08\x01"
        for _ in range(3):
            await asyncio.wait_for(stream.read(), LIMIT)
        assert time.monotonic() - began >= 2 * scaler.AGAIN  # whenever the first one was read
        monkeypatch.setattr(scaler, "AWAKE", never)
        await place.pods.replace([pod()])
        with pytest.raises(TimeoutError):
            await read_on(stream, 4 * scaler.AGAIN)  # some may be under way
    stream.cancel()


async def read_on(stream, seconds):
    """Until nothing comes for so long."""
    while True:
        await asyncio.wait_for(stream.read(), seconds)


async def test_of_a_function_that_has_a_pod_it_is_pushed_now_and_then(place, monkeypatch):
    monkeypatch.setattr(scaler, "AGAIN", 10 * LIMIT)
    monkeypatch.setattr(scaler, "AWAKE", 0.2)
    await place.pods.replace([pod()])
    stream = place.keda.stream(reference())
    with place.demand.waiting("f"):
        for _ in range(3):
            assert await asyncio.wait_for(stream.read(), LIMIT) == b"\x08\x01"
    stream.cancel()


async def test_a_stream_ends_with_the_gateway(place, monkeypatch):
    monkeypatch.setattr(scaler, "_GRACE", LIMIT)
    stream = place.keda.stream(reference())
    await until(lambda: place.demand.listeners("f"))
    await asyncio.wait_for(place.scaler.close(), LIMIT)
    assert await asyncio.wait_for(stream.read(), LIMIT) is aio.EOF
    assert not place.demand.listeners("f")


async def test_nobody_but_keda_is_answered(place, authority, tmp_path):
    other = Keda(place.scaler.port, authority.issue(tmp_path / "f", "some-function"))
    with pytest.raises(grpc.RpcError, match="'some-function' is not 'keda'") as refused:
        await other.ask("IsActive", reference())
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
    stranger = Keda(place.scaler.port, Authority().issue(tmp_path / "x", "keda", trusted=authority))
    with pytest.raises(grpc.RpcError) as refused:
        await stranger.ask("IsActive", reference())
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    await other.channel.close()
    await stranger.channel.close()


async def test_renewed_certificates_hold_for_connections_from_then_on(place, authority, tmp_path):
    renewed = Authority("another authority")
    renewed.issue(tmp_path / "gateway", "fleetfn-gateway")
    keda = Keda(place.scaler.port, renewed.issue(tmp_path / "new", "keda"))
    assert await keda.ask("IsActive", reference()) == b""
    await keda.channel.close()


async def test_without_certificates_it_says_where_it_looked(tmp_path):
    pods = Pods(lambda _: None)
    with pytest.raises(UsageError, match="nowhere"):
        await Scaler(Demand(pods, lambda _: Load()), TlsFolder(tmp_path / "nowhere")).open("127.0.0.1", 0)


def test_it_serves_on_the_loop_that_gateways_run_on(tmp_path, authority):
    async def ask():
        async with serving(tmp_path, authority) as place:
            stream = place.keda.stream(reference())
            with place.demand.waiting("f"):
                first = await asyncio.wait_for(stream.read(), LIMIT)
                return first, await place.keda.ask("IsActive", reference())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask()) == (b"\x08\x01", b"\x08\x01")
