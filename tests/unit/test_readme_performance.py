"""README's figures are those of bench/results, to the digit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
SECTION = README.split("## Performance\n")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if line.startswith("| ")]
LATEST = json.loads((ROOT / "bench" / "results" / "latest.json").read_bytes())
FIGURES = {(each["line"], each["subject"]): each for each in LATEST}


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0])
def test_each_ratio_was_measured(row):
    line, floor, ours, others = row
    name, value, unit = re.fullmatch(r"(.+): ([\d.,]+) (\S+)", floor).groups()
    bare = FIGURES[line, name]
    assert bare["ratio"] == 1
    assert (float(value.replace(",", "")), unit) == (pytest.approx(bare["value"], rel=0.01), bare["unit"])
    told = [re.fullmatch(r"(.+) ([\d.]+)", each).groups() for each in f"{ours}; {others}".strip("; ").split("; ")]
    assert told
    for subject, ratio in told:
        assert float(ratio) == pytest.approx(FIGURES[line, subject]["ratio"], abs=0.0051)


def test_what_sleep_costs_was_measured():
    none, more = (FIGURES["idle node, memory", f"{count} sleeping functions"]["value"] for count in ("0", "1,000"))
    memory, added, cpu, on_real_ones = re.search(
        r"has (\d+) MiB.* add (\d+) MiB.* takes ([\d.]+) s of CPU a minute, ([\d.]+) s where", SECTION
    ).groups()
    assert (int(memory), int(added)) == (round(none), round(more - none))
    for told, brokers in ((cpu, ""), (on_real_ones, ", real brokers")):
        measured = FIGURES["idle node, CPU", f"1,000 sleeping functions{brokers}"]["value"]
        assert float(told) == pytest.approx(measured, abs=0.0051)


def test_what_a_build_takes_was_measured():
    kept = json.loads((ROOT / "bench" / "results" / "build.json").read_bytes())
    figures = {(each["line"], each["subject"]): each for each in kept}
    said = re.search(
        r"takes ([\d.]+) of `docker build`'s time after one changed line \(([\d.]+) s\), "
        r"([\d.]+) where nothing changed \(([\d.]+) s\), ([\d.]+) the first time; it has ([\d.]+) of its\s+size",
        SECTION,
    )
    lines = ("build, after one line", "build, unchanged", "build, first", "image size, compressed")
    changed, unchanged, first, size = (figures[line, "FleetFn, direct"]["ratio"] for line in lines)
    docker = [figures[line, "docker build"]["value"] for line in lines[:2]]
    measured = [changed, docker[0], unchanged, docker[1], first, size]
    assert [float(each) for each in said.groups()] == pytest.approx(measured, abs=0.0051)


def test_what_waking_takes_on_a_cluster_was_measured():
    kept = json.loads((ROOT / "bench" / "results" / "cluster.json").read_bytes())
    figures = {each["subject"]: each for each in kept if each["line"] == "cluster, from zero"}
    said = re.search(
        r"bare pod there \(([\d.]+) s until ready\): ([\d.]+) to the reply to an HTTP request "
        r"\(([\d.]+) through the http-add-on\), ([\d.]+)\s+until an MQTT message is handled, "
        r"([\d.]+) for a Kafka record once KEDA has seen it; "
        r"with State in Redis behind Dapr ([\d.]+), ([\d.]+) and ([\d.]+)\.",
        SECTION,
    )
    subjects = (
        "HTTP, no state",
        "HTTP, no state, by the http-add-on",
        "MQTT, no state",
        "Kafka, no state, from its scaling on",
        "HTTP, State",
        "MQTT, State",
        "Kafka, State, from its scaling on",
    )
    measured = [figures["bare pod, ready"]["value"] / 1000, *(figures[each]["ratio"] for each in subjects)]
    assert [float(each) for each in said.groups()] == pytest.approx(measured, abs=0.0051)
