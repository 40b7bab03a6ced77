"""A clock on a real node: wakes its function, walks what other handlers keep, sends over HTTP; goes on over kills."""

import json
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler

import pytest
from fleetfn_spec.gateway import FireRequest
from running_node import RunningNode, wait_for, write_function
from threaded_server import ThreadedServer

pytestmark = [pytest.mark.node]

HANDLER = """
from dataclasses import dataclass
from fleetfn import Context, State, Tick

@dataclass
class Trips:
    count: int = 0

def drive(state: State[Trips]) -> int:
    state.value.count += 1
    return state.value.count

def report(tick: Tick, ctx: Context) -> dict:
    return {
        "at": tick.at.timestamp(),
        "previous": tick.previous and tick.previous.timestamp(),
        "missed": tick.missed,
        "trips": {vehicle: trips.count for vehicle, trips in ctx.states(Trips)},
    }

async def report_async(tick: Tick, ctx: Context) -> dict:
    return {"at": tick.at.timestamp(), "trips": {vehicle: trips.count async for vehicle, trips in ctx.states(Trips)}}
"""

SPEC = """
handler: handler:drive
triggers:
- {{name: drive, key: path.vehicle, returns: null, http: {{path: "/drive/{{vehicle}}"}}}}
- {{name: clock, handler: "handler:{report}", cron: {{schedule: "{schedule}", missed: {missed}, overlap: queue}}}}
outputs:
- {{name: reports, http: {{url: "{url}", headers: {{authorization: {{env: TOKEN}}}}, timeout: 2}}}}
returns: reports
scale: {{idle: 1s}}
"""


class Reports:
    """What arrives at the output: bodies by event id, in order; `status` is what it answers."""

    def __init__(self):
        self.status = 200
        self.arrived = {}
        self.asked = 0
        self.headers = []
        self.url = ""

    @property
    def bodies(self):
        return list(self.arrived.values())


@contextmanager
def receiving():
    reports = Reports()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            reports.asked += 1
            reports.headers.append(dict(self.headers))
            if reports.status < 300:
                reports.arrived.setdefault(self.headers["ce-id"], json.loads(body))
            self.send_response(reports.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadedServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    reports.url = f"http://127.0.0.1:{server.server_address[1]}/in"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield reports
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def reports():
    with receiving() as opened:
        yield opened


@pytest.fixture
def node(tmp_path):
    node = RunningNode(tmp_path, TOKEN="let-me-in")  # noqa: S106 - a test's
    node.start()
    yield node
    node.close()


def deploy(node, tmp_path, reports, schedule, *, missed="once", report="report"):
    spec = SPEC.format(url=reports.url, schedule=schedule, missed=missed, report=report)
    _, last = node.deploy(write_function(tmp_path / "hello", HANDLER, spec))
    assert last.revision is not None, last


def drive(node, vehicle, times=1):
    for _ in range(times):
        status, body, _ = node.http("POST", f"/drive/{vehicle}")
        assert status == 200, body


def status(node, name):
    return next(each for each in node.status("hello").triggers if each.name == name)


def test_a_clock_wakes_its_function_once_for_each_instant(node, tmp_path, reports):
    deploy(node, tmp_path, reports, "@every 2s")
    drive(node, "V2", 2)
    drive(node, "V1")
    trips = {"V1": 1, "V2": 2}
    wait_for(
        lambda: len(reports.arrived) >= 3 and reports.bodies[-1]["trips"] == trips, what="three reports, and one of all"
    )
    bodies = reports.bodies
    instants = [body["at"] for body in bodies]
    assert instants == sorted(set(instants))
    assert all(instant % 2 == 0 for instant in instants)
    assert [body["previous"] for body in bodies[1:]] == instants[:-1]
    assert list(bodies[-1]["trips"]) == ["V1", "V2"]
    first = reports.headers[0]
    stamp = datetime.fromisoformat(first["ce-time"])
    assert (first["authorization"], first["ce-type"], stamp.tzinfo is not None) == ("let-me-in", "hello.reports", True)
    wait_for(lambda: (status(node, "clock").last_fire or 0) >= instants[-1], what="the last of them")


@pytest.mark.parametrize("missed", ["once", "all"])
def test_a_node_that_was_killed_catches_up_as_told(node, tmp_path, reports, missed):
    deploy(node, tmp_path, reports, "@every 1s", missed=missed)
    wait_for(lambda: reports.arrived, what="a report")
    node.kill()
    wait_for(lambda: not node.processes(), what="the end of its gateway and its worker, which go on for a moment")
    gone = int(time.time())
    wait_for(lambda: time.time() > gone + 4, what="three instants missed")
    while_away = {gone + 1, gone + 2, gone + 3}
    node.start()
    wait_for(lambda: any(body["at"] > gone + 3 for body in reports.bodies), what="a report of a later instant")
    bodies = reports.bodies
    instants = [body["at"] for body in bodies]
    assert instants == sorted(set(instants))
    assert [body["previous"] for body in bodies[1:]] == instants[:-1]
    between = [body["at"] - body["previous"] - 1 for body in bodies[1:]]
    told = [body["missed"] for body in bodies[1:]]
    if missed == "once":
        assert told == between
        assert not while_away & set(instants)
    else:
        assert not any(told)
        assert while_away < set(instants)


def test_a_fire_by_hand_walks_in_an_async_handler_and_waits_for_its_output(node, tmp_path, reports):
    deploy(node, tmp_path, reports, "0 3 1 1 *", report="report_async")
    drive(node, "V1", 3)
    reports.status = 503
    fired = node.client.fire("hello", FireRequest(trigger="clock", at=1772332200.0))
    wait_for(lambda: reports.asked >= 2, what="tries at the output")
    wait_for(lambda: "answers 503" in status(node, "clock").problem, what="the problem told")
    reports.status = 200
    wait_for(lambda: reports.arrived, what="the report")
    assert reports.bodies == [{"at": 1772332200.0, "trips": {"V1": 3}}]
    assert fired.id in next(iter(reports.arrived))
    wait_for(lambda: status(node, "clock").waiting == 0, what="the fire's end")
    assert node.client.dead() == []


def test_what_an_output_refuses_for_good_becomes_a_dead_letter(node, tmp_path, reports):
    deploy(node, tmp_path, reports, "0 3 1 1 *")
    reports.status = 422
    node.client.fire("hello", FireRequest(trigger="clock"))
    wait_for(node.client.dead, what="a dead letter")
    (row,) = node.client.dead()
    assert row.reason == "output refused"
    assert "answers 422" in row.detail
