"""The short form of the soak: a real node and real brokers of its own, a few thousand events, kills and restarts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kafka_broker
import mqtt_broker
import pytest
from free_ports import free_ports
from mqtt_broker import Mosquitto

pytestmark = [pytest.mark.kafka, pytest.mark.mqtt, pytest.mark.node, pytest.mark.slow]

TESTS = Path(__file__).parent.parent
PORTS = 10
LIMIT = 900.0
"""Seconds; it takes about 60 of them on two idle cores."""


def test_nothing_is_lost_and_nothing_counts_twice_under_disorder(kafka: str, mosquitto: Mosquitto) -> None:
    if (kafka, mosquitto.address) != (kafka_broker.run_script("address"), mqtt_broker.run_script("address")):
        pytest.skip("brokers of the test's own cannot be started where others are named")
    command = [sys.executable, "-m", "soak", "--size", "short", "--seeds", "1", "--settle", "400"]
    command += ["--port", str(free_ports(PORTS))]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=LIMIT, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
