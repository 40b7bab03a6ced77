"""Values of the control API, as a node with one function gives them."""

import msgspec
from fleetfn.event import Event
from fleetfn.invocation import Failure
from fleetfn.position import At
from fleetfn_spec.control import (
    API,
    Counters,
    FunctionStatus,
    NodeInfo,
    RevisionInfo,
    TriggerStatus,
    WorkerInfo,
)
from fleetfn_triggers.inbox import Row

NOW = 1_800_000_000.0

INFO = NodeInfo(
    name="default",
    version="0.1.0",
    api=API,
    pid=4711,
    data="/data",
    log="/data/node.log",
    url="http://127.0.0.1:8080",
    started=NOW - 60,
)

REVISION = RevisionInfo(
    name="battery-alert",
    digest="a1b2c3d4e5f6" + "0" * 52,
    number=2,
    created=NOW - 7200,
    serving=True,
    environment="local",
    urls=["http://127.0.0.1:8080/battery/{vehicle}"],
)

OLD = msgspec.structs.replace(REVISION, digest="b" * 64, number=1, serving=False, created=NOW - 9000, urls=[])

TELEMETRY = TriggerStatus(name="telemetry", kind="kafka", where="kafka topic vehicle.telemetry (embedded)", backlog=12)
SHOW = TriggerStatus(name="show", kind="http", where="GET http://127.0.0.1:8080/battery/{vehicle}")

STATUS = FunctionStatus(
    name="battery-alert",
    phase="running",
    reason="1 worker serves",
    revision=REVISION,
    triggers=[TELEMETRY, SHOW],
    workers=[WorkerInfo(pid=99, revision="a1b2c3d4e5f6", started=NOW - 5, ready=True, in_flight=3, rss=45_000_000)],
    counters=Counters(done=120, retried=2, emitted=7, cold_starts=1),
    dead_letters=1,
    last_error="ValueError: no cell",
    last_error_time=NOW - 30,
    last_activation=NOW - 5,
    cold_start=0.043,
)

ROW = Row(
    sequence=12,
    function="battery-alert",
    trigger="telemetry",
    key="V1",
    event=Event(id="7", source="/kafka/vehicle.telemetry", type="vehicle.telemetry", data=b'{"vehicle":"V1"}'),
    position=At("kafka:vehicle.telemetry:", 0, 7),
    attempts=5,
    due=None,
    status="dead",
    created=NOW - 100,
    revision="a1b2c3d4e5f6",
    reason="attempts",
    detail="ValueError: no cell",
    failure=Failure("ValueError", "no cell", "handler.py:7", "Traceback ...\nValueError: no cell\n"),
)
