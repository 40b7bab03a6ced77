"""How a cluster is reached, what it is asked before a deploy, and what its refusals become."""

import asyncio
import itertools
import json
import threading

import httpx
import pytest
import yaml
from fleetfn.errors import TargetError
from fleetfn_deploy.kubernetes import access, gateway_objects, kinds, logs, pods, preflight, rights
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.refusals import UnreachableError
from fleetfn_deploy.kubernetes.telling import Telling
from memory_cluster import MemoryCluster, RefusedError, fleet_environment
from memory_cluster import access as memory_access


def kubeconfig(path, user, current="one"):
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "fleet"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
        "current-context": current,
    }
    path.write_text(yaml.safe_dump(found))
    return str(path)


def test_a_context_gives_address_namespace_and_credentials(tmp_path):
    found = access.find(kubeconfig=kubeconfig(tmp_path / "config", {"token": "secret"}))
    assert (found.server, found.context, found.namespace) == ("http://127.0.0.1:1", "one", "fleet")
    assert found.authorization() == "Bearer secret"
    assert access.find("two", kubeconfig=str(tmp_path / "config")).namespace == "default"


@pytest.mark.parametrize(
    ("context", "current", "said"),
    [("three", "one", "has no context 'three'"), (None, "", "names no current context")],
)
def test_without_a_context_those_there_are_listed(tmp_path, context, current, said):
    with pytest.raises(TargetError, match=said) as caught:
        access.find(context, kubeconfig=kubeconfig(tmp_path / "config", {}, current))
    assert "It has: one, two." in caught.value.hint


def test_a_kubeconfig_that_is_not_there_or_not_yaml(tmp_path):
    with pytest.raises(TargetError, match="there is no kubeconfig"):
        access.find(kubeconfig=str(tmp_path / "none"))
    for broken in ("[", "text", ""):
        (tmp_path / "config").write_text(broken)
        with pytest.raises(TargetError, match="cannot be used"):
            access.find(kubeconfig=str(tmp_path / "config"))


def test_a_login_command_that_fails_is_named(tmp_path):
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/false", "interactiveMode": "Never"}
    with pytest.raises(TargetError, match="'/bin/false', by which the kubeconfig logs user 'u' in"):
        access.find(kubeconfig=kubeconfig(tmp_path / "config", {"exec": login}))


async def test_a_cluster_that_is_not_there_is_named_by_its_address(tmp_path):
    found = access.find(kubeconfig=kubeconfig(tmp_path / "config", {}))
    async with Cluster(found) as cluster:
        with pytest.raises(UnreachableError, match=r"context 'one' \(http://127.0.0.1:1\)"):
            await cluster.version()


async def test_an_answer_of_not_now_is_asked_for_again():
    answers = iter([httpx.Response(503), httpx.Response(200, json={"major": "1", "minor": "30+"})])
    transport = httpx.MockTransport(lambda _: next(answers))
    async with Cluster(memory_access(), transport=transport) as cluster:
        assert await cluster.version() == (1, 30)


async def ready(server, **kubernetes):
    return await preflight.check(server.cluster(), fleet_environment(**kubernetes))


async def test_a_cluster_that_is_ready_has_nothing_to_be_said_but_that_keda_hides_its_version():
    assert await ready(MemoryCluster()) == ["KEDA's version cannot be seen from here; it must be 2.13 or later"]


async def test_a_namespace_that_is_missing():
    with pytest.raises(TargetError, match="has no namespace 'fleet'") as caught:
        await ready(MemoryCluster(namespaces=()))
    assert caught.value.hint == "Make it: kubectl create namespace fleet"


async def test_all_rights_that_are_missing_are_listed_with_the_role_that_gives_them():
    server = MemoryCluster()
    server.ruled = ["pods", "secrets"]
    server.denied = {("patch", "deployments"), ("create", "deployments"), ("get", "pods")}
    with pytest.raises(TargetError) as caught:
        await ready(server)
    assert "to: deployments.apps (create, patch)" in caught.value.message
    assert '- {apiGroups: ["apps"], resources: [deployments], verbs: [create, patch]}' in caught.value.hint


def test_what_the_gateway_may_is_asked_of_who_deploys_it():
    """Nobody can grant more than he has."""
    asked = {(need.kind.group, need.kind.plural, need.verb) for need in rights.NEEDS if not need.part}
    (granted,) = [each["rules"] for each in gateway_objects.rights("fleet") if each["kind"] == "Role"]
    for rule in granted:
        assert set(itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])) <= asked


async def test_kinds_that_are_not_needed_may_be_forbidden():
    server = MemoryCluster()
    server.denied = {("list", "interceptorroutes"), ("list", "pods")}
    assert await server.cluster().list(kinds.INTERCEPTOR_ROUTE) == []
    with pytest.raises(TargetError, match="no right to list pods"):
        await server.cluster().list(kinds.POD)


async def test_everything_that_is_missing_is_told_at_once():
    server = MemoryCluster()
    server.ruled = []
    server.denied = {("create", "leases")}
    server.unknown = {"scaledobjects", "triggerauthentications", "interceptorroutes"}
    server.minor = "28"
    with pytest.raises(TargetError) as caught:
        await ready(server)
    assert "is Kubernetes 1.28" in caught.value.message
    assert "has no KEDA: it does not know scaledobjects.keda.sh" in caught.value.message
    assert "https://keda.sh/docs/latest/deploy/" in caught.value.message


@pytest.mark.parametrize(("image", "refused"), [("ghcr.io/kedacore/keda:2.11.2", True), ("x/keda:v2.20.2", False)])
async def test_keda_is_to_be_of_an_age(image, refused):
    server = MemoryCluster()
    operator = {
        "metadata": {"name": "keda-operator"},
        "spec": {"template": {"spec": {"containers": [{"image": image}]}}},
    }
    server.objects["deployments", "keda", "keda-operator"] = operator
    if not refused:
        assert await ready(server) == []
        return
    with pytest.raises(TargetError, match=r"has KEDA 2\.11"):
        await ready(server)


async def test_the_http_add_on_only_where_it_is_asked_for():
    server = MemoryCluster()
    server.unknown = {"interceptorroutes"}
    await ready(server)
    with pytest.raises(TargetError, match="http-add-on"):
        await ready(server, addOn={})


REFUSALS = {
    "rights": (
        RefusedError(403, 'services is forbidden: User "u" cannot create resource "services"', "Forbidden"),
        "no right to create services in namespace 'fleet'",
        'resources: ["services"], verbs: [create]',
    ),
    "quota": (
        RefusedError(403, "services is forbidden: exceeded quota: q, requested: services=1, used: services=1"),
        "ResourceQuota q is exceeded",
        "kubectl describe resourcequota q",
    ),
    "webhook": (
        RefusedError(400, 'admission webhook "rules.test" denied the request: no services here'),
        r"rules \(rules.test\) do not allow Service web: no services here",
        "who runs it",
    ),
    "policy": (
        RefusedError(403, 'services "web" is forbidden: violates PodSecurity "restricted:latest"', "Forbidden"),
        "does not allow Service web: .*PodSecurity",
        "A policy of this cluster",
    ),
    "credentials": (RefusedError(401, "Unauthorized", "Unauthorized"), "does not accept the credentials", "Log in"),
    "invalid": (
        RefusedError(422, "spec.ports: Required value", "Invalid"),
        "does not take Service web: spec.ports",
        "",
    ),
}


@pytest.mark.parametrize(("refusal", "message", "hint"), REFUSALS.values(), ids=REFUSALS)
async def test_refusals_say_what_was_asked_why_not_and_what_to_do(refusal, message, hint):
    server = MemoryCluster()
    server.refusals.append(lambda *_: refusal)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    with pytest.raises(TargetError, match=message) as caught:
        await server.cluster().create(service)
    assert hint in caught.value.hint


def pod(**status):
    return {"kind": "Pod", "metadata": {"name": "p"}, "status": status}


def container(**state):
    return {"containerStatuses": [{"name": "worker", "image": "r/x:1", "state": state}]}


TROUBLES = {
    "no node": (
        {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
            ]
        },
        "pod p finds no node: 0/3 nodes",
        False,
    ),
    "first failed pull": (
        container(waiting={"reason": "ErrImagePull", "message": "not found"}),
        "image 'r/x:1' cannot be pulled (ErrImagePull): not found",
        False,
    ),
    "no image": (
        container(waiting={"reason": "ImagePullBackOff", "message": "Back-off"}),
        "image 'r/x:1' cannot be pulled (ImagePullBackOff): Back-off",
        True,
    ),
    "no secret": (
        container(waiting={"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}),
        'container worker of pod p does not start (CreateContainerConfigError): secret "s" not found',
        False,
    ),
    "too much memory": (
        container(terminated={"exitCode": 137, "reason": "OOMKilled"}),
        "container worker of pod p needed more memory than its limit and was killed",
        True,
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "low on disk"},
        "pod p failed: Evicted low on disk",
        True,
    ),
}


@pytest.mark.parametrize(("status", "message", "final"), TROUBLES.values(), ids=TROUBLES)
def test_a_pod_tells_its_trouble(status, message, final):
    found = pods.trouble(pod(**status))
    assert (found.message, found.final) == (message, final)


@pytest.mark.parametrize(("policy", "final"), [("Never", True), ("Always", False)])
def test_a_container_that_is_started_again_may_get_ready_yet(policy, final):
    killed = pod(**container(terminated={"exitCode": 137, "reason": "Error"})) | {"spec": {"restartPolicy": policy}}
    assert pods.trouble(killed).final is final


@pytest.mark.parametrize("status", [{}, container(waiting={"reason": "ContainerCreating"}), container(running={})])
def test_a_pod_that_is_on_its_way_has_none(status):
    assert pods.trouble(pod(**status)) is None


def test_a_worker_s_log_lines_are_read_for_people():
    line = {"level": "error", "message": "cannot bind", "exception": "TypeError: x", "traceback": "a\nb\n"}
    assert pods.readable(json.dumps(line).encode()) == ["ERROR cannot bind: TypeError: x", "a", "b"]
    assert pods.readable(b"plain") == ["plain"]


def worker(server, name):
    labels = {"fleetfn.dev/function": "hello", "fleetfn.dev/part": "worker"}
    server.objects["pods", "fleet", name] = {
        "metadata": {"name": name, "uid": name, "labels": labels},
        "status": {"containerStatuses": [{"name": "worker", "state": {"running": {}}}]},
    }


async def test_logs_of_all_workers_come_in_order_of_time():
    server = MemoryCluster()
    for name in ("a", "b"):
        worker(server, name)
    server.logs = {("a", "worker"): [b"a1", b"a2"], ("b", "worker"): [b"b1", b"b2"]}
    found = [line async for line in logs.lines(server.cluster(), "hello", follow=False, since=0.0)]
    assert found == [b"a1", b"b1", b"a2", b"b2"]


async def test_logs_are_followed_over_pods_that_come():
    server = MemoryCluster()
    worker(server, "a")
    server.logs = {("a", "worker"): [b"a1"], ("b", "worker"): [b"b1"]}
    following = logs.lines(server.cluster(), "hello", follow=True, since=None)
    assert await anext(following) == b"a1"
    worker(server, "b")
    assert await asyncio.wait_for(anext(following), 60) == b"b1"
    await following.aclose()


def test_what_is_told_is_read_by_plain_code_and_ended_from_any_thread():
    async def counting():
        for number in range(2):
            yield number
        await asyncio.Event().wait()

    told = Telling(counting)
    assert [next(told), next(told)] == [0, 1]
    ending = threading.Timer(0.05, told.close)
    ending.start()
    assert list(told) == []
    ending.join()


def test_what_is_told_ends_with_its_error():
    async def failing():
        yield 1
        raise TargetError("no")

    with Telling(failing) as told:
        assert next(told) == 1
        with pytest.raises(TargetError):
            next(told)


def test_kinds_have_paths_with_and_without_a_namespace():
    assert kinds.POD.path("fleet", "p") == "/api/v1/namespaces/fleet/pods/p"
    assert kinds.DEPLOYMENT.path("") == "/apis/apps/v1/deployments"
    with pytest.raises(TargetError, match="no objects of kind 'Nothing'"):
        kinds.of({"apiVersion": "v9", "kind": "Nothing"})
