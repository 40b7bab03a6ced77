"""Judges an MQTT crash run from outside: reads the store's file and what a plain subscriber wrote down, and knows
nothing of FleetFn's code.

    python checker.py STATE_DB OUTPUT.jsonl EXPECTED.json

EXPECTED: vehicle -> ids of the messages published, in order. OUTPUT: one {"id", "vehicle", "of", "n", "chain"} a line.
Prints one JSON object; exit 1 if anything is wrong.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any


def main() -> int:
    database, output, expected_file = sys.argv[1:]
    expected: dict[str, list[str]] = json.loads(Path(expected_file).read_text())
    emits = [json.loads(line) for line in Path(output).read_text().splitlines()]
    wrong = [*chains(database, expected), *emitted(emits, expected)]
    repeats = len(emits) - len({emit["id"] for emit in emits})
    print(json.dumps({"wrong": wrong[:50], "emits": len(emits), "repeats": repeats}))
    return 1 if wrong else 0


def replay(ids: list[str]) -> list[str]:
    """The chain after each message, handled once and in order."""
    chain, found = "", []
    for id_ in ids:
        chain = hashlib.sha256((chain + id_).encode()).hexdigest()
        found.append(chain)
    return found


def chains(database: str, expected: dict[str, list[str]]) -> list[str]:
    """Each vehicle's state is that of a serial replay: all messages, in order, each once."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    stored = {key: json.loads(value) for key, value in connection.execute("SELECT key, value FROM record")}
    connection.close()
    wrong = []
    for vehicle, ids in expected.items():
        found = stored.pop(vehicle, {"n": 0, "chain": ""})
        if found["n"] != len(ids):
            wrong.append(f"{vehicle}: counted {found['n']}, published {len(ids)}")
        elif found["chain"] != replay(ids)[-1]:
            wrong.append(f"{vehicle}: counted right, but in another order")
    return wrong + [f"{vehicle}: nobody published for it" for vehicle in stored]


def emitted(emits: list[dict[str, Any]], expected: dict[str, list[str]]) -> list[str]:
    """Every message has its emit with its place and chain; repeats are equal, id and all."""
    seen: dict[str, set[tuple[str, int, str]]] = defaultdict(set)
    for emit in emits:
        seen[emit["of"]].add((emit["id"], emit["n"], emit["chain"]))
    wrong = []
    for vehicle, ids in expected.items():
        for place, (id_, chain) in enumerate(zip(ids, replay(ids), strict=True), start=1):
            found = seen.pop(id_, set())
            if len(found) != 1 or next(iter(found))[1:] != (place, chain):
                wrong.append(f"{vehicle} {id_}: emits {sorted(found)}, expected one with n={place}")
    return wrong + [f"{id_}: an emit of no message" for id_ in seen]


if __name__ == "__main__":
    sys.exit(main())
