"""Each vehicle's history, as `chains` told it: link after link, each told with where it stands (`at`), must be one line
without gaps that begins empty and ends in the stored state, and within it each source's events in the source's order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from soak.judge.evidence import Evidence, Line, Record
from soak.judge.expected import Expected, Link

Chain = dict[str, Any]
"""n and hash."""


def judge(evidence: Evidence, expected: Expected) -> Iterator[str]:
    told: dict[str, list[Record]] = defaultdict(list)
    for record in evidence.log["out"]:
        told[record.key].append(record)
    by_vehicle: dict[str, list[tuple[str, list[Link]]]] = defaultdict(list)
    for (vehicle, source), wanted in expected.taken.items():
        by_vehicle[vehicle].append((source, wanted))
    for vehicle in sorted(told.keys() | evidence.chains.keys() | by_vehicle.keys()):
        links = yield from _one_line(vehicle, told[vehicle])
        yield from _replay(vehicle, links, evidence.chains.get(vehicle))
        for source, wanted in by_vehicle[vehicle]:
            names = [_name(link) for link in links if link["source"] == source]
            yield from _order(f"{vehicle}, source {source}", names, wanted)
        for link in links:
            if (vehicle, link["source"]) not in expected.taken:
                yield f"{vehicle}: {link['id']} of source {link['source']} was taken, and never sent"


def _name(link: Line) -> str:
    return str(link["of"] if link["source"][0] in "kx" else link["id"])


def _one_line(vehicle: str, records: Sequence[Record]) -> Iterator[str] | Any:
    """The links in order of `at`; each told by one id, and first told in this order."""
    by_place: dict[int, tuple[Record, Line]] = {}
    ids: dict[str, int] = {}
    for record in records:
        link = json.loads(record.value)
        at = link["at"]
        first = by_place.setdefault(at, (record, link))
        if first[0].value != record.value:
            yield (
                f"{vehicle}: link {at} was told twice and differently, as {_show(first[1])} by {first[0].place} and as "
                f"{_show(link)} by {record.place}: one of the runs was never saved"
            )
        elif first[0].id != record.id:
            yield f"{vehicle}: link {at} ({_show(link)}) was told under two ids, {first[0].id} and {record.id}"
        elif first[0] is record and at != max(by_place):
            yield f"{vehicle}: link {at} ({_show(link)}) was first told after link {max(by_place)} ({record.place})"
        if ids.setdefault(record.id or "", at) != at:
            yield f"{vehicle}: links {ids[record.id or '']} and {at} were told under one id, {record.id}"
    yield from _gaps(vehicle, by_place)
    return [link for _, (_, link) in sorted(by_place.items())]


def _gaps(vehicle: str, by_place: dict[int, tuple[Record, Line]]) -> Iterator[str]:
    for at in range(1, max(by_place, default=0) + 1):
        if at not in by_place:
            before, after = by_place.get(at - 1), by_place.get(at + 1)
            yield (
                f"{vehicle}: link {at} was never told: an emit is missing between "
                f"{_show(before[1]) if before else 'nothing'} and {_show(after[1]) if after else 'nothing'}"
            )


def _show(link: Line) -> str:
    return f"{link['source']}/{link['id']} n={link['n']} run {link['run']}"


def _replay(vehicle: str, links: Sequence[Line], state: Any) -> Iterator[str]:
    """Serially, from nothing, on all links that were told; the end is what is stored."""
    everything: Chain = {"n": 0, "hash": ""}
    sources: dict[str, Chain] = {}
    for link in links:
        chain = sources.setdefault(link["source"], {"n": 0, "hash": ""})
        _extend(chain, link["id"])
        _extend(everything, f"{link['source']}/{link['id']}")
        if (link["n"], link["hash"], link["at"], link["all"]) != (*chain.values(), *everything.values()):
            yield (
                f"{vehicle}: a serial replay has {link['source']}/{link['id']} as link {everything['n']}, "
                f"{chain['n']} of its source; the handler had {link['at']} and {link['n']}"
                + (", on another history" if (link["n"], link["at"]) == (chain["n"], everything["n"]) else "")
            )
            return
    stored = state or {"all": {"n": 0, "hash": ""}, "sources": {}}
    if stored != {"all": everything, "sources": sources}:
        wrong = [name for name in sources.keys() | stored["sources"].keys()
                 if sources.get(name) != stored["sources"].get(name)]  # fmt: skip
        yield (
            f"{vehicle}: its state is not that of a serial replay: stored {stored['all']['n']} links, replayed "
            f"{everything['n']}; sources that differ: {', '.join(sorted(wrong)) or 'none'}"
        )


def _extend(chain: Chain, what: str) -> None:
    chain["n"] += 1
    chain["hash"] = hashlib.sha256((chain["hash"] + what).encode()).hexdigest()[:16]


def _first_times(names: Sequence[str], of: set[str]) -> Iterator[str]:
    """Without the later times of those `of` which it may be said."""
    seen: set[str] = set()
    for name in names:
        if name not in seen:
            yield name
        if name in of:
            seen.add(name)


def _order(where: str, names: Sequence[str], wanted: Sequence[Link]) -> Iterator[str]:
    """`names` as they were taken."""
    ids = {link.name: link.id for link in wanted}
    again = {link.name for link in wanted if link.again}
    total = Counter(names)
    counts = [(name, len(list(same))) for name, same in groupby(_first_times(names, again))]
    wrong = False
    for link in wanted:
        if not link.least <= total[link.name] <= link.most:
            wrong = True
            least_most = f"{link.least}" if link.least == link.most else f"{link.least} to {link.most}"
            what = "lost" if total[link.name] < link.least else "taken too often"
            yield f"{where}: {link.id} ({link.name}) was {what}: {total[link.name]} times instead of {least_most}"
    for name in total.keys() - ids.keys():
        wrong = True
        yield f"{where}: {name} was taken, and is no event of this source that should be"
    if not wrong:
        right = [link.name for link in wanted if total[link.name]]
        for (name, _), should in zip(counts, right, strict=False):
            if name != should:
                yield f"{where}: order is broken: {ids[name]} ({name}) was taken, and {ids[should]} ({should}) was next"
                return
        if len(counts) != len(right):
            yield f"{where}: order is broken: a repeat of {counts[-1][0]} was taken behind later events"
