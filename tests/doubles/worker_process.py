"""A worker as a process of its own, and the test as its node. Run as a script, it becomes the worker."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import yaml
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel import Connection, Drain, Leaving, Ready, Report, Serve, Stats
from fleetfn_runtime.settings import Settings
from fleetfn_runtime.worker import run_worker
from fleetfn_spec.function import Function

LIMIT = 60.0


def function(name="adder", *, handler="handler:add", triggers=None, **spec):
    triggers = triggers or [{"name": "add", "key": "data.car", "http": {"path": "/add"}}]
    return msgspec.convert(
        {
            "apiVersion": "fleetfn.dev/v1alpha1",
            "kind": "Function",
            "metadata": {"name": name},
            "spec": {"handler": handler, "triggers": triggers, **spec},
        },
        Function,
    )


def write_folder(folder, code, made):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "handler.py").write_text(code)
    (folder / "function.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(made)))
    return folder


class WorkerProcess:
    """Use inside a running loop. `data` is the function's folder; `run` holds its sockets. It is told of a gateway at
    `run`/gateway.sock, which a test may start.
    """

    def __init__(self, folder, code, made=None, **settings):
        source = write_folder(folder / "source", code, made or function())
        self.data = folder / "data"
        self.run = Path(tempfile.mkdtemp(prefix="fn-"))
        self.settings = Settings(
            function=made or function(),
            revision="abc123",
            source=source,
            data=self.data,
            run=self.run,
            **{"gateway": self.run / "gateway.sock", **settings},
        )
        self.heard = []

    def start(self):
        mine, its = channel_io.pair()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(its.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[its.fileno()],
        )
        its.close()
        self.channel = channel_io.node_end(mine)
        self.process.stdin.write(msgspec.msgpack.encode(self.settings, enc_hook=str))
        self.process.stdin.close()
        return self

    async def hear(self, *kinds):
        """The first message of these kinds, with its descriptor; None: the channel ended before it."""
        async with asyncio.timeout(LIMIT):
            while (received := await self.channel.receive()) is not None:
                self.heard.append(received[0])
                if isinstance(received[0], Leaving):
                    self.channel.send(Drain("it leaves"))
                if isinstance(received[0], kinds):
                    return received
        return None

    async def ready(self):
        message, _ = await self.hear(Ready)
        return message

    async def serving(self):
        message = await self.ready()
        self.channel.send(Serve())
        return message

    async def connect(self, request):
        """Hand over a connection with these bytes read; its client's streams."""
        mine, its = socket.socketpair()
        self.channel.send(Connection(request), its.detach())
        return await asyncio.open_connection(sock=mine)

    async def told(self, done):
        """Asks for its figures until it has told of so many runs that ended well."""
        async with asyncio.timeout(LIMIT):
            while sum(each.counters.done for each in self.heard if isinstance(each, Stats)) < done:
                self.channel.send(Report())
                await self.hear(Stats)

    async def drain(self):
        self.channel.send(Drain("test"))
        while await self.hear(()) is not None:
            pass
        return await self.ended()

    async def ended(self):
        return await asyncio.to_thread(self.process.wait, LIMIT)

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.channel.close()

    def log(self):
        path = self.data / "log.jsonl"
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines() if line.startswith(b"{")]


async def reply(reader):
    """(status, headers, body) of one HTTP reply."""
    async with asyncio.timeout(LIMIT):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        return int(status.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def request(path, body=b"", *, method="POST", **headers):
    lines = [f"{method} {path} HTTP/1.1", "host: test", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main():
    def hook(kind, value):
        return Path(value) if kind is Path else value

    settings = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Settings, dec_hook=hook)
    status = run_worker(settings, int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
