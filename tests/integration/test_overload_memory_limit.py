"""A worker under a memory limit of the kernel's: an event that needs too much is given up, and costs no other."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from memory_cgroup import MemoryCgroup, NoCgroupError, memory_cgroup
from running_node import RunningNode, alive, wait_for, write_function

pytestmark = [pytest.mark.node, pytest.mark.slow]

LIMIT = 160 * 1024 * 1024
VEHICLES = 60
GREEDY = {f"V{number}" for number in (20, 41)}
ATTEMPTS = 2

HANDLER = """
import os
from pathlib import Path

from fleetfn import State
from msgspec import Struct

Path({group!r}, "cgroup.procs").write_text(str(os.getpid()))  # from here on, this worker has a limit
BLOCK = 4 * 1024 * 1024


class Message(Struct):
    greedy: bool = False


class Count(Struct):
    n: int = 0


def watch(message: Message, state: State[Count]) -> None:
    held = []
    while message.greedy:
        held.append(b"x" * BLOCK)
        if len(held) * BLOCK > {limit} * 4:
            raise AssertionError("there is no limit here")
    state.value.n += 1
"""
SPEC = f"""
handler: handler:watch
triggers:
- {{name: in, key: path.vehicle, http: {{path: "/in/{{vehicle}}"}}}}
retry: {{attempts: {ATTEMPTS}, initial: 100ms, max: 1s}}
"""


@pytest.fixture
def group() -> Iterator[MemoryCgroup]:
    try:
        with memory_cgroup(LIMIT) as group:
            yield group
    except NoCgroupError as why:
        pytest.skip(f"this machine lets us set no memory limit: {why}")


@pytest.fixture
def node(tmp_path: Path, group: MemoryCgroup) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path).start()
    handler = HANDLER.format(group=str(group.path), limit=LIMIT)
    _, last = node.deploy(write_function(tmp_path / "watch", handler, SPEC, name="watch"))
    assert last.revision is not None, last
    yield node
    node.close()


def test_an_event_that_needs_too_much_memory_is_given_up_and_all_others_are_handled(
    node: RunningNode, group: MemoryCgroup
) -> None:
    # Of those forked ahead, each may be the next worker.
    lasting = {node.process.pid, *node.parents(), *node.gateways()}
    assert len(lasting) > 2
    vehicles = [f"V{number}" for number in range(VEHICLES)]
    for vehicle in vehicles:
        wait_for(partial(sent, node, vehicle), 120, f"a reply to {vehicle}")
    wait_for(lambda: len(node.client.dead()) == len(GREEDY), 120, "the dead letters")
    letters = {letter.key: letter for letter in node.client.dead()}
    assert letters.keys() == GREEDY
    assert {letter.reason for letter in letters.values()} == {"crashed"}
    assert {letter.attempts for letter in letters.values()} == {ATTEMPTS}
    wait_for(lambda: handled(node) == {vehicle: 1 for vehicle in vehicles if vehicle not in GREEDY}, 120, "the others")
    assert group.kills() >= ATTEMPTS * len(GREEDY) - 1  # both may have been under way at the first
    wait_for(lambda: "was killed by signal 9" in node.log(), what="a line of the log")
    assert lasting <= {each.pid for each in node.processes() if alive(each)}


def sent(node: RunningNode, vehicle: str) -> bool:
    """False: the worker that was to take it was killed, or none is there now. It has a name, so it can be repeated."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": vehicle}
    try:
        status, answer, _ = node.http("POST", f"/in/{vehicle}", json.dumps({"greedy": vehicle in GREEDY}), headers)
    except (ConnectionError, http.client.IncompleteRead):
        return False
    assert status in (202, 503), answer
    return status == 202


def handled(node: RunningNode) -> dict[str, int]:
    """How often each vehicle's event was counted."""
    return {key: node.client.state("watch", key).value["n"] for key in node.client.states("watch", limit=1000).keys}
