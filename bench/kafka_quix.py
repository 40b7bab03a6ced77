"""Quix Streams as the Kafka benchmark runs it: as it ships, but without changelog topics. JSON to dicts."""

from __future__ import annotations

import os
from typing import Any

from kafka_tally import BROKER, FOLDER, GROUP, LARGE, TOPIC, Tally
from quixstreams import Application, State

HOT = 60
FETCHING = {"queued.max.messages.kbytes": 16 * 1024, "fetch.wait.max.ms": 100, "fetch.queue.backoff.ms": 10}
"""As FleetFn has it: by its own settings librdkafka stops fetching for a second whenever its queue is full."""


def main() -> None:
    tally = Tally()

    def look(value: dict[str, Any]) -> None:
        frame = value["frames"][-1] if LARGE else value
        if frame["temperature_max"] > HOT and frame["speed"] > 0:
            pass
        tally.one()

    def keep(value: dict[str, Any], state: State) -> None:
        frame = value["frames"][-1] if LARGE else value
        pack = state.get("pack") or {"records": 0, "hottest": 0.0}
        pack["records"] += 1
        pack["hottest"] = max(pack["hottest"], frame["temperature_max"])
        state.set("pack", pack)
        tally.one()

    app = Application(
        BROKER,
        consumer_group=GROUP,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        consumer_extra_config=FETCHING,
        use_changelog_topics=False,
        state_dir=FOLDER / "state",
        loglevel="WARNING",
    )
    rows = app.dataframe(app.topic(TOPIC, value_deserializer="json", key_deserializer="str"))
    if os.environ["BENCH_STATE"] == "none":
        rows.update(look)
    else:
        rows.update(keep, stateful=True)
    app.run()


if __name__ == "__main__":
    main()
