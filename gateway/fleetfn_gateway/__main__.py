"""`python -m fleetfn_gateway`: one gateway in this process, until a signal, or the end of its standard input."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import stat
import sys
from pathlib import Path

import uvloop
from fleetfn.errors import FleetError

from fleetfn_gateway import command
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.keeping import Keeping
from fleetfn_gateway.owner import Nobody, NodeOwner, OneWorker, Owner
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.service import Service
from fleetfn_gateway.serving import Serving

log = logging.getLogger("fleetfn.gateway")


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    command.log_to_stderr()
    command.more_descriptors()
    tell = _is_kept()  # asked now: the loop closes our standard input
    try:
        with Keeping(asked.data.resolve()):
            uvloop.run(_run(asked))
    except FleetError as error:
        return command.failed(error.message, error.hint, tell=tell)
    except OSError as error:
        return command.failed(f"the gateway cannot run: {error}", tell=tell)
    return 0


async def _run(asked: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await _until_stdin_ends(stopping)
    data = asked.data.resolve()
    queue = await Queue.open(data / "inbox.db", quota=asked.quota)
    gateway = Gateway(queue, _owner(asked), data=data, retention=asked.dead_letters)
    serving = Serving(asked.socket, Service(gateway))
    try:
        await gateway.open()
        serving.open()  # last: who gets an answer finds the whole gateway
        log.info("the gateway is up: %s, pid %d, data %s", asked.socket, os.getpid(), data)
        await stopping.wait()
        log.info("the gateway ends")
    finally:
        # Feeds and workers that drain are heard as long as something may still be put.
        await gateway.close()
        await serving.close()
        await queue.close()


def _owner(asked: argparse.Namespace) -> Owner:
    if asked.owner is not None:
        return NodeOwner(asked.owner)
    return OneWorker(asked.worker) if asked.worker is not None else Nobody()


async def _until_stdin_ends(stopping: asyncio.Event) -> None:
    """Whoever started this process holds the other end of its standard input, and is gone when it ends."""
    if not _is_kept():
        return

    class Ear(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - the base's
            stopping.set()

    await asyncio.get_running_loop().connect_read_pipe(Ear, sys.stdin)


def _is_kept() -> bool:
    """Somebody holds our standard input. A terminal or a file is nobody's."""
    kind = os.fstat(sys.stdin.fileno()).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleetfn_gateway", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of all that is kept; one gateway per folder")
    parser.add_argument("--socket", type=Path, required=True, help="where it serves")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--owner", type=Path, help="control socket of who wakes functions: a node")
    who.add_argument("--worker", type=Path, help="delivery socket of the one worker there is")
    command.add_limits(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
