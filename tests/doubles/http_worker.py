"""A worker process for tests of the hand-over: `python http_worker.py <fd of the channel> <path> [seconds of a run]`.

It answers `<path>` with its pid, adopts what its channel brings, hands back what is not its own, and drains when told.
"""

import asyncio
import os
import socket
import sys

import uvloop
from fleetfn.http import Response
from fleetfn.invocation import Done
from fleetfn_runtime import channel_io
from fleetfn_runtime.channel import Connection, HandBack, Ready
from fleetfn_runtime.http_server import HttpSource
from http_doubles import trigger


async def main() -> None:
    fd, path, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    channel = channel_io.worker_end(socket.socket(fileno=fd))
    loop = asyncio.get_running_loop()

    def take(deliveries):
        for delivery in deliveries:
            loop.call_later(seconds, settle, delivery)

    def settle(delivery):
        body = b"%d %b" % (os.getpid(), delivery.request.body)
        delivery.source.settle(delivery, Done(Response(200, body)))

    source = HttpSource("f", [trigger(path)], take, hand_back=lambda fd, head: channel.send(HandBack(head), fd))
    channel.send(Ready(os.getpid(), ""))
    while (received := await channel.receive()) is not None:
        message, handed = received
        if not isinstance(message, Connection):
            break
        source.adopt(handed, message.head)
    await source.drain()
    await channel.flush()


uvloop.run(main())
