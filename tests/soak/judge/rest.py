"""What is left: dead letters, as planned and no others, and nothing else anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from soak.judge.evidence import Evidence, Letter, Line
from soak.judge.expected import GIVEN_UP, Expected, dead_counts, id_in


def judge(evidence: Evidence, expected: Expected) -> Iterator[str]:
    yield from _letters(evidence, expected)
    yield from evidence.waiting
    yield from evidence.unsent
    for at in evidence.offsets:
        if at.committed != at.end:
            yield f"{at.group}: partition {at.partition} of {at.topic} is committed up to {at.committed} of {at.end}"


def _letters(evidence: Evidence, expected: Expected) -> Iterator[str]:
    found: dict[str, list[Letter]] = defaultdict(list)
    for letter in evidence.letters:
        found[id_in(letter.data)].append(letter)
    for id_, least, most in dead_counts(expected):
        event = evidence.plan[id_]
        letters = found.pop(id_, [])
        where = f"{event['vehicle']} {id_} ({event['source']}, to {event['do']})"
        if not least <= len(letters) <= most:
            yield f"{where}: {len(letters)} dead letters instead of {least}" + (f" to {most}" if most > least else "")
        for letter in letters:
            yield from _letter(where, event, letter, evidence.attempts)
    for id_, letters in found.items():
        for letter in letters:
            yield (
                f"{letter.key} {id_ or letter.data}: a dead letter that nobody planned ({letter.function}/"
                f"{letter.trigger}, {letter.reason}, {letter.attempts} attempts)"
            )


def _letter(where: str, event: Line, letter: Letter, attempts: dict[str, int]) -> Iterator[str]:
    reason = GIVEN_UP[event["do"]]
    if event["do"] == "fail" and letter.reason == "crashed":
        reason = "crashed"  # its worker was killed in its last attempt
    if letter.key != event["vehicle"]:
        yield f"{where}: its dead letter is of {letter.key}"
    if letter.reason != reason:
        yield f"{where}: its dead letter says {letter.reason!r} instead of {reason!r}"
    elif event["do"] in {"fail", "exit"} and letter.attempts != attempts[letter.trigger]:
        yield f"{where}: given up after {letter.attempts} attempts instead of {attempts[letter.trigger]}"
