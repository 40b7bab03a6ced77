"""What the pages tell about messages, clocks, asynchronous requests and dead letters comes about as they tell it."""

import json
import re
import sys
import time
from pathlib import Path

import pytest
from documents import ROOT, blocks
from test_readme import LIMIT, Reader

pytestmark = [pytest.mark.node, pytest.mark.slow]

FAILING = """
from fleetfn import Retry


def later(reading: dict):
    raise Retry("not yet", after=600)


def refuse(reading: dict):
    raise ValueError(reading["vehicle"])
"""

FUNCTION = """
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert}
spec:
  handler: handler:later
  retry: {attempts: 1}
  breaker: {window: 200ms}
  onDeadLetter: park
  triggers:
  - {name: telemetry, key: data.vehicle, kafka: {topic: vehicle.telemetry}}
  - {name: refused, key: topic.vehicle, handler: handler:refuse, mqtt: {topic: "vehicles/{vehicle}/battery"}}
  - {name: show, key: path.vehicle, handler: handler:refuse, http: {path: "/battery/{vehicle}"}}
"""


@pytest.fixture
def reader(tmp_path):
    reader = Reader(tmp_path)
    reader.run(f"PATH={Path(sys.executable).parent}:$PATH && cd {reader.home}")
    yield reader
    reader.close()


def test_the_page_of_mqtt_can_be_tried(reader):
    reader.read(blocks("docs/mqtt.md", section="Trying it"))
    reader.type(["fn logs my-mqtt", "fn state get my-mqtt V3"])


def test_the_page_of_clocks_can_be_tried(reader):
    page = (ROOT / "docs/cron.md").read_text("utf-8")
    reader.type([re.search(r"`(fn new .*--template cron)`", page)[1], "cd silent-cars", "fn deploy"])
    (by_hand,) = blocks("docs/cron.md", section="By hand")
    reader.type([line.replace("trip-report daily", "silent-cars") for line in by_hand.text.splitlines()])
    shown(reader, "fn describe silent-cars", "fires in")


def shown(reader, line, *words):
    """What a command that only looks shows, once it has all these words."""
    end = time.monotonic() + LIMIT
    while True:
        status, said = reader.run(line)
        assert status == 0, said
        if all(each in said for each in words):
            return
        assert time.monotonic() < end, said


def letters(reader, match=lambda _: True):
    """The one dead letter there is, once `match` is true of it."""
    end = time.monotonic() + LIMIT
    while True:
        status, said = reader.run("fn dlq list battery-alert -q -o json")
        assert status == 0, said
        found = json.loads(said)
        if len(found) == 1 and match(found[0]):
            return found[0]
        assert time.monotonic() < end, said


def test_asynchronous_requests_and_dead_letters_are_as_their_pages_say(reader):
    folder = reader.home / "battery-alert"
    folder.mkdir()
    (folder / "handler.py").write_text(FAILING)
    (folder / "function.yaml").write_text(FUNCTION)
    reader.type(["fn deploy battery-alert"])
    (ask,) = [block.text.strip() for block in blocks("docs/http.md", section="Asynchronous requests")]
    reader.type([ask])
    assert " 202 " in reader.output
    first = re.search(r'"sequence":(\d+)', reader.output)[1]
    reader.type([ask])
    assert re.search(r'"sequence":(\d+)', reader.output)[1] == first

    letter = letters(reader)
    number, since = letter["sequence"], letter["created"]
    assert (letter["key"], letter["reason"]) == ("V1", "attempts")

    reader.type(['fn send battery-alert -t show -k V1 -H prefer=respond-async -d \'{"vehicle": "V1"}\''])
    letters(reader, lambda letter: letter["parked"] == 1)
    reader.type([f"fn dlq redrive {number} --dry-run"])
    shown(reader, f"fn dlq show {number}", "1 later event of its key waits behind it")
    shown(reader, "fn describe battery-alert", "1 key held (1 behind a dead letter)")
    reader.type([f"fn dlq redrive {number}"])
    again = letters(reader, lambda letter: letter["created"] > since)
    assert again["sequence"] == number  # it went first, as the row it was, and failed again
    reader.type([f"fn dlq discard {number} --yes"])
    assert letters(reader, lambda letter: letter["sequence"] != number)["parked"] == 0
