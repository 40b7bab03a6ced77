"""Connections into the cluster's network from loopback outside of it; the other way there is none.

    python3 door.py NAMESPACE PORT=HOST:PORT...

The ports are listened on where this starts, the addresses behind them are connected to inside the namespace: a socket
stays in the namespace that it was made in, so the process opens its ears first and enters then.
"""

import asyncio
import ctypes
import functools
import os
import socket
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
CHUNK = 1 << 16


def enter(namespace: str) -> None:
    """Connect from now on inside the network namespace of this path."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(namespace).open() as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace!r}")


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that comes, until its end."""
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    if not writer.is_closing():
        writer.write_eof()


async def carry(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, to its address inside."""
    far = None
    try:
        far_reader, far = await asyncio.open_connection(host, port)
        await asyncio.gather(pour(reader, far), pour(far_reader, writer))
    except OSError:
        pass  # either end has gone: so does the other
    finally:
        for end in (writer, far):
            if end:
                end.close()


async def serve(namespace: str, ways: list[str]) -> None:
    ears = []
    for way in ways:
        port, _, address = way.partition("=")
        host, _, inner = address.rpartition(":")
        ears.append((socket.create_server(("127.0.0.1", int(port))), host, int(inner)))
    enter(namespace)
    under_way: set[asyncio.Task[None]] = set()  # a loop holds its tasks weakly

    def open_for(host: str, port: int, *streams: Any) -> None:
        task = asyncio.ensure_future(carry(host, port, *streams))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    for ear, host, port in ears:
        await asyncio.start_server(functools.partial(open_for, host, port), sock=ear)
    print(f"pid {os.getpid()} passes {', '.join(ways)}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2:]))
