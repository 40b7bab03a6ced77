"""`fn` with a real node: from an empty folder to handled events, and what goes wrong on the way."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from running_node import free_port

pytestmark = [pytest.mark.node]

LIMIT = 120.0


class Machine:
    """A place of its own for one node: data, sockets, port."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FN_")},
            "FN_DATA": str(folder / "node"),
            "FN_PORT": str(self.port),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def fn(self, *arguments, cwd=None, status=0, given=None):
        done = subprocess.run(
            [sys.executable, "-m", "fleetfn_cli", *arguments],
            env=self.environ,
            cwd=cwd or self.folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == status, f"fn {arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments):
        return json.loads(self.fn(*arguments, "-o", "json").stdout)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=LIMIT) as reply:
            return json.load(reply)


@pytest.fixture
def machine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    folder.chmod(0o700)
    machine = Machine(folder)
    yield machine
    machine.fn("down")


def until(true, what):
    limit = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < limit, f"not within {LIMIT:.0f} s: {what}"
        time.sleep(0.05)


def test_from_an_empty_folder_to_alerts_and_back(machine):
    """The way of the alert template's README."""
    machine.fn("new", "tyre-alert")
    folder = machine.folder / "tyre-alert"
    machine.fn("check", cwd=folder)
    deployed = machine.fn("deploy", cwd=folder)
    assert "tyre-alert revision 1" in deployed.stdout
    for part in ("pid", str(machine.folder / "node"), "node.log", "fn down"):
        assert part in deployed.stderr
    node = machine.json("version")["node"]
    assert psutil.pid_exists(node["pid"])

    machine.fn("send", "tyre-alert", "--recording", "telemetry.jsonl", cwd=folder)
    until(lambda: machine.json("describe", "tyre-alert")["counters"]["done"] == 5, "five readings are handled")
    assert machine.json("state", "list", "tyre-alert")["keys"] == ["V1", "V2"]
    assert machine.json("state", "get", "tyre-alert", "V1")["value"]["readings"] == 3
    assert machine.get("/tyre-alert/V1")["flat"] == ["front left"]

    machine.fn("send", "tyre-alert", "--key", "V9", "--data", '{"vehicle": "V9"}', cwd=folder)
    until(lambda: machine.json("dlq", "list", "tyre-alert") != [], "what cannot be read becomes a dead letter")
    letter = machine.json("dlq", "list")[0]
    assert machine.json("dlq", "show", str(letter["sequence"]))["key"] == "V9"
    assert json.loads(machine.fn("dlq", "show", str(letter["sequence"]), "-o", "event").stdout)["data"] == {
        "vehicle": "V9"
    }
    assert machine.fn("dlq", "discard", str(letter["sequence"]), "--yes").stdout == "discarded 1 dead letter\n"
    until(lambda: "dead letter" in machine.fn("logs", "tyre-alert", "--key", "V9").stdout, "the log tells of it")

    machine.fn("pause", "tyre-alert", "--trigger", "telemetry")
    assert machine.json("describe", "tyre-alert")["triggers"][0]["paused"]
    machine.fn("resume", "tyre-alert")

    assert "Delete" not in machine.fn("delete", "tyre-alert", "--yes").stdout
    assert machine.json("list") == []
    machine.fn("down")
    until(lambda: not psutil.pid_exists(node["pid"]), "the node is gone")
    assert "not running" in machine.fn("down").stderr


def test_invoke_revisions_and_rollback(machine):
    machine.fn("new", "last-seen", "--template", "http")
    folder = machine.folder / "last-seen"
    machine.fn("deploy", cwd=folder)
    place = '{"time": "2026-01-05T08:00:00Z", "latitude": 52.52, "longitude": 13.405}'
    reply = machine.fn("invoke", "last-seen", "--trigger", "report", "--key", "V1", "--data", place)
    assert json.loads(reply.stdout)["reports"] == 1
    assert "done in" in reply.stderr
    refused = machine.fn(
        "invoke", "last-seen", "-t", "report", "-k", "V1", "--data", place.replace("52.52", "152"), status=1
    )
    assert (refused.stdout, "reject" in refused.stderr) == ("", True)

    handler = folder / "handler.py"
    good = handler.read_text()
    handler.write_text(good.replace("trace.reports += 1", "trace.reports += 10"))
    plan = machine.json("deploy", str(folder), "--dry-run")
    assert [change["field"] for change in plan["changes"]] == ["source"]
    machine.fn("deploy", cwd=folder)
    handler.write_text("import nowhere_to_be_found\n" + good)
    broken = machine.fn("deploy", cwd=folder, status=1)
    assert "handler.py:1" in broken.stderr
    assert "nowhere_to_be_found" in broken.stderr
    assert [each["number"] for each in machine.json("revisions", "last-seen") if each["serving"]] == [2]
    machine.fn("rollback", "last-seen")
    later = place.replace("08:00", "09:00")
    reply = machine.fn("invoke", "last-seen", "--trigger", "report", "--key", "V1", "--data", later)
    assert json.loads(reply.stdout)["reports"] == 2


def test_a_busy_port_is_told_with_the_port(machine):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", machine.port))
        busy.listen()
        said = machine.fn("up", status=1)
    assert str(machine.port) in said.stderr
    assert said.stdout == ""


def test_up_twice_is_up_once(machine):
    machine.fn("up")
    pid = machine.json("version")["node"]["pid"]
    again = machine.fn("up")
    assert f"pid {pid}" in again.stdout
    assert "up already" in again.stderr


@pytest.fixture
def dev(machine, request):
    machine.fn("new", "mine", "--template", request.param)
    folder = machine.folder / "mine"
    with (machine.folder / "dev.out").open("w+") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleetfn_cli", "dev", str(folder), "--port", str(machine.port)],
            env=machine.environ,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        yield process, folder, lambda: Path(out.name).read_text()
        process.terminate()
        process.wait(LIMIT)


@pytest.mark.parametrize(
    ("dev", "recording", "emitted"),
    [
        pytest.param("alert", "telemetry.jsonl", ["emitted to alerts key V1", "emitted to alerts key V2"], id="kafka"),
        pytest.param("mqtt", "charging.jsonl", ["emitted to notices topic vehicles/V1/notices"], id="mqtt"),
    ],
    indirect=["dev"],
)
def test_dev_shows_what_is_emitted(machine, dev, recording, emitted):
    _, folder, said = dev
    until(lambda: "Waiting for events" in said(), "it serves")
    node = re.search(r"private node (dev-\w+)", said())[1]
    machine.fn("send", "mine", "-n", node, "--recording", recording, cwd=folder)
    until(lambda: all(each in said() for each in emitted), "what is emitted is shown")


@pytest.mark.parametrize("dev", ["cron"], indirect=True)
def test_dev_fires_a_clock_by_hand_and_shows_what_it_says(machine, dev):
    _, _, said = dev
    until(lambda: "Waiting for events" in said(), "it serves")
    node = re.search(r"private node (dev-\w+)", said())[1]
    assert f"fn trigger fire mine -n {node}" in said()
    machine.fn("trigger", "fire", "mine", "-n", node, "--at", "2026-03-01T06:00+01:00")
    until(lambda: "2026-03-01: 0 of 0 vehicles are silent" in said(), "the handler's line")


@pytest.mark.parametrize("dev", ["http"], indirect=True)
def test_dev_deploys_on_each_save_and_leaves_nothing_behind(machine, dev):
    process, folder, said = dev
    until(lambda: "Waiting for events" in said(), "it serves")
    handler = folder / "handler.py"
    good = handler.read_text()

    handler.write_text("1 / 0\n" + good)
    until(lambda: "ZeroDivisionError" in said(), "a broken save is told")
    handler.write_text(good.replace("trace.value if", 'print("shown") or trace.value if'))
    until(lambda: "revision 2" in said(), "the next save is deployed")
    url = f"http://127.0.0.1:{machine.port}/mine/V1"
    body = b'{"time": "2026-01-05T08:00:00Z", "latitude": 52.52, "longitude": 13.405}'
    urllib.request.urlopen(urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=LIMIT)
    assert machine.get("/mine/V1")["reports"] == 1
    until(lambda: "shown" in said(), "what a handler prints is shown")

    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 0
    assert "Traceback" not in said()
    _, alive = psutil.wait_procs(children, timeout=LIMIT)
    assert alive == []


def test_a_node_in_the_foreground_is_the_process_that_was_started(machine):
    command = [sys.executable, "-m", "fleetfn_cli", "up", "--foreground"]
    node = subprocess.Popen(command, env=machine.environ, stderr=subprocess.PIPE, text=True)
    try:
        with node.stderr:
            assert any(f"pid {node.pid}," in line for line in iter(node.stderr.readline, ""))
            again = {"env": machine.environ, "capture_output": True, "text": True, "timeout": LIMIT}
            second = subprocess.run(command, check=False, **again)
            assert second.returncode != 0
            assert f"already (pid {node.pid})" in second.stderr
            node.send_signal(signal.SIGTERM)
            assert node.wait(LIMIT) == 0
            assert "workers drain" in node.stderr.read()
    finally:
        node.kill()
        node.wait()
