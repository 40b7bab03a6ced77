"""What is left after kills: worker, warm parent and node die by kill -9, or are told to stop, with work under way."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from fleetfn_spec.control import TAKEN
from running_node import RunningNode, alive, wait_for, write_function

pytestmark = pytest.mark.node

CODE = """
import os, time
from fleetfn import State

def hello(name: str) -> str:
    return f"hello {name}"

def slow(gate: str) -> str:
    while not os.path.exists(gate):
        time.sleep(0.02)
    return "slept"

def deadly(name: str) -> str:
    os._exit(9)

def add(n: int, total: State[int]) -> int:
    total.value += n
    return total.value
"""

SPEC = """
handler: handler:hello
timeout: 120s
scale: {idle: 10m}
triggers:
- {name: hi, key: null, http: {path: /hello}}
- {name: slow, handler: "handler:slow", key: null, http: {path: /slow}}
- {name: deadly, handler: "handler:deadly", key: null, http: {path: /deadly}}
- {name: add, handler: "handler:add", key: path.vehicle, http: {path: "/add/{vehicle}"}}
"""


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path / "node")
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def hello(node, tmp_path):
    folder = write_function(tmp_path / "hello", CODE, SPEC)
    _, last = node.deploy(folder)
    assert last.revision is not None, last
    return folder


def the_worker(node):
    """The one, once the process in which the deploy tried the code is gone, too."""
    return wait_for(lambda: len(pids := node.workers()) == 1 and pids[0], what="one worker")


def test_a_worker_that_is_killed_is_replaced_by_the_next_request(node, hello):
    assert node.http("POST", "/add/V1", "1")[1] == b"1"
    pid = the_worker(node)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in [each.pid for each in node.status("hello").workers], what="the node's notice")
    assert node.http("POST", "/add/V1", "2")[1] == b"3"
    assert node.workers() != [pid]


def test_a_warm_parent_that_is_killed_takes_no_worker_with_it(node, hello):
    pid = the_worker(node)
    (parent,) = node.parents()
    os.kill(parent, signal.SIGKILL)
    wait_for(lambda: parent not in node.parents(), what="the warm parent's end")
    assert node.http("POST", "/hello", "x")[1] == b"hello x"
    assert node.workers() == [pid]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: pid not in [each.pid for each in node.status("hello").workers], what="the node's notice")
    assert node.http("POST", "/hello", "y")[1] == b"hello y"
    assert node.parents() not in ([], [parent])


def test_a_killed_node_comes_back_with_what_was_deployed(node, hello):
    assert node.http("POST", "/add/V1", "1")[1] == b"1"
    digest = node.status("hello").revision.digest
    wait_for(node.spares, what="a worker ahead of the next function's need")
    # itself, its gateway, a warm parent and its spare, a worker
    wait_for(lambda: len(node.processes()) == 5, what="five processes")
    node.kill()
    wait_for(lambda: node.processes() == [], what="the end of its gateway, warm parent and worker")
    node.start()
    status = node.status("hello")
    assert (status.phase, status.revision.digest) == ("sleeping", digest)
    assert node.http("POST", "/add/V1", "2")[1] == b"3"


def test_the_orphans_of_a_killed_node_finish_their_work_beside_the_new_node(node, hello, tmp_path):
    replies, gate = [], tmp_path / "gate"
    caller = threading.Thread(target=lambda: replies.append(node.http("POST", "/slow", str(gate))))
    caller.start()
    try:
        wait_for(lambda: [each.in_flight for each in node.status("hello").workers] == [1], what="the slow request")
        node.kill()
        node.start()
        assert node.http("POST", "/hello", "x")[1] == b"hello x"
        assert replies == []
    finally:
        gate.touch()
        caller.join()
    assert replies[0][:2] == (200, b"slept")


def test_a_node_that_is_told_to_stop_finishes_what_runs(node, hello, tmp_path):
    replies, gate = [], tmp_path / "gate"
    caller = threading.Thread(target=lambda: replies.append(node.http("POST", "/slow", str(gate))))
    caller.start()
    try:
        wait_for(lambda: [each.in_flight for each in node.status("hello").workers] == [1], what="the slow request")
        everything = node.processes()
        threading.Timer(1.5, gate.touch).start()  # while it stops
        assert node.stop() == 0
    finally:
        gate.touch()
        caller.join()
    assert replies[0][:2] == (200, b"slept")
    wait_for(lambda: not any(alive(each) for each in everything), what="the end of all processes")
    assert list(node.run.iterdir()) == []


def test_a_handler_that_kills_its_worker_leads_to_a_visible_backoff(node, hello):
    def crash():
        try:
            return node.http("POST", "/deadly", "x")
        except OSError:
            return None

    def turned_away():
        reply = crash()
        return reply if reply is not None and reply[0] == 503 else None

    def backing_off():
        """It lasts longer each time."""
        reply, said = turned_away(), node.status("hello")
        return (reply, said) if reply is not None and said.phase == "backing-off" else None

    (_, body, headers), said = wait_for(backing_off, what="a 503 while it backs off")
    assert int(headers["retry-after"]) >= 1
    assert b"backs off" in body
    assert "ended with exit code 9" in said.reason
    _, last = node.deploy(hello)
    assert last.revision is not None
    assert node.http("POST", "/hello", "x")[1] == b"hello x"


def refused(node):
    command = [sys.executable, "-m", "fleetfn_node", *node.arguments()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_second_node_on_the_same_data_is_refused_and_names_the_first(node):
    second = subprocess.run(
        [sys.executable, "-m", "fleetfn_node", *node.arguments()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert second.returncode == TAKEN
    assert f"(pid {node.process.pid})" in second.stderr
    assert "Traceback" not in second.stderr
    assert node.client.node().pid == node.process.pid


def test_a_port_that_is_taken_is_named_with_what_to_do(node, tmp_path):
    other = RunningNode(tmp_path / "other")
    other.port = node.port
    second = subprocess.run(
        [sys.executable, "-m", "fleetfn_node", *other.arguments()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert second.returncode == 1
    assert str(node.port) in second.stderr
    assert "Hint:" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_function_whose_files_are_damaged_is_told_and_the_others_serve(node, hello, tmp_path):
    moved = SPEC.replace("path: /", "path: /other/").replace('"/add', '"/other/add')
    other = write_function(tmp_path / "other", CODE, moved, name="other")
    node.deploy(other)
    node.stop()
    (node.data / "functions" / "other" / "head.json").write_text("{")
    node.start()
    assert node.http("POST", "/hello", "x")[0] == 200
    with pytest.raises(Exception, match="cannot be read"):
        node.status("other")
    _, last = node.deploy(other)
    assert last.revision is not None, last
    assert node.http("POST", "/other/hello", "x")[0] == 200
