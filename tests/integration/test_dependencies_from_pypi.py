"""What a worker needs, from a real package index: for this architecture and the other one, and enough to run."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from fleetfn_builder import needs, wheel
from fleetfn_builder.assembly import anatomy, bytecode, layers, runtime
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.install import Wanted, install
from fleetfn_builder.assembly.target import Target, of_this_machine
from fleetfn_spec.load import load_function

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "samples" / "battery-alert"
MACHINES = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}
"""Of ELF files, at byte 18."""


@pytest.fixture(scope="module", autouse=True)
def _index():
    address = os.environ.get("UV_DEFAULT_INDEX", "https://pypi.org/simple")
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/msgspec/", timeout=60).close()  # noqa: S310 - the index of whoever runs this
    except OSError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no package index: {error}")


@pytest.fixture(name="own", scope="module")
def _own(tmp_path_factory):
    return wheel.of_this_fleetfn(tmp_path_factory.mktemp("wheels"))


def make(folder, target, own, extras, requirements=None):
    wanted = Wanted(runtime.needs(own, extras), requirements, needs.constraints(target.python, extras))
    install(folder, target, wanted, uv=wheel.uv_path())
    return folder


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_a_samples_dependencies_come_as_wheels_for_either_architecture(tmp_path, own, architecture):
    extras = needs.extras(load_function(SAMPLE))
    target = Target(of_this_machine().python, architecture, "glibc", "/usr/bin/python3", "2.36")
    made = []
    for place in ("one", "two"):
        tree = make(tmp_path / place, target, own, extras)
        bytecode.compile_tree(tree, anatomy.DEPENDENCIES, bytecode.interpreter(target.python))
        made.append(layers.write(tmp_path / f"{place}.tar.gz", [layers.Tree(tree, anatomy.DEPENDENCIES)]))
    compiled = [path for path in tree.rglob("*.so*") if path.is_file()]
    assert len(compiled) >= 4
    assert {path.read_bytes()[18:20] for path in compiled} == {MACHINES[architecture]}
    names = {path.name.partition("-")[0] for path in (tree / target.site_packages).glob("*.dist-info")}
    assert names >= {"confluent_kafka", "msgspec", "uvloop", "uvicorn", "httptools"}
    assert not names & {"typer", "rich", "httpcore", "fastapi", "fleetfn"}
    assert made[0].digest == made[1].digest
    assert made[0].size < 16 * 1024 * 1024


def test_a_package_that_has_no_wheel_for_the_architecture_is_named(tmp_path, own):
    """mkl, a library of Intel's, has been published for Intel's architecture alone."""
    (tmp_path / "requirements.txt").write_text("mkl\n")
    target = Target(of_this_machine().python, "arm64", "glibc", "/usr/bin/python3", "2.36")
    with pytest.raises(AssemblyError) as caught:
        make(tmp_path / "tree", target, own, ["worker", "gateway"], tmp_path / "requirements.txt")
    assert "mkl" in caught.value.message
    assert "linux/arm64" in caught.value.message
    assert "only wheels are taken" in caught.value.hint


FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: probe}
spec:
  handler: handler:ask
  triggers:
  - {name: ask, http: {path: /ask, methods: [GET]}}
  - {name: tick, handler: handler:tick, cron: {schedule: "* * * * *"}}
"""
HANDLER = """
from fleetfn import Request, Response, Tick

def ask(request: Request) -> Response:
    return Response(200, "it runs")

def tick(tick: Tick) -> None: ...
"""


@pytest.mark.node
def test_a_worker_runs_on_what_is_installed_for_it(tmp_path, own):
    """Without the command line's libraries, without Kafka's, and without the packages that an image leaves out."""
    runtime.unpack(own, tmp_path / "runtime")
    tree = make(tmp_path / "tree", of_this_machine(), own, ["worker", "gateway"])
    (tmp_path / "fn").mkdir()
    (tmp_path / "fn" / "function.yaml").write_text(FUNCTION)
    (tmp_path / "fn" / "handler.py").write_text(HANDLER)
    command = [tree / "bin" / "python", "-m", "fleetfn_runtime", "--folder", tmp_path / "fn"]
    command += ["--data", tmp_path / "data", "--port", "0"]
    env = {**anatomy.ENVIRONMENT, "PYTHONPATH": str(tmp_path / "runtime")}
    log = tmp_path / "log"
    with log.open("w") as said, subprocess.Popen(command, env=env, stdout=said, stderr=said) as worker:
        try:
            port = _port(log, worker)
            for path, shown in (("/ask", b"it runs"), ("/-/metrics", b"fleetfn_")):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
                    assert shown in reply.read()
        finally:
            worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()


def _port(log, worker):
    until = time.monotonic() + 60
    while time.monotonic() < until and worker.poll() is None:
        found = re.search(r"listening on http://[\d.]+:(\d+)", log.read_text())
        if found and "\nready" in log.read_text():
            return int(found[1])
        time.sleep(0.05)
    raise AssertionError(log.read_text())
