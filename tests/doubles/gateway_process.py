"""A gateway as a process of its own, for one worker, and what a test asks of it."""

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import msgspec
from fleetfn_plumbing.http_client import UnreachableError
from fleetfn_plumbing.unix_http import UnixClient
from fleetfn_spec.control import Refusal
from fleetfn_spec.gateway import GatewayFunction, GatewayStatus, Redrive
from fleetfn_triggers.inbox import Row, Which

LIMIT = 60.0


class _Dead(msgspec.Struct):
    rows: list[Row]


class GatewayProcess:
    """Use inside a running loop. `socket` must be short; `worker`: the delivery socket that it pushes to."""

    def __init__(self, data, socket, *, worker):
        self.socket = Path(socket)
        self._command = [sys.executable, "-m", "fleetfn_gateway", "--data", str(data), "--socket", str(socket)]
        self._command += ["--worker", str(worker)]
        self._client = UnixClient(self.socket)

    def start(self):
        self.process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        return self

    async def serving(self):
        async with asyncio.timeout(LIMIT):
            while not await self._serves():
                assert self.process.poll() is None, "the gateway ended"
                await asyncio.sleep(0.02)
        return self

    async def tell(self, function, source, **more):
        """There is this function."""
        told = GatewayFunction(
            function=function, revision="abc123", environment="test", place="test", source=source, **more
        )
        path = f"/v1/functions/{function.name}"
        await self.ask("PUT", path, msgspec.json.encode(told, enc_hook=str))

    async def ask(self, method, path, body=b""):
        reply = await self._client.request(method, path, body, limit=LIMIT)
        assert reply.status < 300, msgspec.json.decode(reply.body, type=Refusal)
        return reply.body

    async def dead(self, **which):
        return msgspec.json.decode(await self.ask("GET", f"/v1/dlq?{urlencode(which)}"), type=_Dead).rows

    async def redrive(self, **which):
        await self.ask("POST", "/v1/dlq/redrive", msgspec.json.encode(Redrive(which=Which(**which))))

    async def waiting(self, function, trigger):
        status = msgspec.json.decode(await self.ask("GET", "/v1/gateway"), type=GatewayStatus)
        return status.functions[function][trigger].waiting

    async def kill(self):
        self.process.kill()
        self.process.stdin.close()
        await asyncio.to_thread(self.process.wait, LIMIT)
        await self._client.close()

    async def close(self):
        await self._client.close()
        self.process.stdin.close()
        if self.process.poll() is None:
            await asyncio.to_thread(self.process.wait, LIMIT)

    async def _serves(self):
        try:
            return (await self._client.request("GET", "/healthz", limit=10)).status == 200
        except UnreachableError:
            return False
