"""A bridge over a durable queue, to be killed: `python mqtt_child.py <folder> <address> <first level> <version> <qos>`.

Prints a line once its subscription stands, and one with the data of all rows when its input says `show`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from fleetfn_gateway.mqtt_bridge import MqttBridge
from fleetfn_gateway.queue import Queue
from kafka_doubles import until
from mqtt_doubles import function, trigger


async def main(folder: str, address: str, topic: str, version: str, qos: str) -> None:
    queue = await Queue.open(Path(folder) / "inbox.db", quota=1 << 30)
    made = trigger(f"{topic}/{{vehicle}}/battery", qos=int(qos), key=None)  # without keys all rows are heads of lanes
    bridge = MqttBridge(function(address, made, place=topic, version=version), made, queue, queue)
    await bridge.start()
    await until(lambda: bridge._stood)  # what is sent before that, no broker keeps for it
    print(json.dumps("begun"), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        rows = await queue.take("battery", ["live"], 10_000, 1 << 30)
        for row in rows:
            queue.release(row.sequence)
        print(json.dumps([(row.event.data or b"").decode() for row in rows]), flush=True)
    await bridge.close()
    await queue.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
