"""The main road, once: recorded drives become alerts, warnings and a fleet report, out of functions that sleep at zero.

Everything is embedded: a node of its own in a temporary folder, embedded Kafka and MQTT brokers, no service installed.
Ends by itself; exit code 0 only if every fault that was put into the recordings was told, and nothing else was.

    python samples/demo.py PYTHON        PYTHON: an interpreter that has samples/recordings/requirements.txt
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_node import DemoNode, say, title
from demo_readers import MqttTopic, kafka_topic

HERE = Path(__file__).parent

LEVELS = {"heat": 2, "runaway": 3, "spread": 2}
"""Thermal fault -> the level that must be reached. A broken probe must raise nothing."""

KINDS = {"slow": ["slow"], "fast": ["fast", "low"], "low": ["low"], "silent": ["silent"]}
"""What must be told of a tyre. A car that reports in other units must raise nothing."""

DAY = "2026-01-05"
"""The recordings' first day."""


@dataclass
class Recordings:
    """Files of what is sent, what was put into it on purpose, and how many messages there are."""

    telemetry: Path
    frames: int
    thermal: list[dict[str, Any]]
    tyres: Path
    messages: int
    leaks: list[dict[str, Any]]


def main() -> int:
    python = Path(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="fleetfn-demo-") as folder:
        node = DemoNode(Path(folder))
        try:
            return play(node, python)
        finally:
            node.fn("down", quiet=True)


def play(node: DemoNode, python: Path) -> int:
    title("The fleet")
    recordings = record(python, node.folder)

    title("Three functions are deployed, and sleep")
    node.fn("up", "--port", str(node.port))
    for name in ("battery-alert", "trip-report", "tyre-pressure"):
        say(node.fn("deploy", str(HERE / name)))
    node.asleep()

    wrong = battery_alerts(node, recordings)
    wrong += tyre_warnings(node, recordings)
    wrong += fleet_report(node, recordings)
    woken = request(node, recordings.thermal[0]["vehicle"])

    title("This run")
    for name in ("battery-alert", "trip-report", "tyre-pressure"):
        status = node.status(name)
        say(f"  {name:<15} {status['counters']['done']:>6} events handled, dead letters {status['dead_letters']}")
        wrong += [f"{name} has dead letters"] * bool(status["dead_letters"])
    say(f"  cold start      {woken * 1000:>6.0f} ms from request to reply, with no worker alive")
    for problem in wrong:
        say(f"  WRONG: {problem}")
    title("Next")
    for line in (
        "source .venv/bin/activate",
        "fn new my-alert && cd my-alert && fn deploy",
        "fn describe my-alert",
        "fn --help",
    ):
        say(f"  {line}")
    return 1 if wrong else 0


def record(python: Path, folder: Path) -> Recordings:
    """Make the recordings with their own interpreter (it needs fastsim)."""
    say("Real drives of 22 cars (recorded in 2007, from the package fastsim) with its model of an electric car. What")
    say("does not occur in them is put in:")
    telemetry, tyres = folder / "telemetry.jsonl", folder / "tyres.jsonl"
    thermal, leaks = folder / "thermal.json", folder / "leaks.json"
    script = HERE / "recordings"
    options = ["--every", "10", "--faults", "heat,runaway,spread,probe", "--late", "0.01", "--duplicates", "0.01"]
    subprocess.run(  # noqa: S603 - its own command
        [python, script / "record.py", *options, "--output", telemetry, "--truth", thermal], check=True
    )
    options = ["--faults", "slow,fast,low,silent,psi"]
    subprocess.run(  # noqa: S603 - its own command
        [python, script / "tyres.py", *options, "--output", tyres, "--truth", leaks], check=True
    )
    return Recordings(
        telemetry, lines(telemetry), json.loads(thermal.read_text()), tyres, lines(tyres), json.loads(leaks.read_text())
    )


def battery_alerts(node: DemoNode, recordings: Recordings) -> list[str]:
    title("Telemetry arrives over Kafka: battery-alert, and trips for the report")
    begin = time.monotonic()
    node.fn("send", "battery-alert", "--trigger", "telemetry", "--recording", str(recordings.telemetry))
    node.show_workers()
    node.until("all frames are handled", lambda: node.handled("battery-alert") >= recordings.frames, 90)
    took = time.monotonic() - begin
    alerts = list(kafka_topic(node.info()["embedded_kafka"], "alerts"))
    for alert in alerts:
        say(f"  ALERT level {alert['level']}  vehicle {alert['vehicle']}  {alert['reason']}  ({alert['ts']})")
    say(f"  {recordings.frames} frames, {recordings.frames / took:,.0f} a second from the first sent to the last saved")
    worst: dict[str, int] = {}
    for alert in alerts:
        worst[alert["vehicle"]] = max(worst.get(alert["vehicle"], 0), alert["level"])
    expected = {fault["vehicle"]: LEVELS.get(fault["kind"], 0) for fault in recordings.thermal}
    return differences("level", expected, worst, 0)


def tyre_warnings(node: DemoNode, recordings: Recordings) -> list[str]:
    title("Tyre messages arrive over MQTT: tyre-pressure")
    with MqttTopic(node.info()["embedded_mqtt"], "fleet/+/tyre-warnings") as warnings:
        node.fn("send", "tyre-pressure", "--trigger", "tyres", "--recording", str(recordings.tyres))
        node.show_workers()
        node.until("all messages are handled", lambda: node.handled("tyre-pressure") >= recordings.messages, 60)
    told: dict[str, list[str]] = {}
    for found in warnings.found:
        say(f"  WARNING {found['kind']:<6} {found['vehicle']} {found['wheel']}: {found['text']}  ({found['ts']})")
        told.setdefault(found["vehicle"], []).append(found["kind"])
    expected = {fault["vehicle"]: KINDS.get(fault["kind"], []) for fault in recordings.leaks}
    return differences("warnings", expected, told, [])


def differences(what: str, expected: dict[str, Any], found: dict[str, Any], nothing: Any) -> list[str]:
    """Where what was told of a vehicle is not what was put in."""
    return [
        f"{what} of {vehicle}: {found.get(vehicle, nothing)} instead of {expected.get(vehicle, nothing)}"
        for vehicle in sorted({*expected, *found})
        if found.get(vehicle, nothing) != expected.get(vehicle, nothing)
    ]


def fleet_report(node: DemoNode, recordings: Recordings) -> list[str]:
    title("The clock fires: trip-report writes the fleet's day")
    node.until("all trips are made", lambda: node.handled("trip-report") >= recordings.frames, 60)
    node.asleep()
    node.fn("trigger", "fire", "trip-report", "daily", "--at", "2026-01-06T02:30:00Z")
    page = node.reports / f"fleet-{DAY}.html"
    node.until("the report is written", page.exists, 30)
    report = json.loads(page.with_suffix(".json").read_text())
    say(f"  {DAY}: {len(report['cars'])} cars, {report['distance']:,.0f} km, {report['per_100_km']} kWh per 100 km,")
    say(f"  {report['harsh_per_100_km']} harsh brakings per 100 km, {report['night_share']:.0%} at night,")
    say(f"  longest stop {report['longest_stop'] / 3600:.1f} h ({report['longest_stop_vehicle']})")
    kept = Path(tempfile.gettempdir()) / page.name
    shutil.copy(page, kept)
    say(f"  open it in a browser: {kept}")
    cars = len({json.loads(line)["key"] for line in recordings.telemetry.open()})
    return [] if len(report["cars"]) == cars else [f"the report is of {len(report['cars'])} cars, {cars} drove"]


def request(node: DemoNode, vehicle: str) -> float:
    """Seconds from request to reply, from zero."""
    title("Back to zero, and woken by a request")
    node.asleep()
    say(f"$ curl {node.url}/battery/{vehicle}")
    begin = time.monotonic()
    with urllib.request.urlopen(f"{node.url}/battery/{vehicle}", timeout=30) as reply:  # noqa: S310 - loopback
        pack = json.load(reply)
    woken = time.monotonic() - begin
    say(f"  frames {pack['frames']}, hottest {pack['hottest']} degrees Celsius, level {pack['level']}")
    node.show_workers()
    node.asleep()
    return woken


def lines(file: Path) -> int:
    with file.open() as text:
        return sum(1 for _ in text)


if __name__ == "__main__":
    sys.exit(main())
