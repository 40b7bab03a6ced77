"""run: what can be said before anything runs, and how it ends."""

import queue
import signal

import pytest
from fleetfn_cli.commands import running
from fleetfn_cli.screen import Screen
from fleetfn_cli.session import Session

FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: hello}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""


@pytest.fixture(autouse=True)
def no_engine(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")


def test_what_is_at_this_machines_loopback_is_out_of_a_containers_reach(fn):
    for given in ("kafka=localhost:9092", "mqtt=mqtt://127.0.0.1:1883"):
        said = fn("run", "hello:1", "--connection", given)
        assert said.status == 2
        assert "which in a container is the container itself" in said.err
        assert "--network host" in said.err
    assert "no Docker engine answers" in fn("run", "hello:1", "--connection", given, "--network", "host").err


def test_without_an_engine_it_says_so_before_it_builds(fn, tmp_path):
    (tmp_path / "hello").mkdir()
    (tmp_path / "hello" / "function.yaml").write_text(FUNCTION)
    (tmp_path / "hello" / "handler.py").write_text("def hello(name: str) -> str:\n    return name\n")
    said = fn("run", "hello")
    assert said.status == 1
    assert "no Docker engine answers" in said.err
    assert "checking" not in said.err


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (["--env", "prod"], "there is no environment 'prod'"),
        (["--connection", "kafka"], "'kafka' is no connection"),
        (["--env-file", "nowhere"], "nowhere"),
        (["--port", "70000"], "70000"),
    ],
    ids=lambda each: each[0].strip("-") if isinstance(each, list) else "",
)
def test_what_cannot_be_is_refused(fn, line, problem):
    said = fn("run", "hello:1", *line)
    assert said.status == 2
    assert problem in said.err


class Container:
    """Says lines until it is stopped `stops` times, and then one more."""

    def __init__(self, stops):
        self._stops = queue.SimpleQueue()
        self._left = stops

    def lines(self):
        yield b"ready"
        for _ in range(self._left):
            self._stops.get(timeout=60)
        yield b"drained"

    def stop(self):
        self._stops.put(None)

    def exit_code(self):
        return 0


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
def test_a_signal_while_a_line_is_shown_drains_the_container_all_the_same(signals, monkeypatch):
    said = []

    def say(_screen, text):
        said.append(text)
        if text == "ready":
            for each in signals:
                signal.raise_signal(each)

    monkeypatch.setattr(Screen, "say", say)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    assert running._follow(Session(Screen("table")), Container(len(signals))) == 0
    assert said == ["ready", *["draining; Ctrl-C again hurries it"] * len(signals), "drained"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
