"""python -m soak.judge FOLDER

Prints what is wrong with a run, and exits with 1 if anything is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from soak.judge import histories, outputs, rest
from soak.judge.evidence import Evidence
from soak.judge.expected import Expected, expected
from soak.judge.reading import read

SHOWN = 40


def faults(evidence: Evidence, wanted: Expected) -> list[str]:
    found = [*wanted.faults, *histories.judge(evidence, wanted), *outputs.judge(evidence)]
    return [*found, *rest.judge(evidence, wanted)]


def main() -> int:
    evidence = read(Path(sys.argv[1]))
    wanted = expected(evidence)
    wrong = faults(evidence, wanted)
    for fault in wrong[:SHOWN]:
        print(f"  WRONG {fault}")
    if len(wrong) > SHOWN:
        print(f"  ... and {len(wrong) - SHOWN} more")
    print(f"  {summary(evidence, wanted)}: {len(wrong)} faults")
    return 1 if wrong else 0


def summary(evidence: Evidence, wanted: Expected) -> str:
    taken = sum(link.least for links in wanted.taken.values() for link in links)
    told = evidence.log["out"]
    repeats = len(told) - len({record.id for record in told})
    return (
        f"{taken} events taken of {len(evidence.chains)} vehicles, {len(evidence.letters)} dead letters, "
        f"{len(told)} emits to Kafka ({repeats} repeats), {len(evidence.out_mqtt)} to MQTT, "
        f"{len(evidence.out_http)} to HTTP, {len(evidence.log['raw'])} relayed by {len(evidence.log['relayed'])}"
    )


if __name__ == "__main__":
    sys.exit(main())
