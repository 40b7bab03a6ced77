"""`fn` on a cluster: -E and FN_ENV mean it for every command about functions; what is a node's stays one's."""

import asyncio
import json

import pytest
from cluster_on_a_port import served
from fleetfn_deploy.kubernetes.images import KnownImages
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_deploy.target import Source
from fleetfn_spec.gateway import GatewayStatus
from fleetfn_spec.load import load_function
from memory_cluster import MemoryCluster, fleet_environment
from samples_of_control import INFO

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
  - {name: nightly, handler: handler:nightly, cron: {schedule: "@daily"}}
"""
HANDLER = """\
from fleetfn import Tick


def hello(name: str) -> str:
    return name


def nightly(tick: Tick) -> None: ...
"""
ENVIRONMENTS = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Environments
environments:
- {name: local, target: {node: {}}}
- {name: prod, target: {kubernetes: {namespace: fleet, registry: registry.test/fleet}}}
- {name: elsewhere, target: {kubernetes: {context: missing, namespace: fleet, registry: registry.test/fleet}}}
"""


class Gateway:
    def gateway(self):
        return GatewayStatus(pid=1, data="", bytes=0, quota=0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "environments.yaml").write_text(ENVIRONMENTS)
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "handler.py").write_text(HANDLER)
    return folder


@pytest.fixture
def server(folder):
    """With two revisions of a function."""
    server = MemoryCluster()
    images = KnownImages(f"r.test/gateway@sha256:{0:064x}")
    source = Source(folder, load_function(folder))

    async def deploy():
        for number in (1, 2):
            images.references["hello"] = f"r.test/hello@sha256:{number:064x}"
            target = KubernetesTarget(server.cluster(), images, gateway=Gateway(), limit=1)
            await target.deploy(source, fleet_environment(), progress=lambda _: None)

    asyncio.run(deploy())
    server.calls.clear()
    return server


@pytest.fixture
def cluster(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with served(server, tmp_path / "kubeconfig"):
        yield server


ASK_THE_CLUSTER = [
    ("list",),
    ("describe", "hello"),
    ("logs", "hello"),
    ("revisions", "hello"),
    ("rollback", "hello"),
    ("pause", "hello"),
    ("resume", "hello"),
    ("delete", "hello", "--yes"),
    ("certificates",),
]
ASK_ITS_GATEWAY = [
    ("invoke", "hello", "--data", "1"),
    ("send", "hello", "--trigger", "web", "--data", "1"),
    ("trigger", "fire", "hello"),
    ("state", "list", "hello"),
    ("state", "get", "hello", "V1"),
    ("dlq", "list"),
    ("dlq", "show", "1"),
    ("dlq", "redrive", "1"),
    ("dlq", "discard", "1", "--yes"),
]


@pytest.mark.parametrize("command", ASK_THE_CLUSTER, ids=lambda words: words[0])
def test_commands_are_about_the_environment_that_is_named(fn, cluster, command):
    said = fn(*command, "-E", "prod")
    assert said.status == 0, said.err
    assert cluster.calls


def test_the_gateway_goes_when_no_function_is_left(fn, cluster):
    said = fn("delete", "--gateway", "--yes", "-E", "prod")
    assert said.status == 1
    assert "the gateway of namespace 'fleet' serves hello" in said.err
    assert fn("delete", "hello", "--yes", "-E", "prod").status == 0
    said = fn("delete", "--gateway", "--yes", "-E", "prod", "-o", "json")
    assert json.loads(said.out) == {"deleted": "gateway", "data": "deleted"}
    assert "statefulsets" not in {kind for kind, *_ in cluster.objects}
    said = fn("delete", "--gateway", "--yes", "-E", "prod")
    assert "namespace 'fleet' has no gateway" in said.err


@pytest.mark.parametrize("words", [(), ("hello", "--gateway")], ids=["none", "both"])
def test_delete_is_told_one_thing(fn, cluster, words):
    said = fn("delete", *words, "--yes", "-E", "prod")
    assert said.status == 2
    assert "--gateway without one" in said.err
    assert cluster.calls == []


@pytest.mark.parametrize("command", ASK_ITS_GATEWAY, ids=" ".join)
def test_what_a_gateway_knows_is_asked_of_the_namespaces(fn, cluster, command):
    """Which cannot be reached here."""
    said = fn(*command, "-E", "prod")
    assert said.status == 1
    assert "namespace 'fleet' has no gateway now" in said.err
    assert "deploy one" in said.err


def test_the_variable_and_the_place_before_the_word_mean_the_same(fn, cluster, monkeypatch):
    named = fn("list", "-o", "json", "-E", "prod").out
    assert json.loads(named)[0]["name"] == "hello"
    assert fn("-E", "prod", "list", "-o", "json").out == named
    monkeypatch.setenv("FN_ENV", "prod")
    assert fn("list", "-o", "json").out == named


def test_without_one_it_is_the_node_even_beside_an_environments_yaml(fn, folder, cluster):
    said = fn("list")
    assert "node 'default' is not running" in said.err
    assert cluster.calls == []


def test_commands_of_nodes_pass_the_variable_over(fn, node, folder, cluster, monkeypatch):
    node.answers["GET", "/v1/node"] = INFO
    monkeypatch.setenv("FN_ENV", "prod")
    assert fn("version").status == 0
    assert cluster.calls == []


@pytest.mark.parametrize("command", ["up", "down", "version"])
def test_commands_of_nodes_do_not_take_the_option(fn, folder, command):
    said = fn(command, "-E", "prod")
    assert (said.status, said.out) == (2, "")
    assert "-E" in said.err


def test_options_of_nodes_are_refused_on_a_cluster(fn, folder, cluster):
    for option in ("--no-start", "--no-wait"):
        said = fn("deploy", folder, "-E", "prod", option)
        assert said.status == 2
        assert f"{option} is for a node" in said.err
    assert cluster.calls == []


def test_options_of_clusters_are_refused_on_a_node(fn, node, folder, tmp_path):
    wheel = tmp_path / "fleetfn-0.1.0-py3-none-any.whl"
    wheel.touch()
    for command in ("deploy", "diff"):
        for option in (["--force-conflicts"], ["--fleetfn", wheel]):
            said = fn(command, folder, *option)
            assert said.status == 2, said.err
            assert f"{option[0]} is for a cluster" in said.err
    assert node.asked == []


@pytest.mark.parametrize(
    "command", [("export",), ("certificates",), ("delete", "--gateway", "--yes")], ids=lambda words: words[0]
)
def test_what_only_clusters_have_is_refused_on_a_node(fn, folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    for named in ([], ["-E", "local"]):
        said = fn(*command, *named)
        assert said.status == 1
        assert "environment 'local' is no cluster" in said.err
        assert "-E NAME" in said.err


def test_an_environment_that_nobody_wrote(fn, folder):
    said = fn("list", "-E", "test")
    assert said.status == 2
    assert "there is no environment 'test'" in said.err
    assert "local, prod, elsewhere" in said.err


def test_a_context_that_the_kubeconfig_does_not_have(fn, cluster):
    said = fn("list", "-E", "elsewhere")
    assert said.status == 1
    assert "has no context 'missing'" in said.err
    assert "It has: fleet-prod." in said.err


def test_no_kubeconfig(fn, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    said = fn("list", "-E", "prod")
    assert said.status == 1
    assert f"there is no kubeconfig: {tmp_path / 'nowhere'}" in said.err


def test_hints_name_the_environment(fn, cluster):
    assert "fn resume hello -E prod" in fn("pause", "hello", "-E", "prod").err
    assert "fn rollback hello -E prod" in fn("revisions", "hello", "-E", "prod").err


def test_a_function_is_described_by_its_pods_and_without_sums_that_its_gateway_does_not_tell(fn, cluster):
    labels = {"fleetfn.dev/function": "hello", "fleetfn.dev/part": "worker", "fleetfn.dev/revision": "0"}
    cluster.objects["pods", "fleet", "hello-1"] = {
        "metadata": {"name": "hello-1", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"containerStatuses": [{"name": "worker", "restartCount": 2}]},
    }
    said = " ".join(fn("describe", "hello", "-E", "prod").out.split())
    assert "pod hello-1 starting 2 restarts" in said
    assert "Since its first deploy" not in said
    assert " 1 - 0 0 " in " ".join(fn("list", "-E", "prod").out.split())


def test_what_is_deleted_is_told_first(fn, cluster):
    said = fn("delete", "hello", "-E", "prod", "--yes")
    assert "its log goes with its pods" in " ".join(said.err.split())
    assert cluster.of("deployments") == {}


def test_log_lines_cannot_be_chosen_by_key(fn, cluster):
    said = fn("logs", "hello", "--key", "V1", "-E", "prod")
    assert said.status == 1
    assert "cannot be chosen by key in a cluster" in said.err
