import sys
from dataclasses import dataclass

import pytest
from fake_node import FakeNode
from fleetfn_cli import main
from fleetfn_deploy import places


@dataclass
class Said:
    status: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """Every test has a machine of its own: no node, no FN_ variables but these."""
    monkeypatch.setenv("FN_DATA", str(tmp_path / "node"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    for name in ("FN_NODE", "FN_OUTPUT", "FN_ENV", "FN_PORT", "FN_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def node():
    node = FakeNode(places.find().socket)
    yield node
    node.close()


@pytest.fixture
def fn(capfd):
    """Run a command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        capfd.readouterr()
        status = main.run([str(each) for each in arguments])
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return Said(status, out, err)

    return run
