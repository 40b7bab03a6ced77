"""For tests of the gateway: events, arrivals, functions, an owner that is told what to say, and waiting for a fact."""

import asyncio
import time
from pathlib import Path

import msgspec
from fleetfn.event import Event
from fleetfn_gateway.owner import NoWorkerError
from fleetfn_spec.function import Function
from fleetfn_spec.gateway import GatewayFunction
from fleetfn_triggers.inbox import Arrival

LIMIT = 120.0


async def until(condition, what="the condition"):
    """The first true value of `condition`, which may be async."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what} did not come about within {LIMIT} s")


def arrival(number, key=None, *, function="f", trigger="t", **more):
    event = Event(id=str(number), source="test", type="test", data=str(number).encode())
    return Arrival(function=function, trigger=trigger, key=key, event=event, **more)


def function(*triggers, name="f", spec=None, **more):
    """`triggers`: as function.yaml has them; `more`: fields of GatewayFunction."""
    described = {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"handler": "handler:watch", "triggers": list(triggers or [http()]), **(spec or {})},
    }
    fields = {"revision": "abc123", "environment": "test", "place": "here", "source": Path("/nowhere"), **more}
    return GatewayFunction(function=msgspec.convert(described, Function), **fields)


def http(name="t"):
    return {"name": name, "http": {"path": f"/{name}"}}


def cron(name="nightly", schedule="30 2 * * *"):
    return {"name": name, "cron": {"schedule": schedule}}


def mqtt(name="live", topic="vehicles/+/battery", **more):
    return {"name": name, "mqtt": {"topic": topic}, **more}


class FakeOwner:
    """Names `workers`; none: says that there is none, to be asked again after `after` seconds."""

    def __init__(self, *workers, after=None):
        self.workers = [str(each) for each in workers]
        self.after = after
        self.asked = []
        """(when, function, waiting) of each call."""

    async def wake(self, function, waiting):
        self.asked.append((time.monotonic(), function, waiting))
        if not self.workers:
            raise NoWorkerError("there is no worker now", after=self.after)
        return list(self.workers)

    async def close(self): ...
