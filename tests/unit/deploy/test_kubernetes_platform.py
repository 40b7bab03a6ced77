"""What `fn` asks of a cluster's namespace, by plain calls, over an API server in memory."""

import asyncio

import pytest
from fleetfn.errors import TargetError
from fleetfn_deploy.kubernetes.images import KnownImages
from fleetfn_deploy.kubernetes.platform import NamespacePlatform
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_deploy.target import Source
from fleetfn_spec.gateway import GatewayStatus
from fleetfn_spec.load import load_function
from memory_cluster import MemoryCluster, access, fleet_environment

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


class Gateway:
    """What of the calls is handed on to it."""

    def gateway(self):
        return GatewayStatus(pid=1, data="", bytes=0, quota=0)

    def dead(self, **which):
        return [which]


@pytest.fixture
def server():
    return MemoryCluster()


@pytest.fixture
def platform(server, tmp_path):
    """Of a namespace in which two revisions of a function were deployed."""
    (tmp_path / "function.yaml").write_text(FUNCTION)
    (tmp_path / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    source, gateway = Source(tmp_path, load_function(tmp_path)), Gateway()
    images = KnownImages(f"r.test/gateway@sha256:{0:064x}")

    async def deploy():
        for number in (1, 2):
            images.references["hello"] = f"r.test/hello@sha256:{number:064x}"
            target = KubernetesTarget(server.cluster(), images, gateway=gateway, limit=1)
            await target.deploy(source, fleet_environment(), progress=lambda _: None)

    asyncio.run(deploy())
    return NamespacePlatform(access(), "fleet", images, connect=server.cluster, gateway=gateway)


def test_functions_are_listed_described_paused_and_resumed(platform):
    assert [each.name for each in platform.functions()] == ["hello"]
    assert platform.pause("hello").phase == "paused"
    assert platform.resume("hello", ["web"]).phase == "sleeping"
    assert platform.function("hello").revision.number == 2


def test_a_rollback_tells_its_steps_and_then_the_revision(platform):
    with platform.rollback("hello") as lines:
        *steps, last = lines
    assert all(each.step for each in steps)
    assert (last.revision.number, last.revision.digest) == (3, platform.revisions("hello")[0].digest)


def test_a_rollback_that_is_refused_ends_with_the_reason(platform):
    with pytest.raises(TargetError, match="no revision 'ffff'"):
        list(platform.rollback("hello", "ffff"))


def test_logs_are_chosen_by_level_and_not_by_key(platform, server):
    labels = {"fleetfn.dev/function": "hello", "fleetfn.dev/part": "worker"}
    server.objects["pods", "fleet", "p"] = {"metadata": {"name": "p", "labels": labels}, "status": {}}
    server.logs["p", "worker"] = [b'{"level": "info", "message": "a"}', b'{"level": "error", "message": "b"}']
    assert list(platform.logs("hello", level="error")) == [b'{"level": "error", "message": "b"}']
    with pytest.raises(TargetError, match="by key"):
        platform.logs("hello", key="v1")


def test_a_function_is_deleted(platform):
    platform.delete("hello", keep_state=True)
    assert platform.functions() == []


def test_dead_letters_are_the_gateway_s(platform):
    assert platform.dead(function="hello", limit=3) == [{"function": "hello", "limit": 3}]
