"""Clocks wait together: one look at the time for all, and whoever is to wake does."""

import asyncio

from clock_doubles import Machine
from fleetfn_gateway.pulse import STEP, Pulse


class Waiting:
    """Sleepers at a pulse whose looks the test makes, on a machine whose clocks it moves."""

    def __init__(self):
        self.machine = Machine("2026-12-01 10:00:00")
        self.pulse = Pulse(self.machine.now, self.machine.monotonic)

    async def sleeper(self, seconds):
        task = asyncio.create_task(self.pulse.sleep(seconds))
        await asyncio.sleep(0)
        return task

    async def look(self, seconds=STEP, moved=0.0):
        self.machine.off(seconds)
        self.machine.wall += moved
        self.pulse.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_waits_wakes_shortly_before_its_time_and_no_other_does():
    waiting = Waiting()
    soon, late = await waiting.sleeper(10), await waiting.sleeper(3600)
    for _ in range(4):
        await waiting.look()
    assert not soon.done()
    await waiting.look(0.1)
    assert soon.done()
    assert not late.done()
    late.cancel()


async def test_all_wake_when_the_time_is_moved_either_way():
    for moved in (-3600.0, 0.2, 3600.0):
        waiting = Waiting()
        sleepers = [await waiting.sleeper(seconds) for seconds in (100, 1e6)]
        await waiting.look()
        assert not any(each.done() for each in sleepers)
        await waiting.look(moved=moved)
        assert all(each.done() for each in sleepers)


async def test_short_sleeps_are_exact_and_need_no_look():
    await Waiting().pulse.sleep(0.001)


async def test_it_looks_only_while_anybody_waits():
    waiting = Waiting()
    sleeper = await waiting.sleeper(100)
    assert waiting.pulse._timer is not None
    sleeper.cancel()
    await asyncio.wait({sleeper})
    await waiting.look()
    assert waiting.pulse._timer is None
    again = await waiting.sleeper(5)
    await waiting.look()
    await waiting.look()
    assert again.done()


async def test_it_looks_by_itself(monkeypatch):
    monkeypatch.setattr("fleetfn_gateway.pulse.STEP", 0.01)
    async with asyncio.timeout(30):
        await Pulse().sleep(0.05)
