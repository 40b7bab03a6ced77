"""What Target promises, over the memory target, over a node and over a cluster in memory; a real one: tests/e2e."""

import hashlib
import io
import os
import subprocess
from types import SimpleNamespace

import pytest
from fleetfn_cli import starting
from fleetfn_deploy import places
from fleetfn_deploy.client import NodeClient
from fleetfn_deploy.kubernetes.images import Built
from fleetfn_deploy.kubernetes.target import KubernetesTarget
from fleetfn_deploy.memory import MemoryTarget
from fleetfn_deploy.node import NodeTarget
from fleetfn_plumbing.source import pack
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.gateway import GatewayStatus
from free_ports import free_ports
from memory_cluster import MemoryCluster, fleet_environment
from target_promises import *  # noqa: F403 - the tests


def raises_at_import(what):
    return "handler.py does not import" if "raise" in (what.folder / "handler.py").read_text() else ""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t")
    folder.chmod(0o700)
    place = places.Place("default", folder / "data", folder / "run")
    places.prepare(place)
    with place.log.open("wb") as log:
        process = subprocess.Popen(
            starting.command_line(place, starting.Wish(port=free_ports(1))),
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    starting.wait(place, process)
    yield NodeClient(place.socket)
    process.terminate()
    process.wait(60)


class HashedImages:
    """Named by their source, as builders name them. `broken`: those whose handler does not import."""

    def __init__(self):
        self.broken = set()

    def image(self, source, *_):
        packed = io.BytesIO()
        pack(source.folder, packed)
        built = Built(f"registry.test/hello@sha256:{hashlib.sha256(packed.getvalue()).hexdigest()}")
        if raises_at_import(source):
            self.broken.add(built.reference)
        return built

    def gateway(self, *_):
        return Built(f"registry.test/gateway@sha256:{'0' * 64}")

    def check(self, _, key, thing):
        """A controller: check pods of broken images fail."""
        if key[0] == "pods" and thing is not None and thing["spec"]["containers"][0]["image"] in self.broken:
            ended = {"name": "worker", "state": {"terminated": {"exitCode": 1}}}
            thing["status"] = {"phase": "Failed", "containerStatuses": [ended]}


@pytest.fixture(params=["memory", pytest.param("node", marks=pytest.mark.node), "kubernetes"])
def place(request):
    """A target and an environment of its kind."""
    if request.param == "memory":
        yield MemoryTarget(broken=raises_at_import), LOCAL
    elif request.param == "kubernetes":
        images, server = HashedImages(), MemoryCluster()
        server.controllers.insert(0, images.check)
        gateway = SimpleNamespace(gateway=lambda: GatewayStatus(pid=1, data="", bytes=0, quota=0))
        yield KubernetesTarget(server.cluster(), images, gateway=gateway, limit=1), fleet_environment()
    else:
        client = request.getfixturevalue("node")
        yield NodeTarget(client), LOCAL
        for each in client.functions():
            client.delete(each.name, keep_state=False)


@pytest.fixture
def target(place):
    return place[0]


@pytest.fixture
def environment(place):
    return place[1]
