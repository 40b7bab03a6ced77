"""A real node: functions come from zero by HTTP, are redeployed, rolled back, paused, and go back to zero."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fleetfn_deploy.client import RefusedError
from fleetfn_spec.control import API_HEADER, DeployRequest, InvokeRequest, SendItem
from fleetfn_spec.environments import Environment
from running_node import LIMIT, RunningNode, ask, ended, function_of, wait_for, write_function

pytestmark = pytest.mark.node

HELLO = "def hello(name: str) -> str:\n    return 'hello ' + name\n"


PATIENT = """
import time
from pathlib import Path

def hello(name: str) -> str:
    while not Path({gate!r}).exists():
        time.sleep(0.01)
    return 'hello ' + name
"""
"""Nobody is answered before the file `gate` is there: until then its worker has work."""


def spec(path, idle="30s", more=""):
    return f"""
handler: handler:hello
scale: {{idle: {idle}}}
triggers:
- {{name: hi, key: null, http: {{path: "{path}", methods: [POST]}}}}
{more}"""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = RunningNode(tmp_path_factory.mktemp("node"))
    try:
        yield node.start()
    finally:
        node.close()


@pytest.fixture
def hello(node, tmp_path, request):
    """(name, path, folder) of a deployed function of the test's own."""
    name = request.node.name.replace("_", "-")[:50].rstrip("-")
    folder = write_function(tmp_path / "hello", HELLO, spec(f"/{name}"), name=name)
    _, last = node.deploy(folder)
    assert last.revision is not None, last
    yield name, f"/{name}", folder
    if name in {each.name for each in node.client.functions()}:
        node.client.delete(name, keep_state=False)


def write(folder, handler):
    (folder / "handler.py").write_text(handler)


def test_wakes_from_zero_and_goes_back_to_zero(node, tmp_path):
    gate = tmp_path / "gate"
    folder = write_function(tmp_path / "f", PATIENT.format(gate=str(gate)), spec("/zero", idle="1s"), name="zero")
    steps, last = node.deploy(folder)
    assert last.revision.urls == [f"http://127.0.0.1:{node.port}/zero"]
    assert "importing the handler" in steps
    node.asleep("zero")
    wait_for(lambda: node.workers() == [], what="no worker process")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(node.http, "POST", "/zero", "VIN1")
        status = wait_for(lambda: running(node.status("zero")), what="a worker")
        took = time.monotonic() - began
        (pid,) = wait_for(node.workers, what="its process")
        gate.touch()
        assert reply.result()[:2] == (200, b"hello VIN1")
    assert [each.pid for each in status.workers] == [pid]
    assert 0 < status.cold_start < took
    node.asleep("zero")
    wait_for(lambda: node.workers() == [], what="no worker process")
    assert node.status("zero").counters.cold_starts == 1
    node.client.delete("zero", keep_state=False)


def running(status):
    return status if status.phase == "running" else None


def test_many_callers_at_once_wake_one_worker(node, tmp_path):
    gate = tmp_path / "gate"
    asked = threading.Barrier(50, gate.touch)
    folder = write_function(tmp_path / "f", PATIENT.format(gate=str(gate)), spec("/crowd", idle="1s"), name="crowd")

    def call(number):
        connection = node.connection()
        connection.request("POST", "/crowd", str(number))
        asked.wait(LIMIT)
        response = connection.getresponse()
        reply = response.status, response.read()
        connection.close()
        return reply

    node.deploy(folder)
    node.asleep("crowd")
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(call, range(50)))
    assert replies == [(200, f"hello {n}".encode()) for n in range(50)]
    assert node.status("crowd").counters.cold_starts == 1
    node.client.delete("crowd", keep_state=False)


def test_a_kept_connection_outlives_its_worker(node, tmp_path):
    folder = write_function(tmp_path / "f", HELLO, spec("/kept", idle="1s"), name="kept")
    node.deploy(folder)
    connection = node.connection()
    assert ask(connection, "POST", "/kept", "a")[0] == 200
    node.asleep("kept")
    assert ask(connection, "POST", "/kept", "b")[:2] == (200, b"hello b")
    connection.close()
    node.client.delete("kept", keep_state=False)


def test_one_connection_serves_two_functions(node, hello, tmp_path):
    other = write_function(tmp_path / "other", HELLO.replace("hello '", "bye '"), spec("/bye"), name="bye")
    node.deploy(other)
    connection = node.connection()
    for _ in range(3):
        assert ask(connection, "POST", hello[1], "a")[:2] == (200, b"hello a")
        assert ask(connection, "POST", "/bye", "a")[:2] == (200, b"bye a")
    connection.close()
    node.client.delete("bye", keep_state=False)


def test_a_redeploy_switches_to_the_new_code_and_the_old_worker_goes(node, hello):
    name, path, folder = hello
    node.http("POST", path, "x")
    (old,) = [each.pid for each in node.status(name).workers]
    write(folder, HELLO.replace("hello '", "salut '"))
    _, last = node.deploy(folder)
    assert last.revision.number == 2
    assert node.http("POST", path, "x")[:2] == (200, b"salut x")
    wait_for(lambda: old not in node.workers(), what="the old worker's end")
    assert [each.number for each in node.client.revisions(name)] == [2, 1]
    assert [each.serving for each in node.client.revisions(name)] == [True, False]


def test_no_request_fails_over_redeploys(node, hello):
    _, path, folder = hello
    stop, failed, count = threading.Event(), [], [0]

    def caller():
        connection = node.connection()
        while not stop.is_set():
            status, body, _ = ask(connection, "POST", path, "x")
            count[0] += 1
            if status != 200 or not body.endswith(b" x"):
                failed.append((status, body))
        connection.close()

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for each in callers:
        each.start()
    for word in ("salut", "hallo", "ciao"):
        write(folder, HELLO.replace("hello '", f"{word} '"))
        node.deploy(folder)
        before = count[0]
        wait_for(lambda before=before: count[0] > before + 100, what="a hundred more requests")
    stop.set()
    for each in callers:
        each.join()
    assert failed == []
    assert node.http("POST", path, "x")[1] == b"ciao x"


@pytest.mark.parametrize(
    ("code", "said", "where"),
    [
        ("import nunpy\n" + HELLO, "nunpy", "handler.py:1"),
        (HELLO + "\n1 / 0\n", "division by zero", "handler.py:4"),
        ("def hello(name: str, what: object()) -> str:\n    return ''\n", "what", "handler.py:1"),
        ("def hallo(name: str) -> str:\n    return ''\n", "hello", "handler.py"),
        ("def hello(name: str) -> str:\n    return 'a\n", "unterminated string", "handler.py:2"),
        ("import os\nos._exit(3)\n", "exit code 3", ""),
    ],
    ids=["missing module", "raises at import", "unbindable", "no such callable", "syntax", "exits at import"],
)
def test_a_revision_that_cannot_start_leaves_the_old_one_serving(node, hello, code, said, where):
    name, path, folder = hello
    write(folder, code)
    _, last = node.deploy(folder)
    assert said in last.refusal.message
    assert where in "\n".join([last.refusal.message, *last.refusal.problems])
    assert node.http("POST", path, "x")[:2] == (200, b"hello x")
    assert len(node.client.revisions(name)) == 1


def test_a_rollback_goes_back_through_the_same_check(node, hello):
    name, path, folder = hello
    write(folder, HELLO.replace("hello '", "salut '"))
    node.deploy(folder)
    steps, last = node.rollback(name)
    assert "importing the handler" in steps
    assert last.revision.number == 3
    assert node.http("POST", path, "x")[1] == b"hello x"
    first = node.client.revisions(name)[1].digest
    node.rollback(name, first[:12])
    assert node.http("POST", path, "x")[1] == b"salut x"


def test_a_rollback_to_nothing_says_so(node, hello):
    _, last = node.rollback(hello[0])
    assert "no earlier revision" in last.refusal.message
    _, last = node.rollback(hello[0], "ffff")
    assert "no revision starts with 'ffff'" in last.refusal.message


def test_a_dry_run_tells_what_would_change_and_changes_nothing(node, hello):
    name, path, folder = hello
    write_function(folder, HELLO.replace("hello '", "salut '"), spec(path, idle="5s"), name=name)
    _, last = node.deploy(folder, Environment(name="bench"), dry_run=True)
    assert {each.field for each in last.plan.changes} == {"spec.scale.idle", "environment.name", "source"}
    assert node.http("POST", path, "x")[1] == b"hello x"
    assert len(node.client.revisions(name)) == 1


def test_two_deploys_of_one_function_at_once_are_refused(node, hello):
    _, _, folder = hello
    gate = folder.with_name("gate")
    waits = f"while not Path({str(gate)!r}).exists():\n    time.sleep(0.01)\n"
    write(folder, f"import time\nfrom pathlib import Path\n{waits}{HELLO}")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(node.deploy, folder)
        try:
            wait_for(lambda: len(node.workers()) > 1, what="the first deploy's worker")
            _, second = node.deploy(folder)
        finally:
            gate.touch()
        assert "is under way" in second.refusal.message
        assert first.result()[1].revision.number == 2


def test_a_path_of_another_function_is_refused(node, hello, tmp_path):
    _, path, _ = hello
    folder = write_function(tmp_path / "thief", HELLO, spec(path), name="thief")
    _, last = node.deploy(folder)
    assert "paths that other functions have" in last.refusal.message
    assert path in last.refusal.problems[0]
    with pytest.raises(RefusedError, match="no function 'thief'"):
        node.status("thief")


def test_paused_triggers_answer_503_and_stay_paused_over_a_redeploy(node, hello):
    name, path, folder = hello
    assert node.client.pause(name, ["hi"]).triggers[0].paused
    status, _, headers = node.http("POST", path, "x")
    assert (status, "retry-after" in headers) == (503, True)
    write(folder, HELLO.replace("hello '", "salut '"))
    node.deploy(folder)
    assert node.http("POST", path, "x")[0] == 503
    assert not node.client.resume(name).triggers[0].paused
    assert node.http("POST", path, "x")[1] == b"salut x"


def test_pausing_a_trigger_that_is_not_there_names_those_that_are(node, hello):
    with pytest.raises(RefusedError, match="no trigger 'nope'"):
        node.client.pause(hello[0], ["nope"])


def test_a_deleted_function_is_gone_with_its_worker_and_folder(node, tmp_path):
    folder = write_function(tmp_path / "f", HELLO, spec("/gone"), name="gone")
    node.deploy(folder)
    (pid,) = [each.pid for each in node.status("gone").workers]
    node.client.delete("gone", keep_state=False)
    assert pid not in node.workers()
    assert node.http("POST", "/gone", "x")[0] == 404
    assert not (node.data / "functions" / "gone").exists()


def test_invoke_runs_the_handler_and_publishes_nothing(node, hello):
    reply = node.client.invoke(hello[0], InvokeRequest(event={"data": "VIN1", "datacontenttype": "text/plain"}))
    assert (reply.outcome, reply.reply["body"]) == ("done", 'hello "VIN1"')


def test_events_are_sent_through_the_front_door(node, hello):
    items = [SendItem(data="VIN1"), SendItem(base64="VklOMg=="), SendItem(event={"data": "VIN3"})]
    with node.client.send(hello[0], "hi", items) as lines:
        last = list(lines)[-1]
    assert (last.sent, last.finished, last.reply["status"], last.reply["body"]) == (3, True, 200, 'hello "VIN3"')
    with node.client.send(hello[0], "hi", [SendItem(data="VIN4", headers={"x-driver": "Zoë"})]) as lines:
        assert list(lines)[-1].reply["status"] == 200
    with node.client.send(hello[0], "hi", [SendItem(data="VIN5", headers={"no name": "x"})]) as lines:
        assert "Illegal header name" in list(lines)[-1].refusal.message
    with pytest.raises(RefusedError, match="no trigger 'nope'"):
        node.client.send(hello[0], "nope", items)


def test_state_and_metrics_can_be_read_while_it_runs(node, tmp_path):
    code = (
        "from fleetfn import State\n"
        "def hello(n: int, total: State[int]) -> int:\n    total.value += n\n    return total.value\n"
    )
    text = spec("/sum/{vehicle}").replace("key: null", "key: path.vehicle")
    node.deploy(write_function(tmp_path / "f", code, text, name="sum"))
    for _ in range(3):
        assert node.http("POST", "/sum/VIN1", "2")[0] == 200
    assert node.client.states("sum").keys == ["VIN1"]
    assert node.client.state("sum", "VIN1").value == 6
    with pytest.raises(RefusedError, match="keeps nothing of key 'VIN2'"):
        node.client.state("sum", "VIN2")
    status, text, _ = node.http("GET", "/-/metrics")
    assert status == 200
    assert b'fleetfn_node_functions{phase="running"}' in text
    wait_for(lambda: node.status("sum").counters.done == 3, what="the counters")
    node.client.delete("sum", keep_state=False)


def test_a_folder_without_its_source_is_refused_by_digest(node, hello):
    request = DeployRequest(function=function_of(hello[2]), environment=Environment(name="local"))
    _, last = ended(node.client.deploy(request))
    assert "neither" in last.refusal.message


def test_another_major_of_the_api_is_refused_by_name_of_the_older_side(node):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(node.run / "control.sock"))
    connection = http.client.HTTPConnection("node")
    connection.sock = sock
    connection.request("GET", "/v1/node", headers={API_HEADER: "9.0"})
    response = connection.getresponse()
    said = json.loads(response.read())
    connection.close()
    assert response.status == 426
    assert "the node is older" in said["message"]
    assert said["hint"].startswith("update FleetFn on the node")


def test_the_control_socket_is_this_users_alone(node):
    assert (node.run / "control.sock").stat().st_mode & 0o777 == 0o600
    assert node.run.stat().st_mode & 0o777 == 0o700


def test_an_unknown_function_names_those_there_are(node, hello):
    with pytest.raises(RefusedError, match="no function 'nope'") as refused:
        node.status("nope")
    assert hello[0] in refused.value.hint


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/v1/nothing", None, 404, "Not Found"),
        ("PUT", "/v1/node", None, 405, "Method Not Allowed"),
        ("GET", "/v1/dlq?limit=many", None, 400, "parameters do not fit"),
        ("POST", "/v1/functions", b"{", 400, "does not read as DeployRequest"),
        ("POST", "/v1/dlq/discard", b"[]", 400, "does not read as Which"),
        ("GET", "/v1/dlq/7", None, 404, "no dead letter 7"),
        ("GET", "/v1/dlq?limit=-1", None, 400, "parameters do not fit"),
        ("GET", f"/v1/dlq/{1 << 63}", None, 400, "parameters do not fit"),
        ("POST", "/v1/dlq/redrive", b"{}", 400, "does not read as Redrive"),
        ("POST", "/v1/functions/none/fire", b'{"trigger": "t"}', 404, "no function 'none'"),
        ("POST", "/v1/functions/none/wake", b'{"waiting": 1}', 404, "no function 'none'"),
    ],
)
def test_whatever_is_refused_is_refused_in_words(node, method, path, body, status, said):
    connection = http.client.HTTPConnection("node")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(node.run / "control.sock"))
    found = ask(connection, method, path, body)
    connection.close()
    assert found[0] == status
    assert said in json.loads(found[1])["message"]
