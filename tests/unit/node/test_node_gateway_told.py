"""What the node's gateway could not be told of, it is told again."""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from fleetfn_node.folders import Folders
from fleetfn_node.gateway import Gateway, Known, unless_away
from fleetfn_node.gateway_process import GatewayOptions
from fleetfn_spec.gateway import GatewayFunction, GatewayStatus
from road_doubles import until
from worker_process import function


def hosted(*paused):
    return GatewayFunction(
        function=function(), revision="1", environment="local", place="n", source=Path("/s"), paused=paused
    )


class GatewayDouble:
    """Answers on the gateway's socket for a process that only waits for the end of its input."""

    def __init__(self, process):
        self.process = process
        self.refuses = 0
        self.paused = None
        self.asked = asyncio.Event()
        """It has been told something."""
        self.answers = asyncio.Event()
        self.answers.set()

    async def serve(self, reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(
                    int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length")
                )
                status, body = self.answer(head.split(" ")[:2], await reader.readexactly(length))
                if not head.startswith("GET"):
                    self.asked.set()
                    await self.answers.wait()
                writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        writer.close()

    def answer(self, call, body):
        if call[0] == "GET":
            return 200, msgspec.json.encode(GatewayStatus(pid=self.process.pid, data="", bytes=0, quota=0))
        if self.refuses:
            self.refuses -= 1
            return 503, b'{"message": "the disk does not answer"}'
        told = msgspec.json.decode(body)
        self.paused = (told if isinstance(told, list) else [told])[0]["paused"]
        return 200, b"{}"


@pytest.fixture
def process():
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
async def double(process, tmp_path):
    double = GatewayDouble(process)
    server = await asyncio.start_unix_server(double.serve, tmp_path / "gateway.sock")
    yield double
    server.close()


async def test_a_pause_that_the_gateway_could_not_be_told_of_is_told_again(double, tmp_path):
    now = hosted()
    gateway = Gateway(GatewayOptions(Folders(tmp_path, tmp_path)), lambda: Known([now], True), double.process)
    gateway.open()
    await gateway.tell_all()
    assert double.paused == []
    double.refuses, now = 1, hosted("add")
    late = await unless_away(gateway.tell(lambda: now), "told later")
    assert late == "told later: the disk does not answer"
    await until(lambda: double.paused == ["add"])
    await until(lambda: gateway.problem == "")
    await gateway.close()


async def test_a_change_while_a_gateway_is_told_for_the_first_time_is_told_again(double, tmp_path, monkeypatch):
    """It was told of what there was a moment before, and takes longer to answer than anybody waits for it."""
    monkeypatch.setattr("fleetfn_node.gateway.PATIENCE", 0.05)
    now = hosted()
    double.answers.clear()
    gateway = Gateway(GatewayOptions(Folders(tmp_path, tmp_path)), lambda: Known([now], True), double.process)
    gateway.open()
    await gateway.tell_all()
    await double.asked.wait()
    now = hosted("add")
    assert (await unless_away(gateway.tell(lambda: now), "told later")).startswith("told later: the gateway starts")
    double.answers.set()
    await until(lambda: double.paused == ["add"])
    await gateway.close()
