"""A warm parent keeps one worker ahead, of no function yet: starts use it, and go on without it."""

import os
import signal
from pathlib import Path

import pytest
from running_node import RunningNode, wait_for, write_function

pytestmark = pytest.mark.node

CODE = """
import os

def pid(body: str) -> int:
    return os.getpid()

"""
SPEC = """
handler: handler:pid
triggers:
- {name: pid, http: {path: /pid}}
scale: {idle: 3s}
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path)
    try:
        node.start()
        node.deploy(write_function(tmp_path / "hello", CODE, SPEC))
        node.asleep("hello")
        wait_for(node.spares, what="a spare")
        yield node
    finally:
        node.close()


def asked(node):
    status, body, _ = node.http("POST", "/pid", "x", {"content-type": "text/plain"})
    assert status == 200, body
    return int(body)


def test_the_spare_becomes_the_worker_and_another_one_is_made(node):
    (spare,) = node.spares()
    assert asked(node) == spare
    wait_for(lambda: node.workers() == [asked(node)], what="the worker, which was the spare")
    # It is made while the one before it works, which falls asleep where nobody asks it.
    wait_for(lambda: (worker := asked(node)) and node.spares() not in ([], [worker]), what="the next spare")


def test_a_spare_that_is_killed_costs_nobody_a_request(node):
    (spare,) = node.spares()
    os.kill(spare, signal.SIGKILL)
    # Of all its threads: a dying process is a zombie before its last one has closed what its parent would notice by.
    wait_for(lambda: not Path(f"/proc/{spare}").exists(), what="the end of the spare")
    assert asked(node) != spare
    assert node.status("hello").last_error == ""


def test_a_spare_ends_with_its_warm_parent(node):
    (parent,) = node.parents()
    spares = set(node.spares())
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: not spares & set(node.spares()), what="the end of the spare")
    assert asked(node)


def test_a_function_that_keeps_nothing_has_no_state_file(node):
    assert asked(node)
    assert not (node.data / "functions" / "hello" / "state.db").exists()
