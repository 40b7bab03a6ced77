"""A worker as a cluster's pod runs it: deliveries and questions over mutual TLS, a gateway that may be away."""

import asyncio
import contextlib
import json
import tempfile
import threading
import time
import urllib.error
from functools import partial
from pathlib import Path

import msgspec
import pytest
from certificates import Authority
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_spec.cluster import GATEWAY, Activity
from fleetfn_spec.control import InvokeReply, InvokeRequest
from fleetfn_spec.load import load_function
from pod_process import Cluster, Pod
from tls_gateway import TlsGateway

pytestmark = pytest.mark.node

LIMIT = 60.0
DEADLY = 13

CODE = """
import time
from pathlib import Path

from fleetfn import Request


def note(n: int) -> None:
    if n == 13 and not Path("died").exists():
        Path("died").touch()
        time.sleep(60)
    with Path("seen").open("a") as file:
        file.write(f"{n}\\n")


def show(request: Request) -> str:
    while "held" in request.query and not Path("go").exists():
        time.sleep(0.01)
    return request.path_params["car"]
"""


FUNCTION = {
    "apiVersion": "fleetfn.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "notes"},
    "spec": {
        "handler": "handler:note",
        "triggers": [
            {"name": "note", "key": None, "http": {"path": "/note"}},
            {
                "name": "show",
                "handler": "handler:show",
                "key": "path.car",
                "http": {"path": "/show/{car}", "methods": ["GET"]},
            },
        ],
    },
}


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.fixture
def pod(cluster):
    pod = Pod(cluster, CODE, FUNCTION)
    yield pod
    pod.close()


@pytest.fixture
async def gateway(cluster, pod):
    with tempfile.TemporaryDirectory(prefix="fn-") as run:
        gateway = TlsGateway(
            cluster.folder / "inbox", Path(run) / "g", port=cluster.port, certificates=cluster.gateway, worker=pod.place
        )
        await gateway.start().serving()
        yield gateway
        await gateway.close()


async def until(said):
    async with asyncio.timeout(LIMIT):
        while not (await said() if asyncio.iscoroutinefunction(said) else said()):  # noqa: ASYNC110 - of others
            await asyncio.sleep(0.02)


def seen(pod):
    path = pod.folder / "seen"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


def function_of(pod):
    return load_function(pod.folder)


async def activity(client):
    return msgspec.json.decode((await client.request("GET", "/activity")).body, type=Activity)


async def later(pod, number):
    """Ask the pod to note it, without waiting: it is in the inbox then."""
    await asyncio.to_thread(pod.ask, "/note", str(number).encode(), prefer="respond-async")


async def accepted(pod, number):
    """Not while it finds that its gateway is away."""
    try:
        await later(pod, number)
    except urllib.error.HTTPError as error:
        if error.code != 503:
            raise
        return False
    return True


async def test_what_waits_goes_to_the_gateway_and_comes_back_through_kills_of_either(gateway, pod):
    await asyncio.to_thread(pod.start().ready)
    await gateway.tell(function_of(pod), pod.folder)
    for number in range(5):
        await later(pod, number)
    await until(lambda: seen(pod) == list(range(5)))

    await later(pod, DEADLY)
    await later(pod, 14)
    await until((pod.folder / "died").exists)
    pod.kill()
    await asyncio.to_thread(pod.start().ready)
    await until(lambda: set(seen(pod)) == {*range(5), 13, 14})  # 14 may have run before the kill, and again

    await gateway.kill()
    assert pod.ask("/show/a") == b"a"  # needs no gateway
    with pytest.raises(urllib.error.HTTPError, match="503"):
        await later(pod, 15)
    await gateway.start().serving()
    await until(partial(accepted, pod, 16))
    await until(lambda: seen(pod)[-1] == 16)
    assert await asyncio.to_thread(pod.stop) == 0


async def test_its_gateway_alone_may_ask_and_is_told_what_it_does(cluster, pod):
    await asyncio.to_thread(pod.start().ready)
    client = pod.client()
    said = await activity(client)
    assert said == Activity(ready=True, figures=said.figures)
    assert said.figures.counters.done == 0
    busy = asyncio.create_task(asyncio.to_thread(pod.ask, "/show/a?held=1"))

    async def runs():
        return (await activity(client)).in_flight == 1

    await until(runs)
    (pod.folder / "go").touch()
    await busy

    async def rests():
        now = await activity(client)
        return now.in_flight == 0 and now.last < LIMIT

    await until(rests)

    reply = await client.request(
        "POST", "/invoke", msgspec.json.encode(InvokeRequest(trigger="note", event={"data": 7}))
    )
    assert msgspec.json.decode(reply.body, type=InvokeReply).outcome == "done"

    other = pod.client(cluster.authority.issue(cluster.folder / "other", "another-function"))
    reply = await other.request("GET", "/activity")
    assert (reply.status, b"fleetfn-gateway may" in reply.body) == (403, True)
    stranger = pod.client(Authority().issue(cluster.folder / "stranger", GATEWAY, trusted=cluster.authority))
    with pytest.raises(UnreachableError):
        await stranger.request("GET", "/activity")
    for each in (client, other, stranger):
        await each.close()


async def test_triggers_are_paused_as_the_gateway_says(pod):
    await asyncio.to_thread(pod.start().ready)
    client = pod.client()
    assert (await client.request("POST", "/pause", b'{"triggers": ["show"]}')).status == 204
    assert (await activity(client)).paused == ("show",)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        await asyncio.to_thread(pod.ask, "/show/a")
    assert (await client.request("POST", "/resume", b"{}")).status == 204
    assert await asyncio.to_thread(pod.ask, "/show/a") == b"a"
    await client.close()


async def test_what_is_paused_is_known_from_the_start(gateway, pod):
    await gateway.tell(function_of(pod), pod.folder, paused=("show",))
    await asyncio.to_thread(pod.start().ready)
    client = pod.client()

    async def knows():
        return (await activity(client)).paused == ("show",)

    await until(knows)
    await client.close()


async def test_requests_that_come_as_it_ends_are_answered(pod):
    await asyncio.to_thread(pod.start().ready)
    replies = []

    def ask_on():
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            while True:
                replies.append(pod.ask("/show/a"))

    asking = threading.Thread(target=ask_on)
    asking.start()
    await until(lambda: len(replies) > 5)
    at = time.monotonic()
    pod.process.terminate()
    await until(lambda: not asking.is_alive())
    assert time.monotonic() - at > 0.8
    assert await asyncio.to_thread(pod.process.wait, LIMIT) == 0


async def test_renewed_certificates_are_taken_without_a_start(cluster, pod):
    await asyncio.to_thread(pod.start().ready)
    new = Authority()
    new.issue(pod.certificates, pod.name)
    old_gateway, new_gateway = pod.client(), pod.client(new.issue(cluster.folder / "new", GATEWAY))
    assert (await new_gateway.request("GET", "/healthz")).status == 200
    with pytest.raises(UnreachableError):
        await old_gateway.request("GET", "/healthz")
    await old_gateway.close()
    await new_gateway.close()


async def test_a_check_gets_ready_and_ends(gateway, pod):
    code, out, err = await asyncio.to_thread(pod.check)
    assert (code, err) == (0, "importing the handler\nchecking state samples\nreaching the gateway\n")
    told = json.loads(out)
    assert (told["ready"], told["function"], told["revision"]) == (True, "notes", "0123456789ab")


def test_a_check_says_in_words_what_is_wrong(cluster, pod):
    (pod.folder / "handler.py").write_text(f"import nonsuch\n{CODE}")
    code, out, err = pod.check()
    assert (code, out) == (1, "")
    assert err.startswith("importing the handler\nError: handler.py:1: handler needs the module 'nonsuch'")
