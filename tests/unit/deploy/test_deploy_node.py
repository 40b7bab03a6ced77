import asyncio
import io
import tarfile
import threading

import msgspec
import pytest
from fake_node import Lines, Refused
from fleetfn.errors import TargetError
from fleetfn_deploy.node import NodeTarget
from fleetfn_deploy.target import Digest, Source
from fleetfn_spec.control import DeployLine, Plan, Refusal, RevisionInfo
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.function import Function

FUNCTION = msgspec.convert(
    {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": "hello"},
        "spec": {"handler": "handler:hello", "triggers": [{"name": "web", "http": {"path": "/hello"}}]},
    },
    Function,
)
REVISION = RevisionInfo(name="hello", digest="abc", number=1, created=1, serving=True, environment="local")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "handler.py").write_text("def hello(): ...\n")
    return tmp_path


@pytest.fixture
def target(client):
    return NodeTarget(client)


async def test_deploy_sends_request_and_source_and_tells_steps(node, target, folder):
    node.answers["POST", "/v1/functions"] = Lines([DeployLine(step="importing handler"), DeployLine(revision=REVISION)])
    steps = []
    assert await target.deploy(Source(folder, FUNCTION), LOCAL, progress=steps.append) == REVISION
    assert steps == ["importing handler"]
    head, _, archive = node.last().body.partition(b"\n")
    assert msgspec.json.decode(head)["function"]["metadata"]["name"] == "hello"
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["handler.py"]


async def test_plan_asks_for_a_dry_run(node, target, folder):
    plan = Plan(name="hello", digest="abc", serving=None)
    node.answers["POST", "/v1/functions"] = Lines([DeployLine(plan=plan)])
    assert await target.plan(Source(folder, FUNCTION), LOCAL) == plan
    assert msgspec.json.decode(node.last().body.partition(b"\n")[0])["dry_run"] is True


async def test_a_refusal_in_the_middle_is_raised(node, target, folder):
    refusal = Refusal("handler.py:1: no module 'x'", problems=["handler.py:1: no module 'x'"])
    node.answers["POST", "/v1/functions"] = Lines([DeployLine(step="importing"), DeployLine(refusal=refusal)])
    with pytest.raises(TargetError, match="no module 'x'"):
        await target.deploy(Source(folder, FUNCTION), LOCAL, progress=lambda _: None)


async def test_an_answer_without_an_end_is_no_success(node, target, folder):
    node.answers["POST", "/v1/functions"] = Lines([DeployLine(step="importing")])
    with pytest.raises(TargetError, match="before the revision served"):
        await target.deploy(Source(folder, FUNCTION), LOCAL, progress=lambda _: None)


async def test_a_digest_is_a_switch_to_what_the_node_has(node, target):
    node.answers["POST", "/v1/functions/hello/rollback"] = Lines([DeployLine(revision=REVISION)])
    await target.deploy(Digest("hello", "abc"), LOCAL, progress=lambda _: None)
    assert node.last().json() == {"digest": "abc"}
    node.answers["GET", "/v1/functions/hello/revisions"] = [REVISION]
    assert (await target.plan(Digest("hello", "abc"), LOCAL)).serving == "abc"
    with pytest.raises(TargetError, match="no revision 'zzz'"):
        await target.plan(Digest("hello", "zzz"), LOCAL)


async def test_delete_and_status_pass_on(node, target):
    node.answers["DELETE", "/v1/functions/hello"] = None
    await target.delete("hello", keep_state=True)
    assert node.last().query == {"state": "keep"}
    node.answers["GET", "/v1/functions"] = []
    assert await target.status() == []
    node.answers["GET", "/v1/functions/hello"] = Refused(404, "no function 'hello'")
    with pytest.raises(TargetError):
        await target.status("hello")


async def test_cancelling_closes_the_answer(node, target):
    written = threading.Event()

    def lines():
        yield b"{}\n"
        written.wait(60)
        for _ in range(1000):
            yield b"{}\n"

    node.answers["GET", "/v1/functions/hello/logs"] = Lines(lines())
    seen = asyncio.Queue()

    async def follow():
        async for line in target.logs("hello", follow=True, since=None):
            seen.put_nowait(line)

    task = asyncio.create_task(follow())
    assert await seen.get() == b"{}"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    written.set()
