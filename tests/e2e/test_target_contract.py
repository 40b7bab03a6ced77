"""What Target promises, over a namespace of a real cluster, with images built here."""

import pytest
from built_functions import images, place
from fleetfn_deploy.kubernetes import access
from fleetfn_deploy.kubernetes.cluster import Cluster
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from target_promises import *  # noqa: F403 - the tests

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def environment(kubectl, registry_address, python_image):
    return place(kubectl, registry_address, python_image)


@pytest.fixture
async def target(kubeconfig, kubectl):
    async with Cluster(access.find(kubeconfig=str(kubeconfig)), kubectl.namespace) as cluster:
        target = KubernetesTarget(cluster, images(), limit=120)
        yield target
        for each in await target.status():
            await target.delete(each.name, keep_state=False)
