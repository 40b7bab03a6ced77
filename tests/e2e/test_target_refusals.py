"""What goes wrong on a real cluster: told in words, and what served before serves on."""

import asyncio
import contextlib
import re
import threading
import time
from urllib.parse import urlsplit

import pytest
import yaml
from built_functions import images, place, source
from fleetfn.errors import TargetError
from fleetfn_deploy.kubernetes import access, preflight
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.images import Built
from fleetfn_deploy.kubernetes.target import KubernetesTarget

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def environment(kubectl, registry_address, python_image):
    return place(kubectl, registry_address, python_image)


@pytest.fixture
async def cluster(kubeconfig, kubectl):
    async with Cluster(access.find(kubeconfig=str(kubeconfig)), kubectl.namespace) as cluster:
        yield cluster


class Given:
    """Images that are built, but for a function's that is named."""

    def __init__(self, reference=None):
        self.reference = reference

    def image(self, *asked):
        return images().image(*asked) if self.reference is None else Built(self.reference)

    def gateway(self, *asked):
        return images().gateway(*asked)


class Together(Given):
    """Each image is given when two are built."""

    def __init__(self):
        super().__init__()
        self._both = threading.Barrier(2)

    def image(self, *asked):
        built = super().image(*asked)
        self._both.wait(120)
        return built


def target(cluster, **more):
    given = more.pop("given", None) or Given(more.pop("image", None))
    return KubernetesTarget(cluster, given, **{"limit": 90, **more})


async def deploy(cluster, environment, what, **more):
    return await target(cluster, **more).deploy(what, environment, progress=lambda _: None)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return source(tmp_path_factory.mktemp("one"), "# one")


@pytest.fixture
async def serving(cluster, environment, one):
    """What serves before something goes wrong, and has to afterwards."""
    revision = await deploy(cluster, environment, one)
    yield revision
    (status,) = await target(cluster).status("hello")
    assert status.revision.digest == revision.digest


async def test_an_image_that_cannot_be_pulled(cluster, environment, serving, registry_address, tmp_path):
    missing = f"{registry_address}/nobody/nothing@sha256:{'1' * 64}"
    with pytest.raises(TargetError) as caught:
        await deploy(cluster, environment, source(tmp_path, "# two"), image=missing)
    assert f"image '{missing}' cannot be pulled" in caught.value.message
    assert "not found" in caught.value.message
    assert "goes on serving" in caught.value.hint


async def test_a_handler_that_cannot_be_imported(cluster, environment, serving, tmp_path):
    with pytest.raises(TargetError) as caught:
        await deploy(cluster, environment, source(tmp_path, "raise RuntimeError('on purpose')"))
    assert "RuntimeError: on purpose" in caught.value.message


async def test_a_full_quota(cluster, environment, serving, kubectl, tmp_path):
    kubectl("create", "quota", "small", "--hard=pods=1")
    try:
        # It counts from then on.
        kubectl("wait", "--for=jsonpath={.status.hard.pods}=1", "--timeout=60s", "quota/small")
        with pytest.raises(TargetError, match="ResourceQuota small is exceeded") as caught:
            await deploy(cluster, environment, source(tmp_path, "# two"))
        assert "kubectl describe resourcequota small" in caught.value.hint
    finally:
        kubectl("delete", "quota", "small")


async def test_fields_that_somebody_else_manages(cluster, environment, serving, kubectl, tmp_path):
    kubectl("annotate", "service", "hello", "fleetfn.dev/version=mine", "--overwrite", "--field-manager=somebody")
    what = source(tmp_path, "# two")
    with pytest.raises(TargetError) as caught:
        await deploy(cluster, environment, what)
    assert re.search(r"annotations.*is kept by somebody", caught.value.message)
    await target(cluster, force=True).deploy(what, environment, progress=lambda _: None)
    await target(cluster).rollback("hello")


async def test_another_owner_s_objects(cluster, environment, kubectl, tmp_path):
    await target(cluster).delete("hello", keep_state=False)
    kubectl("create", "service", "clusterip", "hello", "--tcp=80")
    kubectl("label", "service", "hello", "app.kubernetes.io/managed-by=Helm")
    try:
        with pytest.raises(TargetError, match="Service hello: managed by Helm"):
            await deploy(cluster, environment, source(tmp_path, "# one"))
        assert kubectl.read("configmaps", "--selector=fleetfn.dev/function=hello")["items"] == []
    finally:
        kubectl("delete", "service", "hello")


def as_account(kubectl, kubeconfig, folder, name):
    """A kubeconfig for a ServiceAccount of the namespace."""
    kubectl("create", "serviceaccount", name)
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"] = [{"name": name, "user": {"token": kubectl("create", "token", name).strip()}}]
    for each in config["contexts"]:
        each["context"]["user"] = name
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


async def allowed(cluster, environment):
    """The API server learns of a Role a moment after it has taken it."""
    limit = time.monotonic() + 60
    while True:
        try:
            await preflight.check(cluster, environment)
        except TargetError:
            if time.monotonic() > limit:
                raise
            await asyncio.sleep(0.1)
        else:
            return


async def test_the_role_that_is_asked_for_is_enough(environment, kubectl, kubeconfig, one, tmp_path):
    path = as_account(kubectl, kubeconfig, tmp_path, "nobody")
    async with Cluster(access.find(kubeconfig=str(path)), kubectl.namespace) as cluster:
        with pytest.raises(TargetError) as caught:
            await preflight.check(cluster, environment)
        assert "deployments.apps (get, list, create, patch, delete)" in caught.value.message
        rules = yaml.safe_load(caught.value.hint.partition("\n")[2])
        kubectl.apply(
            {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "fn"}, "rules": rules},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "fn"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "fn"},
                "subjects": [{"kind": "ServiceAccount", "name": "nobody", "namespace": kubectl.namespace}],
            },
        )
        await allowed(cluster, environment)
        assert (await deploy(cluster, environment, one)).serving
        (status,) = await target(cluster).status("hello")
        assert status.problems == []
        await target(cluster).delete("hello", keep_state=False)
        await target(cluster).delete_gateway(keep_data=True)


async def test_credentials_that_nobody_knows(environment, kubeconfig, tmp_path, kubectl):
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"] = [{"name": each["name"], "user": {"token": "wrong"}} for each in config["users"]]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    async with Cluster(access.find(kubeconfig=str(tmp_path / "kubeconfig")), kubectl.namespace) as cluster:
        with pytest.raises(TargetError, match="does not accept the credentials"):
            await preflight.check(cluster, environment)


class Road:
    """A way to the API server that can be closed."""

    def __init__(self, host, port):
        self.to = (host, port)
        self.writers = set()

    async def open(self):
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def carry(self, reader, writer):
        there, back = await asyncio.open_connection(*self.to)
        self.writers |= {writer, back}
        await asyncio.gather(self.copy(reader, back), self.copy(there, writer))

    async def copy(self, reader, writer):
        with contextlib.suppress(OSError):
            while block := await reader.read(65536):
                writer.write(block)
                await writer.drain()
        writer.close()

    def close(self):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()


async def test_a_cluster_that_goes_away_in_the_middle(cluster, environment, kubeconfig, kubectl, one, tmp_path):
    await deploy(cluster, environment, one)
    config = yaml.safe_load(kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    road = Road(server.hostname, server.port)
    config["clusters"][0]["cluster"] |= {
        "server": f"https://127.0.0.1:{await road.open()}",
        "tls-server-name": server.hostname,
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    what = source(tmp_path, "# two")

    def end(step):
        if step.startswith("switching"):
            road.close()

    found = access.find(kubeconfig=str(tmp_path / "kubeconfig"))
    async with Cluster(found, kubectl.namespace) as through:
        with pytest.raises(TargetError, match="broke off: cannot reach the cluster") as caught:
            await target(through).deploy(what, environment, progress=end)
    assert "not applied: " in caught.value.message
    assert "may be run again" in caught.value.hint
    with pytest.raises(TargetError, match="is being deployed by"):
        await deploy(cluster, environment, what)
    kubectl("delete", "lease", "fleetfn-hello")  # as time would
    revision = await deploy(cluster, environment, what)
    assert revision.number >= 2


async def test_one_of_two_deploys_at_once_is_told(cluster, environment, one, tmp_path):
    given = Together()  # the turn is taken after building: one might be through before the other asks for it
    both = [deploy(cluster, environment, each, given=given) for each in (one, source(tmp_path, "# three"))]
    ends = await asyncio.gather(*both, return_exceptions=True)
    (lost,) = [each for each in ends if isinstance(each, BaseException)]
    assert isinstance(lost, TargetError)
    assert "is being deployed by" in lost.message


async def test_what_is_deleted_leaves_nothing(cluster, environment, kubectl, one):
    await deploy(cluster, environment, one)
    await target(cluster).delete("hello", keep_state=False)
    await target(cluster).delete_gateway(keep_data=False)
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,leases,endpointslices,pvc"
    keda = "scaledobjects,triggerauthentications"
    which = "--selector=app.kubernetes.io/managed-by=fleetfn"
    end = time.monotonic() + 60  # Kubernetes collects what hung on it
    while left := kubectl("get", f"{kinds},{keda}", which, "--output=name"):
        assert time.monotonic() < end, left
        await asyncio.sleep(1)
