"""Asking the API server, and following it: what is missed by nobody, and what is said when it refuses."""

import asyncio
import base64
import ssl

import pytest
from certificates import Authority
from fake_api_server import FakeApi
from fleetfn.errors import UsageError
from fleetfn_gateway.cluster import kube_access
from fleetfn_gateway.cluster.kube import Kube, KubeAwayError, KubeError
from fleetfn_gateway.cluster.kube_objects import CONFIG_MAPS, PODS, SECRETS, SLICES, ConfigMap, Pod, Secret
from fleetfn_gateway.cluster.watching import Watching
from gateway_doubles import until


@pytest.fixture
async def api():
    async with FakeApi() as api:
        yield api


@pytest.fixture
async def kube(api):
    kube = Kube(api.access, "alerts")
    yield kube
    await kube.close()


class Follower:
    """What a Watching told."""

    def __init__(self, kube):
        self.lists = []
        self.changes = []
        self.fails = 0
        self.watching = Watching(
            kube, CONFIG_MAPS, ConfigMap, "fleetfn.dev/part=head", replace=self._replace, change=self._change
        )

    async def _replace(self, items):
        self.lists.append(sorted(each.metadata.name for each in items))

    async def _change(self, item, deleted):
        if self.fails:
            self.fails -= 1
            raise RuntimeError("a defect")
        self.changes.append((item.metadata.name, deleted))


@pytest.fixture
async def follower(api, kube):
    api.head("a", "{}")
    api.put("configmaps", "other", labels={})
    follower = Follower(kube)
    task = asyncio.create_task(follower.watching.run())
    await until(lambda: follower.lists)
    yield follower
    task.cancel()


async def test_all_there_are_then_each_change(api, follower):
    api.head("b", "{}")
    api.put("configmaps", "c", labels={})
    api.remove("configmaps", "a")
    await until(lambda: len(follower.changes) == 2)
    assert (follower.lists, follower.changes) == ([["a"]], [("b", False), ("a", True)])


async def test_a_watch_goes_on_where_the_connection_ended(api, follower):
    await until(lambda: ("watch", "configmaps", "") in api.asked)
    await api.stop()
    api.head("b", "{}")
    await until(lambda: "does not answer" in follower.watching.problem)
    await api.start()
    await until(lambda: follower.changes == [("b", False)])
    assert len(follower.lists) == 1
    assert follower.watching.problem == ""


async def test_what_the_api_server_has_forgotten_is_listed_anew(api, follower):
    await until(lambda: ("watch", "configmaps", "") in api.asked)
    api.head("b", "{}")
    api.forget()
    await until(lambda: len(follower.lists) == 2)
    await api.stop()
    api.head("c", "{}")
    api.forget()
    await api.start()
    await until(lambda: len(follower.lists) == 3)
    assert follower.lists[-1] == ["a", "b", "c"]


async def test_a_bookmark_moves_the_version_on(api, follower):
    await until(lambda: ("watch", "configmaps", "") in api.asked)
    api.put("pods", "p", labels={})
    api.bookmark()
    api.head("b", "{}")
    await until(lambda: follower.changes)
    api.forgotten = api.version - 1
    await api.stop()
    await api.start()
    api.head("c", "{}")
    await until(lambda: len(follower.changes) == 2)
    assert len(follower.lists) == 1


async def test_a_defect_in_what_is_done_with_a_change_has_all_listed_anew(api, follower, caplog):
    await until(lambda: ("watch", "configmaps", "") in api.asked)
    follower.fails = 1
    api.head("b", "{}")
    await until(lambda: len(follower.lists) == 2)
    assert "a defect" in caplog.text


async def test_a_missing_right_is_named_and_looked_for_again(api, kube):
    api.denied.add(("watch", "configmaps"))
    follower = Follower(kube)
    task = asyncio.create_task(follower.watching.run())
    problem = await until(lambda: follower.watching.problem)
    assert "does not let user 'test' watch configmaps in namespace 'alerts'" in problem
    assert "needs the verb 'watch' on 'configmaps'" in problem
    api.denied.clear()
    await until(lambda: not follower.watching.problem)
    task.cancel()


@pytest.mark.parametrize(
    ("verb", "resource", "call"),
    [
        ("list", PODS, lambda kube: kube.list(PODS, Pod)),
        ("get", SECRETS, lambda kube: kube.get(SECRETS, "mqtt", Secret)),
        ("patch", SLICES, lambda kube: kube.apply(SLICES, "f", {})),
        ("delete", SLICES, lambda kube: kube.delete(SLICES, "f")),
    ],
)
async def test_each_refusal_names_verb_and_resource(api, kube, verb, resource, call):
    api.denied.add((verb, resource.plural))
    with pytest.raises(KubeError, match=f"{verb} {resource.plural}") as refused:
        await call(kube)
    assert refused.value.status == 403
    assert f"'{verb}' on '{resource.plural}' (apiGroup '{resource.group}')" in refused.value.hint


async def test_the_token_is_read_for_each_call(api, kube):
    api.shown = "first"
    await kube.list(PODS, Pod)
    api.shown = "second"
    await kube.list(PODS, Pod)


async def test_who_is_not_known_is_told(api):
    api.shown = "right"
    kube = Kube(kube_access.Access(f"http://127.0.0.1:{api.port}", None, lambda: "wrong", "user 'test'"), "alerts")
    with pytest.raises(KubeError, match="does not know user 'test'"):
        await kube.list(PODS, Pod)
    await kube.close()


async def test_an_api_server_that_is_away_is_named(api, kube):
    await api.stop()
    with pytest.raises(KubeAwayError, match=f"127.0.0.1:{api.port} does not answer"):
        await kube.list(PODS, Pod)
    await api.start()


async def test_what_is_gone_already_is_deleted(kube):
    await kube.delete(SLICES, "nothing")


def test_a_kubeconfig_with_certificates(tmp_path):
    authority = Authority()
    issued = authority.issue(tmp_path / "admin", "admin")
    encoded = {name: base64.b64encode((issued / name).read_bytes()).decode() for name in ("tls.crt", "tls.key")}
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    path = tmp_path / "config"
    path.write_text(f"""
current-context: here
contexts: [{{name: here, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "https://10.0.0.1:6443/", certificate-authority: ca.pem}}}}]
users: [{{name: u, user: {{client-certificate-data: {encoded["tls.crt"]}, client-key-data: {encoded["tls.key"]}}}}}]
""")
    access = kube_access.by_kubeconfig(path)
    assert access.url == "https://10.0.0.1:6443"
    assert access.context.verify_mode is ssl.CERT_REQUIRED
    assert access.token() is None
    assert len(access.context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "current-context"),
        ("current-context: x\ncontexts: []", "cannot be used|lacks"),
        ("[", "cannot be used"),
    ],
)
def test_a_kubeconfig_that_lacks_something_is_refused(tmp_path, text, said):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        kube_access.by_kubeconfig(path)


def test_outside_of_pods_a_kubeconfig_is_asked_for(tmp_path):
    with pytest.raises(UsageError, match="no pod") as refused:
        kube_access.in_pod({}, tmp_path)
    assert "--kubeconfig" in refused.value.hint


def test_a_pods_own_account(tmp_path):
    (tmp_path / "ca.crt").write_bytes(Authority().pem)
    (tmp_path / "token").write_text("first\n")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = kube_access.in_pod(environ, tmp_path)
    (tmp_path / "token").write_text("second\n")
    assert (access.url, access.token()) == ("https://[fd00::1]:443", "second")
