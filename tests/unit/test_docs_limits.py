"""The page of limits says what the code does."""

import pytest
from documents import ROOT
from fleetfn_gateway import mqtt_bridge, mqtt_room, queue_space, workers
from fleetfn_node import front_door, room, sources, wire
from fleetfn_runtime import (
    http_async,
    http_head,
    http_listener,
    http_output,
    http_protocol,
    http_server,
    kafka_consuming,
    kafka_holding,
    kafka_output,
    mqtt_output,
    records,
    road,
)
from fleetfn_spec.function import Scale, Spec
from fleetfn_triggers.http import Http
from fleetfn_triggers.http_output import HttpOutput
from fleetfn_triggers.mqtt import Mqtt

LIMITS = http_protocol.Limits()
HTTP = Http(path="/")
MB = 1024 * 1024


@pytest.mark.parametrize(
    "words",
    [
        f"connections that are with the node | {room.OPEN:,}, or half",
        f"after {LIMITS.spare:g} s without a request; where there are none, 503 and `Retry-After: {front_door.SOON:g}`",
        f"up to {http_listener.DESCRIPTORS:,}",
        f"worker of one function | {room.WAITING:,}, and",
        f"not all there | {http_protocol.KEPT // MB} MiB for all",
        f"takes the request | {front_door.WAKE_LIMIT:g} s",
        f"{http_head.HEAD_LIMIT // 1024} KiB, {http_head.HEADERS_LIMIT} lines, {LIMITS.head:g} s",
        f"between two requests | {LIMITS.idle:g} s",
        f"that are run | {http_server.IN_FLIGHT:,} per worker",
        f"`scale.concurrency`: {Scale().concurrency} per worker",
        f"or announced | {http_server.HELD // MB} MiB per worker",
        f"`max_body`: {HTTP.max_body // MB} MiB",
        f"{LIMITS.body_pause:g} s without a byte, {LIMITS.body:g} s in all",
        f"to their end | {http_server.UNREAD // MB} MiB per worker",
        f"{LIMITS.write:g} s without a byte, or slower than {LIMITS.pace / 1024:g} KiB/s for {LIMITS.write:g} s in all",
        f"{LIMITS.leaving:g} s while the worker leaves",
        f"connections | {http_server.OPEN:,} per worker",
        f"idle connections | {http_server.IDLE} per worker",
        f"`timeout`: {Spec(handler='h:f', triggers=[]).timeout}",
        f"{kafka_holding.COUNT:,} or {kafka_holding.BYTES // MB} MiB per worker",
        f"beside them | {kafka_consuming.SETTINGS['queued.max.messages.kbytes'] // 1024} MiB per trigger",
        f"`inflight`: {Mqtt(topic='t').inflight:,} per trigger",
        f"{mqtt_room.ONE // MB} MiB per trigger, and {mqtt_room.ALL // MB} MiB for all",
        f"one message | {mqtt_bridge.PACKET_LIMIT // MB} MiB",
        f"after {mqtt_bridge.FIRST / 2:g} to {mqtt_bridge.FIRST:g} s, then ever later, up to {mqtt_bridge.LONGEST:g} s",
        f"and {queue_space.MARGIN // MB} MiB of the disk stay free",
        f"`Retry-After: {http_async.LATER:g}`, fires",
        f"handled lately in {workers.AHEAD:g} s; {workers.MOST:,} at most",
        f"bytes of them | {workers.BYTES // MB} MiB per worker",
        f"one push | {workers.BATCH} rows, {workers.BATCH_BYTES // MB} MiB",
        f"at once | {http_output.AT_ONCE} per worker",
        f"`timeout`: {HttpOutput(url='http://x').timeout:g} s; its first {http_output.READ // 1024} KiB are read",
        f"brokers | {kafka_output.QUEUED // MB} MiB per connection and worker, {kafka_output.TIMEOUT:g} s",
        f"{mqtt_output.WINDOW} with 3.1.1; {mqtt_output.TIMEOUT:g} s",
        f"their end | {road.WINDOW:,} per worker",
        f"a source to deploy | {sources.LIMIT // MB} MiB",
        f"one request of `fn` | {wire.BODY_LIMIT // MB} MiB",
        f"{records.LIMIT // MB} MiB of records of state",
    ],
)
def test_the_page_has_the_codes_numbers(words):
    assert words in " ".join((ROOT / "docs/limits.md").read_text("utf-8").split())


@pytest.mark.parametrize(
    ("concurrency", "rows"), [(1, 64), (64, 256), (10**6, 4096)], ids=["at least", "four times", "at most"]
)
def test_rows_at_a_worker_are_as_the_page_says(concurrency, rows):
    assert workers.Worker("", concurrency, now=0.0).rows == rows
