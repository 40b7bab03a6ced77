import pytest
from fake_node import FakeNode
from fleetfn_deploy.client import NodeClient


@pytest.fixture
def node(tmp_path_factory):
    node = FakeNode(tmp_path_factory.mktemp("n") / "control.sock")
    yield node
    node.close()


@pytest.fixture
def client(node):
    return NodeClient(node.socket)
