"""A real node for tests: its own process, folders and port; everything it started is gone afterwards."""

import contextlib
import http.client
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import psutil
import yaml
from fleetfn_deploy.client import NodeClient, NotRunningError
from fleetfn_node.child import SPARE
from fleetfn_plumbing import source
from fleetfn_spec.control import DeployRequest
from fleetfn_spec.environments import LOCAL
from fleetfn_spec.function import Function
from free_ports import free_ports

LIMIT = 120.0


def wait_for(condition, limit=LIMIT, what="the condition"):
    """The first true value of `condition`; looked at every 10 ms."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come about within {limit} s")


def free_port():
    return free_ports(1)


class RunningNode:
    def __init__(self, folder, *, launcher=(), **environ):
        """`launcher`: a command that becomes the node's, which is appended to it."""
        self.data = Path(folder) / "data"
        self.run = Path(tempfile.mkdtemp(prefix="fn-"))
        self.port = free_port()
        self.launcher = launcher
        self.environ = environ
        self.client = NodeClient(self.run / "control.sock")
        self.process = None
        self._seen = {}

    def start(self, *more):
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "test.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, sys.executable, "-m", "fleetfn_node", *self.arguments(), *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environ},
            )
        wait_for(lambda: self.process.poll() is not None or self._answers(), what="the node")
        assert self.process.poll() is None, self.log()
        return self

    def arguments(self):
        return ["--data", self.data, "--run", self.run, "--port", str(self.port)]

    def _answers(self):
        with contextlib.suppress(NotRunningError):
            return self.client.node().url
        return None

    def log(self):
        return (self.data / "test.log").read_text()

    # processes

    def processes(self):
        """Every process of the node that is alive, itself included; remembered, so that orphans are found, too."""
        if self.process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                here = psutil.Process(self.process.pid)
                for each in [here, *here.children(recursive=True)]:
                    self._seen[each.pid] = each
        return [each for each in self._seen.values() if alive(each)]

    def workers(self):
        """Pids of living workers, from the process table: children of a warm parent (or orphans), by their folder."""
        functions = self.data / "functions"
        return self._those(lambda each: Path(each.cwd()).is_relative_to(functions))

    def parents(self):
        """Without what they have just forked, which bears their command line, too."""
        found = {}
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                if "fleetfn_node.parent" in each.cmdline() and each.pid not in [*self.workers(), *self.spares()]:
                    found[each.pid] = each.ppid()
        return [pid for pid, parent in found.items() if parent not in found]

    def spares(self):
        """Workers of no function yet, that warm parents forked ahead."""
        return self._those(lambda each: each.name() == SPARE)

    def gateways(self):
        return self._those(lambda each: "fleetfn_gateway" in " ".join(each.cmdline()))

    def _those(self, wanted):
        """Pids of its processes that are `wanted`. One that ends meanwhile is not."""
        found = []
        for each in self.processes():
            with contextlib.suppress(psutil.Error):
                if wanted(each):
                    found.append(each.pid)
        return found

    def stop(self):
        self.processes()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(LIMIT)

    def kill(self):
        self.processes()
        self.process.kill()
        self.process.wait()

    def close(self):
        remaining = self.processes()
        if self.process is not None and self.process.poll() is None:
            self.stop()
        for each in remaining:
            if alive(each):
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()

    # talking

    def deploy(self, folder, environment=LOCAL, *, dry_run=False):
        """(steps, the last line). Raises RefusedError."""
        packed = io.BytesIO()
        source.pack(folder, packed)
        request = DeployRequest(function=function_of(folder), environment=environment, dry_run=dry_run)
        return ended(self.client.deploy(request, [packed.getvalue()]))

    def rollback(self, name, digest=None):
        return ended(self.client.rollback(name, digest))

    def status(self, name):
        return self.client.function(name)

    def http(self, method, path, body=None, headers=None):
        """(status, body, headers) over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)

    def asleep(self, name, limit=LIMIT):
        wait_for(lambda: self.status(name).phase == "sleeping", limit, f"{name} asleep")


def function_of(folder):
    """function.yaml without `fn`'s own checks: what the node refuses by itself is the tests' matter."""
    return msgspec.convert(yaml.safe_load((folder / "function.yaml").read_text()), Function)


def ask(connection, method, path, body=None, headers=None):
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the body's end
        connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    return response.status, response.read(), dict(response.getheaders())


def ended(lines):
    """(steps, the last line); a refusal in it is the test's to look at."""
    with lines:
        all_ = list(lines)
    return [each.step for each in all_ if each.step is not None], all_[-1]


def alive(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def write_function(folder, handler, spec, *, name="hello", requirements=None):
    """A function's folder: handler.py, and function.yaml with `spec` (YAML text below spec:)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.py").write_text(handler)
    indented = "".join(f"  {line}\n" for line in spec.strip("\n").splitlines())
    (folder / "function.yaml").write_text(
        f"apiVersion: fleetfn.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec:\n{indented}"
    )
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return folder
