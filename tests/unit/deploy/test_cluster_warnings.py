"""Which of a cluster's warnings are worth telling of a function."""

import datetime as dt

import pytest
from fleetfn_deploy.kubernetes import warnings
from memory_cluster import MemoryCluster

NOW = dt.datetime.now(dt.UTC)


def event(kind, name, reason, message, seconds=5):
    when = (NOW - dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"kind": kind, "name": name}
    return {"metadata": {}, "reason": reason, "message": message, "lastTimestamp": when, "involvedObject": about}


async def told(*events, since=""):
    server = MemoryCluster()
    for number, each in enumerate(events):
        server.objects["events", "fleet", str(number)] = each
    async with server.cluster("fleet") as cluster:
        return await warnings.of(cluster, "hello", since=since)


@pytest.mark.parametrize(
    "passed",
    [
        event("Pod", "hello-1", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503"),
        event("Pod", "hello-1", "BackOff", "Back-off restarting failed container", seconds=4000),
        event("HorizontalPodAutoscaler", "keda-hpa-hello", "FailedGetExternalMetric", "no metrics", seconds=400),
        event("ScaledObject", "hello", "KEDAScalerFailed", "connection refused", seconds=400),
        event(
            "HorizontalPodAutoscaler",
            "keda-hpa-hello",
            "FailedUpdateStatus",
            "Operation cannot be fulfilled: the object has been modified; please apply your changes to the latest "
            "version and try again",
        ),
        event("Pod", "other-1", "BackOff", "Back-off restarting failed container"),
    ],
    ids=["starting", "long ago", "autoscaler content again", "KEDA content again", "written again", "another function"],
)
async def test_what_has_passed_or_is_no_trouble_is_not_told(passed):
    assert await told(passed) == []


async def test_an_earlier_function_of_its_name_is_no_concern_of_its():
    made = (NOW - dt.timedelta(seconds=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = event("ScaledObject", "hello", "ScaledObjectDeleted", "ScaledObject was deleted", seconds=20)
    assert await told(before, event("Pod", "hello-1", "FailedMount", "no such volume"), since=made) == [
        "Pod hello-1: FailedMount: no such volume"
    ]


async def test_each_kind_of_complaint_is_told_once_the_newest_first():
    found = await told(
        event("Pod", "hello-1", "FailedMount", "older", seconds=20),
        event("Pod", "hello-2", "FailedMount", "newer", seconds=10),
        event("ScaledObject", "hello", "KEDAScalerFailed", "connection refused"),
    )
    assert found == [
        "ScaledObject hello: KEDAScalerFailed: connection refused",
        "Pod hello-2: FailedMount: newer",
    ]


async def test_of_a_long_one_begin_and_end_are_told():
    [found] = await told(event("ScaledObject", "hello", "KEDAScalerFailed", "began " + "so " * 400 + "it ended"))
    assert "began so" in found
    assert found.endswith("it ended")
    assert len(found) < 400
