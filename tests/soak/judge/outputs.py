"""Emits to other outputs than `chains`' Kafka one, the function without state, and the function behind `chains`."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator

from soak.judge.evidence import Evidence, Line
from soak.judge.expected import id_in

BESIDE = 10.0
"""Seconds between the same emit's being told to two outputs at most, one of which may just have been away."""


def judge(evidence: Evidence) -> Iterator[str]:
    yield from _also(evidence, "mqtt", evidence.out_mqtt)
    yield from _also(evidence, "http", evidence.out_http)
    yield from _relayed(evidence)
    yield from _audited(evidence)
    yield from _answered(evidence)


def _also(evidence: Evidence, output: str, received: list[Line]) -> Iterator[str]:
    """Each link that was to be told there, too, was; word for word, under one id."""
    wanted = {}
    forgotten = set()
    for record in evidence.log["out"]:
        text = record.value.decode()
        link = json.loads(text)
        if evidence.plan[link["id"]]["also"] == output:
            wanted[text] = f"{link['vehicle']}: {link['id']} of source {link['source']}"
            if any(kill.saved - BESIDE < record.time < kill.killed + BESIDE for kill in evidence.kills):
                forgotten.add(text)
    told = {one["data"] for one in received}
    for text in wanted.keys() - told - (forgotten if output == "mqtt" else set()):
        yield f"{wanted[text]} was not told to output {output}"
    for text in told - wanted.keys():
        yield f"output {output} was told what Kafka's was not: {text}"
    yield from _ids(output, received)


def _ids(output: str, received: list[Line]) -> Iterator[str]:
    by_text: dict[str, set[str]] = defaultdict(set)
    by_id: dict[str, set[str]] = defaultdict(set)
    for one in received:
        by_text[one["data"]].add(one["id"])
        by_id[one["id"]].add(one["data"])
    for text, ids in by_text.items():
        if len(ids) > 1:
            yield f"output {output} was told the same under several ids, {sorted(ids)}: {text}"
    for id_, texts in by_id.items():
        if len(texts) > 1:
            yield f"output {output} was told different things under the id {id_}: {sorted(texts)}"


def _relayed(evidence: Evidence) -> Iterator[str]:
    ids: dict[str, set[str | None]] = defaultdict(set)
    for record in evidence.log["relayed"]:
        ids[json.loads(record.value)["of"]].add(record.id)
    places = {record.place: record for record in evidence.log["raw"]}
    for place, record in places.items():
        if place not in ids:
            yield f"{record.key}: {id_in(record.value)} ({place}) was not relayed"
    seen: dict[str | None, str] = {}
    for place, names in ids.items():
        if place not in places:
            yield f"something was relayed that was never sent: {place}"
        if len(names) > 1:
            yield f"{place} was relayed under several ids: {sorted(map(str, names))}"
        for name in names:
            if seen.setdefault(name, place) != place:
                yield f"{seen[name]} and {place} were relayed under one id, {name}"


def _audited(evidence: Evidence) -> Iterator[str]:
    """A vehicle's records lie in one partition, so its state there is the replay of them all, repeats included."""
    replayed: dict[str, dict[str, int | str]] = {}
    for record in evidence.log["out"]:
        chain = replayed.setdefault(record.key, {"n": 0, "hash": ""})
        text = f"{chain['hash']}{json.loads(record.value)['id']}"
        chain["n"] = int(chain["n"]) + 1
        chain["hash"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    for vehicle in sorted(replayed.keys() | evidence.audit.keys()):
        stored, right = evidence.audit.get(vehicle), replayed.get(vehicle)
        if stored != right:
            yield f"{vehicle}: audit holds {stored}, a serial replay of what it was told gives {right}"


def _answered(evidence: Evidence) -> Iterator[str]:
    """What a caller was told is what was told to Kafka."""
    told = {record.value.decode() for record in evidence.log["out"]}
    for answer in evidence.answers:
        if answer["status"] == 200 and answer["body"] and answer["body"] not in told:
            yield f"{answer['id']}: its caller was told what Kafka's output was not: {answer['body']}"
        if answer["status"] == 200 and not answer["body"] and not answer["duplicate"]:
            yield f"{answer['id']}: its caller was told nothing, and not that it is a repeat"
