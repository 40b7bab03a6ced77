"""Reads a run's folder and its Kafka."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition

from soak.judge import dapr_documents
from soak.judge.evidence import Evidence, Kill, Letter, Line, Offset, Record

ANSWER = 20.0
DEAD = 2
"""Rows of the inbox in this state or a higher one are dead letters; in a lower one they wait."""


class Store(NamedTuple):
    """Of a function."""

    states: dict[str, Any]
    """By key."""
    unsent: list[str]
    """Keys whose records hold emits not known to be sent."""


def read(folder: Path) -> Evidence:
    facts = json.loads((folder / "facts.json").read_text())
    stores = {name: _store(folder / "data", name, facts.get("apps")) for name in ("chains", "audit")}
    inbox = folder / "data" / "gateway" / "inbox.db"
    return Evidence(
        plan={event["id"]: event for event in _all(folder, "plan*.jsonl")},
        attempts=facts["attempts"],
        log={topic: _log(facts["kafka"], topic) for topic in ("in", "risky", "raw", "out", "relayed")},
        sent_kafka=_all(folder, "sent-kafka*.jsonl"),
        sent_mqtt=_all(folder, "sent-mqtt*.jsonl"),
        kills=[Kill(**line) for line in _lines(folder / "mosquitto-kills.jsonl")],
        answers=_all(folder, "sent-http*.jsonl"),
        out_mqtt=_lines(folder / "out-mqtt.jsonl"),
        out_http=_lines(folder / "out-http.jsonl"),
        chains=stores["chains"].states,
        audit=stores["audit"].states,
        letters=list(_letters(inbox)),
        waiting=list(_waiting(inbox)),
        unsent=[
            f"{name}: the record of {key} holds emits not known to be sent"
            for name, store in stores.items()
            for key in store.unsent
        ],
        offsets=[offset for group, topic in facts["groups"] for offset in _offsets(facts["kafka"], group, topic)],
    )


def _lines(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _all(folder: Path, names: str) -> list[Line]:
    """The load's own comes before what was sent later."""
    return [line for file in sorted(folder.glob(names), key=lambda file: file.stat().st_mtime) for line in _lines(file)]


def _rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=ANSWER)) as connection:
        return connection.execute(query).fetchall()


def _store(data: Path, function: str, apps: dict[str, str] | None) -> Store:
    """`apps`: what the keys of each function begin with, where state was kept through Dapr."""
    if apps is not None:
        lines = _lines(data / "documents.jsonl")
        documents = {line["key"]: base64.b64decode(line["data"]) for line in lines}
        found = list(dapr_documents.kept(documents, apps[function]))
        states = {record.key: record.value for record in found if record.value is not None}
        return Store(states, [record.key for record in found if record.unsent])
    file = data / "functions" / function / "state.db"
    rows = _rows(file, "SELECT key, value FROM record WHERE value IS NOT NULL")
    unsent = [key for (key,) in _rows(file, "SELECT key FROM record WHERE unsent = 1")]
    return Store({key: json.loads(value) for key, value in rows}, unsent)


def _letters(file: Path) -> Iterator[Letter]:
    query = f"""
        SELECT function, name, key, reason, attempts, created, event
        FROM row JOIN body USING (sequence) JOIN trigger_rows ON trigger_rows.id = row.trigger WHERE state >= {DEAD}
    """  # noqa: S608 - a number of ours
    for *columns, created, event in _rows(file, query):
        yield Letter(*columns, msgspec.msgpack.decode(event)["data"] or b"", created)


def _waiting(file: Path) -> Iterator[str]:
    query = f"""
        SELECT function, name, key, attempts, event
        FROM row JOIN body USING (sequence) JOIN trigger_rows ON trigger_rows.id = row.trigger WHERE state < {DEAD}
    """  # noqa: S608 - likewise
    for function, trigger, key, attempts, event in _rows(file, query):
        data = msgspec.msgpack.decode(event)["data"]
        yield f"{key}: an event of {function}/{trigger} still waits in the inbox after {attempts} attempts: {data!r}"


def _consumer(brokers: str, group: str) -> Consumer:
    return Consumer({"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False})


def _offsets(brokers: str, group: str, topic: str) -> Iterator[Offset]:
    consumer = _consumer(brokers, group)
    partitions = consumer.list_topics(topic, timeout=ANSWER).topics[topic].partitions
    places = [TopicPartition(topic, number) for number in partitions]
    for place in consumer.committed(places, timeout=ANSWER):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, place.partition), timeout=ANSWER)
        yield Offset(group, topic, place.partition, place.offset, end)
    consumer.close()


def _log(brokers: str, topic: str) -> list[Record]:
    consumer = _consumer(brokers, "soak-judge")
    left = {}
    for number in consumer.list_topics(topic, timeout=ANSWER).topics[topic].partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER)
        if high > low:
            left[number] = high
    consumer.assign([TopicPartition(topic, number, 0) for number in left])
    found: list[Record] = []
    limit = time.monotonic() + ANSWER
    while left:
        messages = consumer.consume(1_000, 0.2)
        if messages:
            limit = time.monotonic() + ANSWER
        elif time.monotonic() > limit:
            raise SystemExit(f"{topic}: no record for {ANSWER:g} s, partitions {sorted(left)} not read to their end")
        for message in messages:
            if message.error() is not None:
                raise SystemExit(f"{topic}: {message.error()}")
            found.append(_record(topic, message))
            if message.offset() + 1 >= left.get(message.partition(), 0):
                left.pop(message.partition(), None)
    consumer.close()
    return sorted(found, key=lambda record: (record.partition, record.offset))


def _record(topic: str, message: Any) -> Record:
    headers = {name: value for name, value in message.headers() or [] if value is not None}
    id_ = headers.get("ce_id")
    return Record(
        topic,
        message.partition(),
        message.offset(),
        (message.key() or b"").decode(),
        None if id_ is None else id_.decode(),
        message.value() or b"",
        message.timestamp()[1] / 1000,
    )
