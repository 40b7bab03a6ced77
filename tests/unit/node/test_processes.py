"""A process that another one reaps, which tells its exit status, or is gone itself."""

import asyncio
import subprocess
import sys

import pytest
from fleetfn_node import processes
from fleetfn_node.processes import Process
from kafka_doubles import until


@pytest.fixture
def child():
    """It ends with status 7 when its stdin does. Nobody asks it by `Process`."""
    popen = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.exit(len(sys.stdin.read()) + 7)"], stdin=subprocess.PIPE
    )
    yield popen
    popen.stdin.close()
    popen.wait()


async def ended(process):
    """Its exit status; a limit far below that of one who may tell yet."""
    return await asyncio.wait_for(asyncio.shield(process.exited), 30)


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    monkeypatch.setattr(processes, "_STATUS_WAIT", 300.0)


async def test_its_exit_status_is_awaited_once_it_is_gone(child):
    process = Process(child.pid)
    child.stdin.close()
    child.wait()
    await until(lambda: process._descriptor is None)
    assert not process.exited.done()
    process.report(7)
    assert await ended(process) == 7


@pytest.mark.parametrize("first", ["the one that reaps it", "it"])
async def test_nobody_is_awaited_where_the_one_that_reaps_it_is_gone(child, first):
    process = Process(child.pid)
    if first == "the one that reaps it":
        process.forsake()
        assert not process.exited.done()
    child.stdin.close()
    if first == "it":
        await until(lambda: process._descriptor is None)
    process.forsake()
    assert await ended(process) is None


async def test_a_child_of_our_own_tells_its_status_itself(child):
    process = Process(child.pid, child.poll)
    process.forsake()
    child.stdin.close()
    assert await ended(process) == 7
