"""`python -m fleetfn_runtime` as an image starts it, without one: process 1 of a namespace of its own, a volume, a root
file system that is read-only, no capabilities, an empty environment.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.node

HANDLER = """
import time
from fleetfn import State


def add(n: int, state: State[dict[str, int]]) -> int:
    print("adding", n)
    if n == 100:
        time.sleep(0.5)
    state.value["n"] = state.value.get("n", 0) + n
    return state.value["n"]


def plain(n: int) -> int:
    return n
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

NO_STATE = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: plain}
spec:
  handler: handler:plain
  triggers:
  - {name: nightly, cron: {schedule: "0 3 * * *"}, handler: handler:plain}
"""

START = """
set -e
mount --make-rprivate /
case "$WITH" in
  volume) mount --bind "$HOST" "$VOLUME" ;;
  memory) mount -t tmpfs tmpfs "$VOLUME" ;;
  locked) mount --bind "$HOST" "$VOLUME"; mount -o remount,bind,ro "$VOLUME" ;;
esac
if [ "$SHM" = no ]; then mount -t tmpfs -o ro tmpfs /dev/shm; fi
mount -o remount,bind,ro /
SETPRIV=$(command -v setpriv)
exec env -i PATH=/nowhere PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 \
  FLEETFN_REVISION=0123456789abcdef0123456789abcdef $EXTRA \
  "$SETPRIV" --no-new-privs --bounding-set=-all --inh-caps=-all "$PYTHON" -m fleetfn_runtime \
  --folder "$FOLDER" --volume "$VOLUME" --environments "$FILE" --port 0
"""

UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]


@pytest.fixture(scope="module")
def _namespaces():
    tools = shutil.which("unshare") and shutil.which("setpriv")
    if not tools or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode:
        why = "no namespace of its own can be made here (root and unshare are needed)"
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture
def box(_namespaces):
    with tempfile.TemporaryDirectory(prefix="fn-", dir="/tmp") as folder:
        yield Box(Path(folder))


class Box:
    def __init__(self, home):
        self.home = home
        self.folder, self.volume, self.host = home / "fn", home / "volume", home / "host"
        for each in (self.folder, self.volume, self.host):
            each.mkdir()
        (self.folder / "handler.py").write_text(HANDLER)
        (self.folder / "function.yaml").write_text(FUNCTION)

    def start(self, *, volume="volume", shm=True, **extra):
        environ = {
            "PATH": os.environ["PATH"],
            "WITH": volume,
            "SHM": "yes" if shm else "no",
            "HOST": str(self.host),
            "VOLUME": str(self.volume),
            "FOLDER": str(self.folder),
            "FILE": str(self.home / "environments.yaml"),
            "PYTHON": sys.executable,
            "EXTRA": " ".join(f"{name}={value}" for name, value in extra.items()),
        }
        return Boxed(subprocess.Popen([*UNSHARE, "sh", "-c", START], env=environ, stderr=subprocess.PIPE, text=True))

    def refused(self, **more):
        with self.start(**more) as one:
            status = one.outer.wait(60)
        return status, "".join(one.said)


class Boxed:
    """What runs in a box. Its lines are read all the time."""

    def __init__(self, outer):
        self.outer = outer
        self.said = []
        self._reader = threading.Thread(target=lambda: self.said.extend(self.outer.stderr))
        self._reader.start()

    @property
    def url(self):
        until(lambda: "ready\n" in self.said or self.outer.poll() is not None)
        told = [line["message"] for line in self.lines()]
        return next(line for line in told if line.startswith("listening on ")).removeprefix("listening on ")

    def ask(self, path, body=None):
        with urllib.request.urlopen(self.url + path, body, timeout=60) as reply:  # noqa: S310 - our own address
            return reply.read()

    def lines(self):
        return [json.loads(line) for line in self.said if line.startswith("{")]

    def first_process(self):
        [child] = psutil.Process(self.outer.pid).children()
        return child

    def stop(self):
        self.first_process().terminate()
        code = self.outer.wait(60)
        self._reader.join()
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.outer.poll() is None:
            self.outer.kill()
            self.outer.wait()
        self._reader.join()
        self.outer.stderr.close()


def test_it_serves_says_how_it_is_and_keeps_state_in_the_volume(box):
    with box.start() as one:
        assert json.loads(one.ask("/-/healthz")) == {"status": "ok"}
        assert json.loads(one.ask("/-/readyz")) == {"status": "ready"}
        assert one.ask("/add/a", b"2") == b"2"
        for figure in (
            'fleetfn_invocations_total{function="adder",outcome="done",trigger="add"} 1.0',
            "fleetfn_gateway_inbox_accepting 1",  # left out where the gateway has not answered in time
        ):
            until(lambda figure=figure: figure in one.ask("/-/metrics").decode())
        assert one.stop() == 0
    lines = one.lines()
    assert {line["revision"] for line in lines} == {"0123456789ab"}
    [printed] = [line for line in lines if line["message"] == "adding 2"]
    assert printed["trigger"] == "add"
    assert list(box.volume.iterdir()) == []
    with box.start() as other:
        assert other.ask("/add/a", b"1") == b"3"
        assert other.stop() == 0


def test_memory_in_place_of_a_volume_is_warned_of(box):
    with box.start(volume="memory") as one:
        assert one.ask("/add/a", b"2") == b"2"
        assert one.stop() == 0
    [warned] = [line for line in one.lines() if " is memory: " in line["message"]]
    assert warned["level"] == "warning"
    assert warned["message"].startswith(f"{box.volume} is memory: the state of adder, and what waits")
    with box.start() as other:
        assert other.ask("/add/a", b"2") == b"2"
        assert other.stop() == 0
    assert not [line for line in other.lines() if " is memory: " in line["message"]]


def test_what_is_under_way_ends_before_process_1_does(box):
    with box.start() as one:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(one.ask("/add/a", b"100")))
        asking.start()
        until(lambda: any(line["message"] == "adding 100" for line in one.lines()))
        assert one.stop() == 0
        asking.join()
    assert answers == [b"100"]


def test_told_to_stop_while_it_starts_it_stops_with_0(box):
    with box.start() as one:
        until(lambda: _has_worker(one))
        assert one.stop() == 0


def test_without_a_volume_it_says_what_to_mount(box):
    status, said = box.refused(volume="no")
    assert status == 2
    assert f"nothing is mounted at {box.volume}" in said
    assert f"docker run -v adder:{box.volume}" in said
    assert "Traceback" not in said


def test_a_volume_that_cannot_be_written_is_told(box):
    status, said = box.refused(volume="locked")
    assert status == 2
    assert f"what is mounted at {box.volume} cannot be written by user 0" in said


def test_without_shared_memory_sockets_lie_in_the_volume_and_go_with_it(box):
    with box.start(shm=False) as one:
        assert one.ask("/add/a", b"2") == b"2"
        assert [each.name[:8] for each in box.host.glob("fleetfn-*")] == ["fleetfn-"]
        assert one.stop() == 0
    assert not list(box.host.glob("fleetfn-*"))


def test_a_connection_without_an_address_is_told_with_the_file_to_mount(box):
    (box.folder / "function.yaml").write_text(FUNCTION + "  - {name: more, kafka: {topic: numbers}}\n")
    status, said = box.refused()
    assert status == 1
    assert 'trigger "more" needs the Kafka connection "kafka"' in said
    assert f"-v $PWD/environments.yaml:{box.home}/environments.yaml:ro" in said


def test_with_a_gateway_elsewhere_only_state_needs_a_volume(box):
    there = box.home / "gateway"
    there.mkdir()
    gateway = subprocess.Popen(
        [
            *(sys.executable, "-m", "fleetfn_gateway", "--data", str(there / "data")),
            *("--socket", str(there / "gateway.sock"), "--worker", str(there / "deliver.sock")),
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        until((there / "gateway.sock").exists)
        named = {"FLEETFN_GATEWAY": str(there / "gateway.sock")}
        status, said = box.refused(volume="no", **named)
        assert status == 1
        assert "adder keeps state, which would be gone with the container" in said
    finally:
        gateway.stdin.close()
        assert gateway.wait(60) == 0


def _has_worker(one):
    """Process 1 has forked it: from then on it can be told something."""
    try:
        first = one.first_process()
        return first.cmdline()[0] == sys.executable and bool(first.children())
    except (ValueError, IndexError, psutil.Error):
        return False


def until(true, limit=60.0):
    end = time.monotonic() + limit
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
