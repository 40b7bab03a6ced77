"""The embedded MQTT broker, for demo and development only, in a process of its own.

It needs no install, keeps everything in memory, sessions too, and forgets all when it ends.

    python -m fleetfn_node.embedded_mqtt [port]

prints {"address": "127.0.0.1:port"} and ends when its standard input does: with whoever started it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable

from fleetfn_node.embedded_process import EmbeddedProcess, tell


class EmbeddedMqtt(EmbeddedProcess):
    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        super().__init__(__spec__.name, "address", "the embedded MQTT broker", moved=moved, keeps_port=True)


async def serve(port: int) -> None:
    from fleetfn_node.mqtt_broker import Broker  # noqa: PLC0415 - only the child needs it

    broker = Broker()
    try:
        address = await broker.start(port=port)
    except OSError:  # somebody else has it by now
        address = await broker.start(port=0)
    tell("address", address)
    await asyncio.to_thread(sys.stdin.buffer.read)
    await broker.stop()


def main() -> None:
    logging.basicConfig(format="embedded MQTT broker: %(message)s")
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    try:
        import uvloop  # noqa: PLC0415 - quicker, and not needed
    except ImportError:
        asyncio.run(serve(port))
    else:
        uvloop.run(serve(port))


if __name__ == "__main__":
    main()
