"""`python -m fleetfn_runtime`: a worker of its own, from a folder and its settings, without a node."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.node

HANDLER = """
from fleetfn import State


def add(n: int, state: State[dict[str, int]]) -> int:
    state.value["n"] = state.value.get("n", 0) + n
    return state.value["n"]
"""

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: adder}
spec:
  handler: handler:add
  triggers:
  - {name: add, key: path.car, http: {path: "/add/{car}"}}
"""

KAFKA = """
  - {name: more, handler: handler:add, kafka: {topic: numbers}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "function.yaml").write_text(FUNCTION)
    return tmp_path


def command(folder, *more):
    return [sys.executable, "-m", "fleetfn_runtime", "--folder", str(folder), "--port", "0", *more]


def ended(folder, *more, env=None):
    done = subprocess.run(command(folder, *more), capture_output=True, text=True, timeout=90, check=False, env=env)
    return done.returncode, done.stderr


class Lone:
    def __init__(self, folder, *more, env=None):
        self.process = subprocess.Popen(command(folder, *more), stderr=subprocess.PIPE, text=True, env=env)
        self.said = []
        for line in self.process.stderr:
            self.said.append(line)
            if line == "ready\n":
                break
        self.url = re.search(r"http://\S+", "".join(self.said))[0]

    def post(self, path, body, **headers):
        asked = urllib.request.Request(self.url + path, body, headers)  # noqa: S310 - our own address
        with urllib.request.urlopen(asked, timeout=60) as reply:  # noqa: S310 - as above
            return reply.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stderr.close()


def test_serves_http_keeps_state_and_drains_on_sigterm(folder):
    with Lone(folder) as one:
        assert [one.post("/add/a", b"2"), one.post("/add/a", b"3"), one.post("/add/b", b"1")] == [b"2", b"5", b"1"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            one.post("/elsewhere", b"1")
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(60) == 0
    with Lone(folder) as other:
        assert other.post("/add/a", b"1") == b"6"
        os.kill(other.process.pid, signal.SIGKILL)
        other.process.wait(60)
    with Lone(folder, "--data", str(folder / ".fleetfn")) as third:
        assert third.post("/add/a", b"1") == b"7"
        third.process.send_signal(signal.SIGINT)
        assert third.process.wait(60) == 0


def test_callers_must_present_the_key_where_there_is_one(folder):
    (folder / "key").write_text("secret\n")
    with Lone(folder, "--key-file", str(folder / "key")) as one:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            one.post("/add/a", b"2")
        asked = urllib.request.Request(one.url + "/add/a", b"2", {"authorization": "Bearer secret"})  # noqa: S310 - as above
        with urllib.request.urlopen(asked, timeout=60) as reply:  # noqa: S310 - as above
            assert reply.read() == b"2"


def test_a_broken_handler_ends_it_with_1_and_the_users_own_line(folder):
    (folder / "handler.py").write_text("def add(n: int): ...\n\n\nraise RuntimeError('no')\n")
    status, said = ended(folder)
    assert status == 1
    assert "Error: handler.py:4: handler cannot be imported: RuntimeError: no" in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_ends_it_with_1(folder):
    with Lone(folder) as one:
        port = one.url.rsplit(":", 1)[1]
        status, said = ended(folder, "--port", port, "--data", str(folder / "other"))
    assert status == 1
    assert f"port {port}" in said
    assert "in use" in said


def test_a_kafka_trigger_without_an_address_is_told(folder):
    (folder / "function.yaml").write_text(FUNCTION + KAFKA)
    status, said = ended(folder)
    assert status == 1
    assert 'needs the Kafka connection "kafka"' in said
    assert "environments.yaml" in said


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda folder: (folder / "function.yaml").unlink(), "function.yaml"),
        (lambda folder: (folder / "function.yaml").write_text(FUNCTION.replace("handler:", "handlr:")), "handlr"),
    ],
    ids=["no function.yaml", "a key nobody knows"],
)
def test_a_wrong_setting_ends_it_with_2(folder, break_it, said):
    break_it(folder)
    status, text = ended(folder)
    assert status == 2
    assert said in text
    assert "Traceback" not in text


def test_an_environment_that_is_not_there_ends_it_with_2(folder):
    status, said = ended(folder, "--environment", "prod")
    assert status == 2
    assert 'there is no environment "prod"' in said


def children(pid):
    found = []
    for one in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # it is just ending
            if "fleetfn_gateway" in one.cmdline():
                found.append(one)
    return found


def until(true, limit=60.0):
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def counted(one, car, least):
    return int(one.post(f"/add/{car}", b"0")) >= least


def test_a_request_that_can_wait_is_kept_by_the_gateway_of_its_own(folder):
    with Lone(folder) as one:
        [gateway] = children(one.process.pid)
        assert one.post("/add/a", b"2", prefer="respond-async").startswith(b'{"id"')
        until(lambda: counted(one, "a", 2))
        gateway.kill()
        until(lambda: [each.pid for each in children(one.process.pid)] not in ([], [gateway.pid]))

        once = {"prefer": "respond-async", "idempotency-key": "three"}

        def taken():
            with contextlib.suppress(urllib.error.HTTPError):  # 503 until it is there again
                return one.post("/add/a", b"3", **once)

        until(taken)
        until(lambda: counted(one, "a", 5))
        [gateway] = children(one.process.pid)
        one.process.kill()
        one.process.wait(60)
        gateway.wait(60)
    with Lone(folder) as other:
        [gateway] = children(other.process.pid)
        assert other.post("/add/a", b"0") == b"5"
        other.process.send_signal(signal.SIGTERM)
        assert other.process.wait(60) == 0
        assert not gateway.is_running()


def test_it_uses_the_gateway_that_is_named(folder, tmp_path_factory):
    home = Path(tempfile.mkdtemp(prefix="fn-"))
    named = home / "gateway.sock"
    environ = {**os.environ, "FLEETFN_GATEWAY": str(named)}
    status, said = ended(folder, env=environ)
    assert status == 2
    assert str(named) in said
    gateway = subprocess.Popen(
        [
            *(sys.executable, "-m", "fleetfn_gateway", "--data", str(tmp_path_factory.mktemp("gateway"))),
            *("--socket", str(named), "--worker", str(home / "deliver.sock")),
        ],
        stdin=subprocess.PIPE,
    )
    until(named.exists)
    with Lone(folder, "--data", str(home), env=environ) as one:
        assert not children(one.process.pid)
        one.post("/add/a", b"2", prefer="respond-async")
        until(lambda: counted(one, "a", 2))
    gateway.stdin.close()
    assert gateway.wait(60) == 0


def test_a_missing_library_of_the_gateway_is_named(folder):
    hide = (
        "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'uvicorn' else f(n, *a)"
    )
    run = f"{hide}; from fleetfn_runtime.__main__ import main; raise SystemExit(main())"
    done = subprocess.run(
        [sys.executable, "-c", run, "--folder", str(folder), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 2
    assert "which needs uvicorn" in done.stderr
    assert "fleetfn[gateway]" in done.stderr
