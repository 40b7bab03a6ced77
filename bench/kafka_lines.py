"""Kafka: handlers behind lanes, without and with state, beside a bare consume loop and what one would use instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import payloads
from kafka_subjects import Subjects
from kafka_topics import Topic, filled
from results import Line
from setting import Setting
from turns import Subject, side_by_side

RECORDS = 600_000
LARGE_RECORDS = 100_000
UNIT = "records/s"
FLOOR = "confluent-kafka loop"
KEYS = 1000
MANY = 100_000


def lines(setting: Setting) -> Iterator[Line]:
    run = Subjects(setting)

    def measured(
        what: str, topic: Topic, ours: dict[str, Subject], peers: dict[str, Subject] | None = None
    ) -> list[Line]:
        floor: dict[str, Subject] = {FLOOR: lambda: run.bare(topic)}
        subjects = floor | ours | ((peers or {}) if setting.with_peers else {})
        return side_by_side(f"kafka: {what}", UNIT, subjects, floor=FLOOR, runs=setting.runs)

    small, large = payloads.small(), payloads.large()
    count, count_large = setting.count(RECORDS), setting.count(LARGE_RECORDS)
    with ExitStack() as stack:

        def topic(payload: str, keys: int) -> Topic:
            events, records = (small, count) if payload == "small" else (large, count_large)
            made = filled(setting.kafka, payload, events, keys=keys, count=records)
            stack.callback(made.drop)
            return made

        some = topic("small", KEYS)
        yield from measured(
            "no state, 1,000 keys",
            some,
            {
                "the same loop, fetching as FleetFn does": lambda: run.bare(some, "tuned"),
                "FleetFn, def": lambda: run.fleetfn(some, "look"),
                "FleetFn, def, key: data.vehicle": lambda: run.fleetfn(some, "look", "data.vehicle"),
                "FleetFn, async def": lambda: run.fleetfn(some, "look_async"),
            },
            {
                "Quix Streams": lambda: run.quix(some),
                "Faust": lambda: run.faust(some),
            },
        )
        yield from measured(
            "state, 1,000 keys",
            some,
            {
                "FleetFn, def": lambda: run.fleetfn(some, "keep"),
                "FleetFn, async def": lambda: run.fleetfn(some, "keep_async"),
            },
            {
                "Quix Streams, RocksDB, no changelog": lambda: run.quix(some, "rocksdb"),
                "Faust, table in memory": lambda: run.faust(some, "memory"),
                "Faust, table in RocksDB": lambda: run.faust(some, "rocksdb"),
            },
        )
        one = topic("small", 1)
        yield from measured(
            "one key",
            one,
            {
                "FleetFn, no state": lambda: run.fleetfn(one, "look"),
                "FleetFn, state": lambda: run.fleetfn(one, "keep"),
            },
        )
        many = topic("small", MANY)
        yield from measured(
            "state, 100,000 keys",
            many,
            {
                "FleetFn, def": lambda: run.fleetfn(many, "keep"),
            },
            {
                "Quix Streams, RocksDB, no changelog": lambda: run.quix(many, "rocksdb"),
            },
        )
        big = topic("large", KEYS)
        yield from measured(
            "3 KB, 1,000 keys",
            big,
            {
                "FleetFn, no state": lambda: run.fleetfn(big, "look_large"),
                "FleetFn, state": lambda: run.fleetfn(big, "keep_large"),
            },
        )
