"""A node that cannot start or be spoken to, and two who deploy at once: each is told, and revisions stay whole."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from fleetfn_deploy import places
from kafka_broker import eventually
from machine import Machine
from running_node import write_function

pytestmark = pytest.mark.node

HELLO = "def hello(name: str) -> str:\n    return 'hello ' + name\n"
HELD = """import time
from pathlib import Path
while Path.cwd().is_relative_to("DATA") and not Path("GATE").exists():
    time.sleep(0.01)
"""
STOPPING = """
import os, signal
from fleetfn_node import folders

class Lock(folders.Lock):
    def __init__(self, data):
        super().__init__(data)
        os.kill(os.getpid(), signal.SIGSTOP)

folders.Lock = Lock
"""
SPEC = """
handler: handler:hello
triggers:
- {name: hi, key: null, http: {path: /hello}}
"""


def ask(machine: Machine, body: str = "you") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=60)
    try:
        connection.request("POST", "/hello", body)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()


def stopped(machine: Machine) -> bool:
    """Its node has its folder, and is stopped."""
    lock = machine.data / "lock"
    pid = lock.read_text() if lock.exists() else ""
    return pid.endswith("\n") and psutil.Process(int(pid)).status() == psutil.STATUS_STOPPED


def control(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FN_DATA", str(machine.data))
    return places.find("default").socket


def test_of_two_deploys_at_once_one_serves_and_the_other_is_told(machine: Machine) -> None:
    gate = machine.folder / "gate"
    held = HELD.replace("GATE", str(gate)).replace("DATA", str(machine.data))  # of the node's workers alone
    one = write_function(machine.folder / "one", held + HELLO.replace("hello '", "one '"), SPEC)
    two = write_function(machine.folder / "two", held + HELLO.replace("hello '", "two '"), SPEC)
    machine.fn("up")
    with ThreadPoolExecutor(2) as pool:
        deploys = [pool.submit(machine.run, "deploy", str(folder)) for folder in (one, two)]
        try:
            eventually(lambda: any(each.done() for each in deploys))  # the one that is told
        finally:
            gate.touch()
        ends = [each.result() for each in deploys]
    served = [end for end in ends if end.returncode == 0]
    others = [end for end in ends if end.returncode != 0]
    assert len(served) == 1, ends
    assert others[0].returncode == 1
    assert "is under way" in others[0].stderr
    assert "Hint: " in others[0].stderr
    winner = ["one", "two"][ends.index(served[0])]
    assert ask(machine) == (200, f"{winner} you")
    (revision,) = machine.json("revisions", "hello")
    assert revision["serving"]
    loser = {"one": two, "two": one}[winner]
    machine.fn("deploy", str(loser))
    assert ask(machine) == (200, f"{loser.name} you")
    assert [each["number"] for each in machine.json("revisions", "hello")] == [2, 1]
    machine.fn("down")
    machine.fn("up")
    assert ask(machine) == (200, f"{loser.name} you")


def test_two_first_deploys_at_once_start_one_node(machine: Machine) -> None:
    folders = [
        write_function(machine.folder / name, HELLO, SPEC.replace("/hello", f"/{name}"), name=name)
        for name in ("one", "two")
    ]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda folder: machine.run("deploy", str(folder)), folders))
    assert [end.returncode for end in ends] == [0, 0], ends
    assert {each["name"] for each in machine.json("list")} == {"one", "two"}


def test_a_start_waits_for_a_node_that_has_the_folder_and_does_not_answer_yet(machine: Machine) -> None:
    """The node stops by itself as soon as it has the folder."""
    folder = write_function(machine.folder / "hello", HELLO, SPEC)
    patch = machine.folder / "stopping"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(STOPPING)
    machine.environ["PYTHONPATH"] = str(patch)
    with ThreadPoolExecutor(2) as pool:
        quicker = pool.submit(machine.run, "up")
        eventually(lambda: stopped(machine))
        node = psutil.Process(int((machine.data / "lock").read_text()))
        try:
            slower = pool.submit(machine.run, "deploy", str(folder))
            eventually(lambda: "already" in (machine.data / "node.log").read_text())
        finally:
            node.resume()
        assert quicker.result().returncode == 0, quicker.result()
        assert slower.result().returncode == 0, slower.result()
    assert machine.node() == node.pid


def test_a_port_that_is_taken_is_named_with_what_to_do(machine: Machine) -> None:
    folder = write_function(machine.folder / "hello", HELLO, SPEC)
    with socket.create_server(("127.0.0.1", machine.port)):
        for arguments in (["up"], ["deploy", str(folder)]):
            done = machine.run(*arguments)
            assert done.returncode == 1
            assert str(machine.port) in done.stderr
            assert "Hint: " in done.stderr
            assert "--port" in done.stderr
            assert "Traceback" not in done.stderr
    machine.fn("deploy", str(folder))
    assert ask(machine) == (200, "hello you")


def test_a_second_node_on_the_same_data_folder_is_refused_and_the_first_goes_on(machine: Machine) -> None:
    machine.fn("deploy", str(write_function(machine.folder / "hello", HELLO, SPEC)))
    first = machine.node()
    assert "up already" in machine.run("up").stderr
    done = machine.run("-n", "other", "up")
    assert done.returncode == 1
    assert str(machine.data) in done.stderr
    assert str(first) in done.stderr
    assert "Hint: " in done.stderr
    assert machine.node() == first
    assert ask(machine) == (200, "hello you")


def test_a_node_of_another_api_major_is_refused_by_name_of_the_older_side(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.fn("up")
    for version, older in (("2.0", "the node is older"), ("0.9", "fn is older")):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(control(machine, monkeypatch)))
            connection = http.client.HTTPConnection("node")
            connection.sock = sock
            connection.request("GET", "/v1/functions", headers={"fleetfn-api": version})
            reply = connection.getresponse()
            refusal = json.loads(reply.read())
        assert reply.status == 426
        assert version in refusal["message"]
        assert older in refusal["message"]
        assert "update" in refusal["hint"].lower()


def test_fn_meets_a_node_of_another_api_major_and_says_which_to_update(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node of another major is a real one: its package says so before it starts."""
    patch = machine.folder / "newer"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text("import fleetfn_spec.control\nfleetfn_spec.control.API = '2.0'\n")
    place = control(machine, monkeypatch).parent
    node = subprocess.Popen(
        [sys.executable, "-m", "fleetfn_node", "--data", machine.data, "--run", place, "--port", str(machine.port)],
        env={**machine.environ, "PYTHONPATH": str(patch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: "2.0" in machine.run("version").stdout)
        folder = write_function(machine.folder / "hello", HELLO, SPEC)
        for arguments in (["list"], ["deploy", str(folder)], ["down"], ["up"]):
            done = machine.run(*arguments)
            assert done.returncode == 1, done
            assert "2.0" in done.stderr
            assert "1.0" in done.stderr
            assert "Hint: Update fn" in done.stderr
            assert "Traceback" not in done.stderr
        assert "2.0" in machine.fn("version")
        assert node.poll() is None
    finally:
        node.terminate()
        node.wait(60)


def test_commands_without_a_node_say_how_to_start_one(machine: Machine) -> None:
    folder = write_function(machine.folder / "hello", HELLO, SPEC)
    for arguments in (["deploy", str(folder), "--no-start"], ["list"], ["dlq", "list"], ["describe", "hello"]):
        done = machine.run(*arguments)
        assert done.returncode == 1, done
        assert "is not running" in done.stderr
        assert "fn up" in done.stderr
    assert not machine.data.exists()


def test_a_node_that_was_killed_leaves_nothing_in_the_way(machine: Machine) -> None:
    folder = write_function(machine.folder / "hello", HELLO, SPEC)
    machine.fn("deploy", str(folder))
    os.kill(machine.node(), 9)
    eventually(lambda: machine.run("list").returncode == 1)
    assert "is not running" in machine.run("list").stderr
    machine.fn("up")
    assert ask(machine) == (200, "hello you")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deplyo"], "deploy"),
        (["up", "--port", "http"], "http"),
        (["up", "--port", "70000"], "70000"),
        (["-n", "No Name", "list"], "No Name"),
        (["deploy", "--wiat"], "--wait"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_names_the_word(machine: Machine, arguments: list[str], said: str) -> None:
    done = machine.run(*arguments)
    assert done.returncode == 2, done
    assert said in done.stderr
    assert "Hint: " in done.stderr
