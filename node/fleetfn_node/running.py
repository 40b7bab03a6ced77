"""One node from its start to its end: the house, then its control API; a signal or a call of that ends both."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import uvloop

from fleetfn_node.control import ControlServer
from fleetfn_node.node import Node, Options

log = logging.getLogger("fleetfn.node")


def run(options: Options) -> None:
    """Raises FleetError, OSError for what keeps it from running."""
    uvloop.run(_run(options))


async def _run(options: Options) -> None:
    node = Node(options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    control = ControlServer(node)
    try:
        await node.open()
        await control.open()  # last: who gets an answer finds the whole node
        log.info("node %s is up: %s, pid %d, data %s", options.name, node.url, os.getpid(), options.folders.data)
        await node.stopping.wait()
        log.info("stopping: workers drain")
    finally:
        await node.close()
        await control.close()
