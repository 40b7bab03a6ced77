"""What must have come of each event, by the plan and by what its source confirmed: which were taken in which order, and
which must be dead letters.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from soak.judge.evidence import Evidence

GIVEN_UP = {"reject": "rejected", "bad": "unreadable", "fail": "attempts", "exit": "crashed"}
"""What an event is to do -> the reason of its dead letter. All others are taken."""

ANSWERS = {"reject": 422, "bad": 400}
"""What a caller who waits is told; 200 for all others."""

SOURCE_OF = {"in": "k", "risky": "x"}
"""Topic -> what its sources' names begin with."""

CLOCK = 0.1
"""Seconds that a broker's last save and an acknowledgement may seem the wrong way round."""

NOTED = 10.0
"""Seconds until a busy client has noted what its broker acknowledged before it was killed."""

TAKEN = 5.0
"""Seconds until an event that is in the inbox is acknowledged, and saved so, at the latest."""

Where = tuple[str, str]
"""Vehicle and source."""


@dataclass
class Link:
    """`name`: of a record its place in Kafka, else the event's id. It is taken `least` to `most` times."""

    name: str
    id: str
    least: int = 1
    most: int = 1
    again: bool = False
    """It may come again behind later ones: its broker forgot that it was acknowledged."""


@dataclass
class Expected:
    taken: dict[Where, list[Link]] = field(default_factory=lambda: defaultdict(list))
    """In the order of their source."""
    dead: dict[str, list[Link]] = field(default_factory=lambda: defaultdict(list))
    """By event id."""
    faults: list[str] = field(default_factory=list)
    """Where the sources themselves did not do what was planned."""


def id_in(payload: bytes) -> str:
    """Of a payload that may be no JSON."""
    found = re.search(rb'"id": ?"(\w+)"', payload)
    return found[1].decode() if found else ""


def expected(evidence: Evidence) -> Expected:
    found = Expected()
    _kafka(evidence, found)
    _mqtt(evidence, found)
    _http(evidence, found)
    return found


def _kafka(evidence: Evidence, found: Expected) -> None:
    """Its log is the truth: what it confirmed must be there, and what is there must be taken."""
    places = {}
    for record in (*evidence.log["in"], *evidence.log["risky"]):
        event = evidence.plan[id_in(record.value)]
        places[record.place] = event["id"]
        if event["source"] != f"{SOURCE_OF[record.topic]}{record.partition}" or event["vehicle"] != record.key:
            found.faults.append(f"{record.key}: record {record.place} is {event['id']}, planned for {event['source']}")
        _add(evidence, found, Link(record.place, event["id"]))
    places |= {record.place: id_in(record.value) for record in evidence.log["raw"]}
    found.faults += [
        f"Kafka confirmed {sent['id']} at {place}, where its log has {places.get(place)}"
        for sent in evidence.sent_kafka
        if places.get(place := f"{sent['topic']}/{sent['partition']}/{sent['offset']}") != sent["id"]
    ]
    confirmed = Counter(sent["id"] for sent in evidence.sent_kafka)
    for event in evidence.plan.values():
        if event["source"][0] in "kxr" and confirmed[event["id"]] != event["times"]:
            found.faults.append(f"{event['id']}: Kafka confirmed it {confirmed[event['id']]} times of {event['times']}")


def _mqtt(evidence: Evidence, found: Expected) -> None:
    acked: Counter[str] = Counter()
    taken = _taken_at(evidence) if evidence.kills else {}
    for sent in evidence.sent_mqtt:
        id_ = sent["id"]
        acked[id_] += sent["acked"]
        forgotten = any(
            sent["began"] < kill.killed and kill.saved - CLOCK < sent["ended"] < kill.killed + NOTED
            for kill in evidence.kills
        )
        again = sum(sent["began"] < kill.killed and taken.get(id_, 0.0) > kill.saved - TAKEN for kill in evidence.kills)
        least = int(sent["acked"] and not forgotten)
        _add(evidence, found, Link(id_, id_, least, sent["sends"] + again, again > 0))
    for event in evidence.plan.values():
        if event["source"] == "mqtt" and acked[event["id"]] != event["times"]:
            found.faults.append(
                f"{event['id']}: the MQTT broker acknowledged it {acked[event['id']]} times of {event['times']}"
            )


def _taken_at(evidence: Evidence) -> dict[str, float]:
    """Event id -> when at the latest the inbox had it first. What it had well before its broker saved, the broker knew
    to be acknowledged.
    """
    found = {id_in(letter.data): letter.created for letter in evidence.letters}
    for record in evidence.log["out"]:
        found.setdefault(id_in(record.value), record.time)
    return found


def _http(evidence: Evidence, found: Expected) -> None:
    answered = set()
    for answer in evidence.answers:
        event = evidence.plan[answer["id"]]
        answered.add(answer["id"])
        waits = event["source"] == "http"
        wanted = ANSWERS.get(event["do"], 200) if waits else 202
        if answer["status"] != wanted:
            found.faults.append(
                f"{event['vehicle']} {event['id']} ({event['source']}): answered {answer['status']} instead of "
                f"{wanted} after {answer['tries']} tries: {answer['body'][:200]}"
            )
        if not (waits and event["do"] in ANSWERS):
            _add(evidence, found, Link(event["id"], event["id"], int(answer["status"] in {200, 202}), 1))
    for event in evidence.plan.values():
        if event["source"] in {"http", "async"} and event["id"] not in answered:
            found.faults.append(f"{event['vehicle']} {event['id']} ({event['source']}): never asked")


def _add(evidence: Evidence, found: Expected, link: Link) -> None:
    event = evidence.plan[link.id]
    if event["do"] in GIVEN_UP:
        found.dead[link.id].append(link)
        return
    links = found.taken[event["vehicle"], event["source"]]
    if links and links[-1].name == link.name:  # sent again at once
        links[-1].least += link.least
        links[-1].most += link.most
        links[-1].again |= link.again
    else:
        links.append(link)


def dead_counts(expected_: Expected) -> Iterator[tuple[str, int, int]]:
    """Event id, least and most dead letters."""
    for id_, links in expected_.dead.items():
        yield id_, sum(link.least for link in links), sum(link.most for link in links)
