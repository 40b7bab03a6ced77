"""The node's log keeps within its size, whoever writes to it."""

import os

import pytest
from fleetfn_node.node_log import NodeLog


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node.log"


@pytest.fixture
def descriptors(path):
    """Of the node, and of somebody whom it started."""
    found = [os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for _ in range(2)]
    yield found
    for each in found:
        os.close(each)


def kept(path):
    return {each.name: each.read_bytes() for each in path.parent.iterdir()}


def test_a_large_log_is_set_aside_and_two_are_kept(path, descriptors):
    node, other = descriptors
    log = NodeLog(path, descriptor=node, size=6)
    log.look()
    for line in (b"one\n", b"two\n", b"three\n", b"four 4\n", b"five 5\n"):
        os.write(other if line == b"two\n" else node, line)
        log.look()
    assert kept(path) == {"node.log": b"", "node.log.1": b"five 5\n", "node.log.2": b"four 4\n"}
    os.write(other, b"six\n")
    os.write(node, b"seven")
    assert path.read_bytes() == b"six\nseven"
    assert path.with_name("node.log.1").stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_not_this_processes_own_is_left_alone(path, descriptors):
    os.write(descriptors[0], b"large")
    read, write = os.pipe()
    NodeLog(path, descriptor=write, size=1).look()
    os.close(read)
    os.close(write)
    assert kept(path) == {"node.log": b"large"}


def test_where_there_is_none_or_no_room_nothing_fails(path, descriptors, caplog):
    path.with_name("node.log.new").mkdir()
    os.write(descriptors[0], b"large")
    NodeLog(path, descriptor=descriptors[0], size=1).look()
    assert "cannot be set aside" in caplog.text
    path.unlink()
    NodeLog(path, descriptor=descriptors[0], size=1).look()
