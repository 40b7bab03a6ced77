"""Asynchronous requests on a node: taken while the function sleeps or is paused, run later, buried in the end."""

import json

import pytest
from fleetfn_deploy.client import RefusedError
from running_node import RunningNode, wait_for, write_function

pytestmark = pytest.mark.node

HANDLER = """
from dataclasses import dataclass, field
from pathlib import Path

from fleetfn import Retry, State


@dataclass
class Seen:
    numbers: list[int] = field(default_factory=list)


def take(number: int, state: State[Seen]):
    if number < 0:
        raise ValueError("negative")
    if number > 100 and Path("GATE").exists():
        raise Retry(after="3s")
    state.value.numbers.append(number)
    return state.value.numbers
"""
SPEC = """
handler: handler:take
triggers:
- {name: take, key: path.car, http: {path: "/take/{car}"}}
- {name: gated, key: path.car, http: {path: "/gated/{car}"}, retry: {attempts: 100}}
scale: {idle: 1s}
retry: {attempts: 2, initial: 10ms}
"""
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def gate(tmp_path):
    return tmp_path / "gate"


@pytest.fixture
def node(tmp_path, gate):
    node = RunningNode(tmp_path).start()
    _, last = node.deploy(write_function(tmp_path / "hello", HANDLER.replace("GATE", str(gate)), SPEC))
    assert last.revision is not None, last
    yield node
    node.close()


def send(node, number, car="V1", trigger="take", **headers):
    status, body, said = node.http("POST", f"/{trigger}/{car}", json.dumps(number), {**ASYNC, **headers})
    return status, json.loads(body), said


def seen(node, car="V1"):
    try:
        return node.client.state("hello", car).value["numbers"]
    except RefusedError:  # nothing is kept of it yet
        return []


def test_a_request_is_taken_while_its_function_sleeps_and_run(node):
    node.asleep("hello")
    assert [send(node, n)[0] for n in (1, 2, 3)] == [202, 202, 202]
    wait_for(lambda: seen(node) == [1, 2, 3], what="all of them, in order")
    node.asleep("hello")


def test_a_paused_trigger_takes_requests_and_runs_them_once_it_is_resumed(node):
    node.client.pause("hello", ["take"])
    assert node.http("POST", "/take/V1", b"9")[0] == 503
    assert [send(node, n)[0] for n in (1, 2)] == [202, 202]
    wait_for(lambda: node.status("hello").triggers[0].waiting == 2, what="two rows")
    assert seen(node) == []
    node.client.resume("hello", ["take"])
    wait_for(lambda: seen(node) == [1, 2], what="both")


def test_what_fails_is_tried_again_while_its_function_sleeps_and_becomes_a_dead_letter(node, gate):
    gate.touch()
    assert send(node, 101, trigger="gated")[0] == 202
    assert send(node, 1, trigger="gated")[0] == 202
    assert send(node, 2, car="V2", trigger="gated")[0] == 202
    wait_for(lambda: seen(node, "V2") == [2], what="another key's")
    node.asleep("hello")
    assert seen(node) == []
    gate.unlink()
    wait_for(lambda: seen(node) == [101, 1], what="the later one, and what was behind it")
    status, said, _ = send(node, -1)
    assert status == 202
    [letter] = wait_for(node.client.dead, what="a dead letter")
    assert (letter.sequence, letter.reason, letter.attempts) == (said["sequence"], "attempts", 2)


def test_a_request_that_cannot_run_is_refused_at_once_and_a_repeat_has_the_first_ones_sequence(node):
    status, _, _ = send(node, "x" * 2_000_000)
    assert status == 413
    first, again = (send(node, 1, **{"Idempotency-Key": "a"}) for _ in range(2))
    assert first[:2] == again[:2]
    assert first[2]["preference-applied"] == "respond-async"
    wait_for(lambda: seen(node) == [1], what="one run")
