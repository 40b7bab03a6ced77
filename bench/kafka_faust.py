"""Faust (faust-streaming) as the Kafka benchmark runs it: `python kafka_faust.py worker`. JSON to dicts."""

from __future__ import annotations

import os
from typing import Any

import faust
from kafka_tally import BROKER, FOLDER, GROUP, TOPIC, Tally

HOT = 60
STORE = os.environ["BENCH_STATE"]

tally = Tally()
app = faust.App(
    GROUP,
    broker=f"kafka://{BROKER}",
    store="memory://" if STORE == "none" else f"{STORE}://",
    datadir=FOLDER / "faust",
    consumer_auto_offset_reset="earliest",
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    topic_disable_leader=True,
    web_enabled=False,
)
frames = app.topic(TOPIC, key_type=str, value_serializer="json")


async def look(stream: faust.Stream[dict[str, Any]]) -> None:
    async for frame in stream:
        if frame["temperature_max"] > HOT and frame["speed"] > 0:
            pass
        tally.one()


async def keep(stream: faust.Stream[dict[str, Any]]) -> None:
    async for key, frame in stream.items():
        pack = packs[key]
        pack["records"] += 1
        pack["hottest"] = max(pack["hottest"], frame["temperature_max"])
        packs[key] = pack
        tally.one()


if STORE == "none":
    app.agent(frames)(look)
else:
    packs = app.Table("packs", default=lambda: {"records": 0, "hottest": 0.0})
    app.agent(frames)(keep)

if __name__ == "__main__":
    app.main()
