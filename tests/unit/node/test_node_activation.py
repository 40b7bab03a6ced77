"""One function's state machine: workers and time are the test's."""

import asyncio

import pytest
from fleetfn_node.activation import DRAIN_MARGIN, Activation, Policy, Unavailable
from fleetfn_node.backoff import HEALTHY, Backoff
from fleetfn_node.links import WorkerFailedError
from fleetfn_node.scaling import LOOK


class Clock:
    def __init__(self):
        self.time = 100.0
        self.timers = []

    def now(self):
        return self.time

    def after(self, seconds, call):
        timer = Timer(self.time + seconds, call)
        self.timers.append(timer)
        return timer

    async def pass_(self, seconds):
        self.time += seconds
        for timer in [each for each in self.timers if each.at <= self.time]:
            self.timers.remove(timer)
            if not timer.cancelled:
                timer.call()
        await settle()


class Timer:
    def __init__(self, at, call):
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self):
        self.cancelled = True


class Process:
    def __init__(self):
        self.exited = asyncio.get_running_loop().create_future()
        self.used = 0.0

    def cpu(self):
        return self.used


class Link:
    def __init__(self, pid, slot=0):
        self.pid = pid
        self.slot = slot
        self.process = Process()
        self.ready = asyncio.get_running_loop().create_future()
        self.did = []
        self.draining = False
        self.worked = False
        self.busy = self.requests = self.lag = self.lagging = self.done = 0
        self.shares = None
        self.inherited = []
        self.ended = asyncio.Event()

    def serve(self):
        self.did.append("serve")

    def drain(self, reason):
        assert reason
        self.draining = True
        self.did.append("drain")

    def share(self, slots):
        assert self.slot in slots
        self.shares = slots

    def inherit(self, slot):
        self.inherited.append(slot)

    def kill(self):
        self.did.append("kill")

    async def gone(self):
        await self.ended.wait()


class World:
    def __init__(self, **policy):
        self.clock = Clock()
        self.links = []
        self.looking_out = False
        self.refuse = None
        self.activation = Activation(
            "battery-alert",
            Policy(**{"idle": 30.0, **policy}),
            self.spawn,
            asleep=lambda: setattr(self, "looking_out", True),
            awake=lambda: setattr(self, "looking_out", False),
            clock=self.clock,
            backoff=Backoff(jitter=lambda: 1.0),
        )

    async def spawn(self, slot):
        if self.refuse:
            raise self.refuse
        self.links.append(Link(1000 + len(self.links), slot))
        return self.links[-1]

    async def woken(self):
        """A worker that is ready and takes work."""
        task = asyncio.create_task(self.activation.activate())
        await settle()
        self.links[-1].ready.set_result(object())
        return await task

    async def die(self, link, status):
        link.process.exited.set_result(status)
        if not link.ready.done():
            link.ready.set_exception(WorkerFailedError("the worker was killed by signal 9 before it was ready"))
        link.ended.set()
        self.activation.gone(link, status)
        await settle()

    @property
    def phase(self):
        return self.activation.phase()[0]


async def settle():
    for _ in range(6):
        await asyncio.sleep(0)


async def test_a_sleeping_function_has_no_worker_and_somebody_looks_out_for_it():
    world = World()
    world.activation.begin()
    assert (world.phase, world.links, world.looking_out) == ("sleeping", [], True)


async def test_callers_at_the_same_time_wait_for_one_worker():
    world = World()
    callers = [asyncio.create_task(world.activation.activate()) for _ in range(5)]
    await settle()
    assert world.phase == "waking"
    assert not any(each.done() for each in callers)
    world.clock.time += 0.25
    world.links[0].ready.set_result(object())
    assert {(await each).pid for each in callers} == {1000}
    assert len(world.links) == 1
    assert world.links[0].did == ["serve"]
    assert world.activation.cold_start == 0.25
    assert world.phase == "running"


async def test_a_caller_who_leaves_does_not_stop_the_start():
    world = World()
    first, second = (asyncio.create_task(world.activation.activate()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    world.links[0].ready.set_result(object())
    assert (await second).pid == 1000


async def test_an_idle_worker_is_drained_and_the_function_sleeps():
    world = World(idle=30.0)
    link = await world.woken()
    world.activation.idle(link, 29.0)
    assert link.did == ["serve"]
    world.activation.idle(link, 30.0)
    assert link.did == ["serve", "drain"]
    assert (world.phase, world.looking_out) == ("draining", False)
    await world.die(link, 0)
    assert (world.phase, world.looking_out) == ("sleeping", True)


async def test_min_one_keeps_its_worker():
    world = World(least=1)
    world.activation.begin()
    await settle()
    world.links[0].ready.set_result(object())
    await settle()
    world.activation.idle(world.links[0], 3600.0)
    assert world.links[0].did == ["serve"]


async def test_a_request_while_draining_wakes_a_new_worker_at_once():
    world = World()
    old = await world.woken()
    world.activation.idle(old, 30.0)
    new = await world.woken()
    assert new.pid == 1001
    await world.die(old, 0)
    assert (world.phase, world.looking_out, new.did) == ("running", False, ["serve"])


async def test_a_worker_that_does_not_end_its_drain_is_killed():
    world = World(timeout=2.0)
    link = await world.woken()
    world.activation.idle(link, 30.0)
    await world.clock.pass_(2.0 + DRAIN_MARGIN - 0.1)
    assert "kill" not in link.did
    await world.clock.pass_(0.2)
    assert link.did[-1] == "kill"


async def test_who_pulls_is_started_again_at_once_after_kill_9_of_a_healthy_worker():
    world = World(pulls=True)
    link = await world.woken()
    await world.clock.pass_(HEALTHY)
    await world.die(link, -9)
    await world.clock.pass_(0)
    assert len(world.links) == 2


async def test_a_worker_that_had_done_work_may_die_young_without_a_wait():
    world = World(pulls=True)
    for number in range(5):
        link = world.links[-1] if number else await world.woken()
        if number:
            link.ready.set_result(object())
            await settle()
        link.worked = True
        await world.die(link, -9)
        await world.clock.pass_(0)
    assert len(world.links) == 6


async def test_the_wait_between_starts_doubles_up_to_a_minute():
    world = World(pulls=True)
    await world.woken()
    waits = []
    for _ in range(9):
        await world.die(world.links[-1], -11)
        before, started = world.clock.time, len(world.links)
        while len(world.links) == started:
            await world.clock.pass_(0.5 if world.clock.time > before else 0)
            if len(world.links) == started and world.clock.time == before:
                world.clock.time += 1e-9
        waits.append(round(world.clock.time - before))
        world.links[-1].ready.set_result(object())
        await settle()
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]


async def test_while_it_backs_off_http_learns_when_to_come_again():
    world = World()
    for _ in range(2):
        link = await world.woken()
        await world.die(link, -11)
    assert world.phase == "backing-off"
    assert "killed by signal 11 (2 in a row)" in world.activation.phase()[1]
    with pytest.raises(Unavailable) as unavailable:
        await world.activation.activate()
    assert unavailable.value.retry_after == pytest.approx(1.0)
    await world.clock.pass_(1.1)
    assert (await world.woken()).pid == 1002


async def test_a_healthy_while_ends_the_count():
    world = World(pulls=True)
    for _ in range(2):
        link = await world.woken() if not world.links else world.links[-1]
        if not link.ready.done():
            link.ready.set_result(object())
            await settle()
        await world.die(link, -11)
        await world.clock.pass_(1.5)
    world.links[-1].ready.set_result(object())
    await settle()
    await world.clock.pass_(HEALTHY + 1)
    await world.die(world.links[-1], -11)
    assert "1 in a row" in world.activation._trouble


async def test_a_start_that_fails_tells_everyone_who_waits_and_backs_off():
    world = World(pulls=True)
    callers = [asyncio.create_task(world.activation.activate()) for _ in range(2)]
    await settle()
    world.links[0].ready.set_exception(WorkerFailedError("no module named 'nunpy'", place="handler.py:1"))
    for each in callers:
        with pytest.raises(Unavailable, match=r"no module named 'nunpy' \(handler.py:1\)"):
            await each
    assert world.phase == "backing-off"
    assert world.links[0].did == ["kill"]
    await world.die(world.links[0], 1)
    await world.clock.pass_(1.0)
    assert len(world.links) == 2


async def test_a_record_during_the_backoff_starts_when_it_is_over():
    world = World()
    for _ in range(2):
        await world.die(await world.woken(), -11)
    world.activation.wake()
    world.activation.wake()
    assert len(world.links) == 2
    await world.clock.pass_(1.0)
    assert len(world.links) == 3


async def test_a_process_that_cannot_be_started_is_a_failed_start():
    world = World()
    world.refuse = OSError(11, "Resource temporarily unavailable")
    with pytest.raises(Unavailable, match="Resource temporarily unavailable"):
        await world.activation.activate()
    assert (world.phase, world.looking_out) == ("backing-off", True)


async def test_a_new_revision_takes_over_and_the_old_worker_drains():
    world = World()
    old, new = await world.woken(), Link(7)
    world.activation.switch(new, Policy(idle=5.0))
    assert (old.did[-1], new.did) == ("drain", ["serve"])
    assert await world.activation.activate() is new
    await world.die(old, 0)
    assert (world.phase, world.looking_out) == ("running", False)
    world.activation.idle(new, 5.0)
    assert new.did == ["serve", "drain"]


async def test_a_new_revision_forgives_the_crashes_of_the_old_one():
    world = World()
    for _ in range(3):
        world.activation._not_before = 0
        await world.die(await world.woken(), -11)
    assert world.phase == "backing-off"
    world.activation.switch(Link(7), Policy(idle=5.0))
    assert world.phase == "running"


async def test_a_switch_while_the_old_revision_starts_drains_what_comes_up_late():
    world = World()
    caller = asyncio.create_task(world.activation.activate())
    await settle()
    new = Link(7)
    world.activation.switch(new, Policy(idle=5.0))
    world.links[0].ready.set_result(object())
    assert await caller is new
    assert world.links[0].did == ["drain"]
    await world.die(world.links[0], 0)
    assert world.phase == "running"


async def test_workers_are_started_anew_where_what_they_connect_to_is_elsewhere():
    world = World()
    old = await world.woken()
    world.activation.renew("its broker is elsewhere")
    assert old.did == ["serve", "drain"]
    await settle()
    new = world.links[-1]
    assert new is not old
    new.ready.set_result(object())
    await settle()
    assert world.activation.current is new
    await world.die(old, 0)
    assert world.phase == "running"


async def test_one_on_its_way_is_started_anew_too():
    world = World()
    caller = asyncio.create_task(world.activation.activate())
    await settle()
    world.activation.renew("its broker is elsewhere")
    await settle()
    first, second = world.links
    second.ready.set_result(object())
    await settle()
    first.ready.set_result(object())
    assert await caller is second
    assert first.did == ["drain"]


async def test_who_sleeps_is_looked_out_for_anew():
    world = World()
    world.activation.renew("its broker is elsewhere")
    assert world.looking_out
    assert world.links == []


async def test_what_the_old_worker_says_about_idling_after_a_switch_is_nothing():
    world = World()
    old = await world.woken()
    new = Link(7)
    world.activation.switch(new, Policy(idle=5.0))
    world.activation.idle(old, 100.0)
    assert new.did == ["serve"]


async def test_stopping_drains_and_waits_and_takes_nothing_more():
    world = World()
    link = await world.woken()
    stopping = asyncio.create_task(world.activation.stop("the node stops"))
    await settle()
    assert link.did == ["serve", "drain"]
    with pytest.raises(Unavailable, match="the node stops"):
        await world.activation.activate()
    assert not stopping.done()
    await world.die(link, 0)
    await stopping
    assert not world.looking_out


async def test_stopping_while_waking_drains_the_worker_that_comes_up():
    world = World()
    caller = asyncio.create_task(world.activation.activate())
    await settle()
    stopping = asyncio.create_task(world.activation.stop("the node stops"))
    await settle()
    world.links[0].ready.set_result(object())
    await caller
    await settle()
    assert world.links[0].did == ["serve", "drain"]
    await world.die(world.links[0], 0)
    await stopping


async def test_a_worker_that_dies_as_it_becomes_ready_is_noticed():
    world = World(pulls=True)
    caller = asyncio.create_task(world.activation.activate())
    await settle()
    link = world.links[0]
    link.ready.set_result(object())
    link.process.exited.set_result(-9)
    world.activation.gone(link, -9)
    await caller
    await settle()
    await world.clock.pass_(0)
    assert len(world.links) == 2


async def test_a_worker_that_leaves_by_itself_is_replaced_beside_its_drain():
    world = World(pulls=True)
    old = await world.woken()
    world.activation.leaving(old, "a run does not end")
    assert world.looking_out is False
    await world.clock.pass_(0)
    assert len(world.links) == 2
    world.links[1].ready.set_result(object())
    await settle()
    await world.die(old, 75)
    assert world.phase == "running"
    assert len(world.links) == 2


# Several workers


async def several(count, **policy):
    """A world of so many workers that take work, wanted by rows that wait."""
    world = World(**{"most": 4, "concurrency": 1, **policy})
    await world.woken()
    while len(world.activation.working) < count:
        world.activation.rows_wait(2 * count)
        await world.clock.pass_(LOOK)
        await ready(world)
    return world


async def ready(world):
    for link in world.links:
        if not link.ready.done():
            link.ready.set_result(object())
    await settle()


def slots(world):
    return [each.slot for each in world.activation.working]


async def test_more_workers_start_while_more_waits_each_in_a_slot_of_its_own():
    world = await several(3)
    assert slots(world) == [0, 1, 2]
    assert [each.shares for each in world.links] == [(0, 1, 2)] * 3
    assert all(each.did == ["serve"] for each in world.links)
    assert world.activation.phase() == (
        "running",
        "3 workers take work, of at most 4; those that were not needed for 30 s go",
    )


async def test_one_worker_is_asked_for_nothing_that_several_need():
    world = World(concurrency=1)
    link = await world.woken()
    world.activation.rows_wait(100)
    await world.clock.pass_(10)
    assert (len(world.links), link.shares) == (1, None)


async def test_work_goes_to_the_least_busy_and_of_equals_to_the_lowest_slot():
    world = await several(3)
    assert (await world.activation.activate()).slot == 0
    world.links[0].busy = 2
    world.links[1].busy = 1
    assert (await world.activation.activate()).slot == 2
    world.links[2].busy = 3
    assert world.activation.current.slot == 1


async def test_those_that_are_not_needed_go_and_the_last_one_once_it_is_idle():
    world = await several(3, idle=5.0)
    world.links[0].busy = 1
    for _ in range(10):
        await world.clock.pass_(LOOK)
    assert [each.did[-1] for each in world.links] == ["serve", "drain", "drain"]
    assert world.links[0].shares == (0,)
    for link in world.links[1:]:
        await world.die(link, 0)
    world.activation.idle(world.links[0], 5.0)
    await world.die(world.links[0], 0)
    assert (world.phase, world.looking_out) == ("sleeping", True)


async def test_one_of_several_that_is_idle_stays_until_the_others_suffice():
    world = await several(2)
    world.activation.idle(world.links[1], 100.0)
    assert slots(world) == [0, 1]


async def test_the_others_take_over_from_one_that_dies_and_it_is_replaced():
    world = await several(3)
    world.links[1].worked = True
    await world.die(world.links[1], -9)
    assert slots(world) == [0, 2]
    for link in (world.links[0], world.links[2]):
        assert (link.shares, link.inherited) == ((0, 2), [1])
    await world.clock.pass_(0)
    await ready(world)
    assert slots(world) == [0, 1, 2]


async def test_one_that_crashes_again_and_again_backs_off_while_the_others_work():
    world = await several(2, most=2)
    for _ in range(3):
        await world.die(world.links[-1], -11)
        while not world.links[-1].ready.done() or world.links[-1] not in world.activation.working:
            world.activation.rows_wait(10)
            await world.clock.pass_(0.5)
            await ready(world)
    await world.die(world.links[-1], -11)
    assert world.links[0].did == ["serve"]
    phase, why = world.activation.phase()
    assert phase == "running"
    assert "another one starts in 4 s, since worker 1004 was killed by signal 11 (4 in a row)" in why
    assert (await world.activation.activate()).slot == 0


async def test_a_function_sleeps_with_somebody_looking_out_though_one_of_several_backed_off():
    world = await several(2, most=2, idle=2.0, pulls=True)
    for _ in range(4):
        await world.die(world.links[-1], -11)
        while len(world.activation.working) < 2 and "in 4 s" not in world.activation.phase()[1]:
            world.activation.rows_wait(10)
            await world.clock.pass_(0.5)
            await ready(world)
    for _ in range(3):
        await world.clock.pass_(LOOK)
    world.activation.idle(world.links[0], 2.0)
    await world.die(world.links[0], 0)
    assert (world.looking_out, world.activation.links()) == (True, [])
    started = len(world.links)
    world.activation.wake()
    await world.clock.pass_(60)
    assert len(world.links) == started + 1


async def test_a_slot_whose_worker_drains_is_taken_last():
    world = await several(2, most=2, idle=5.0)
    world.links[0].busy = 0
    world.links[1].busy = 1
    for _ in range(8):
        await world.clock.pass_(LOOK)
    assert world.links[0].did[-1] == "drain"
    world.activation.rows_wait(100)
    await world.clock.pass_(LOOK)
    world.activation.rows_wait(100)
    await world.clock.pass_(LOOK)
    assert world.links[-1].slot == 0


async def test_as_many_workers_of_a_new_revision_start_as_the_old_one_had():
    world = await several(3)
    old = list(world.links)
    assert world.activation.next_slot(3) == 0
    new = Link(7, world.activation.next_slot(4))
    world.activation.switch(new, Policy(idle=30.0, most=4, concurrency=1))
    assert [each.did[-1] for each in old] == ["drain"] * 3
    await settle()
    await ready(world)
    assert [(each.pid, each.slot) for each in world.activation.working] == [(1003, 0), (1004, 1), (7, 3)]
    assert new.shares == (0, 1, 3)


async def test_a_new_revision_that_allows_fewer_has_fewer():
    world = await several(3)
    world.activation.switch(Link(7), Policy(idle=30.0, most=1))
    await settle()
    assert len(world.links) == 3
    assert world.activation.phase()[1] == "worker 7 takes work; after 30 s without work it goes"


async def test_min_two_keeps_two():
    world = World(least=2, most=3)
    world.activation.begin()
    await settle()
    await ready(world)
    assert slots(world) == [0, 1]
    assert world.activation.phase()[1] == "2 workers take work, of at most 3; scale.min is 2, so they stay"
    for link in world.links:
        world.activation.idle(link, 3600.0)
    await world.die(world.links[0], -9)
    await world.clock.pass_(0)
    await ready(world)
    assert slots(world) == [0, 1]


async def test_stopping_drains_them_all():
    world = await several(3)
    stopping = asyncio.create_task(world.activation.stop("the node stops"))
    await settle()
    assert [each.did[-1] for each in world.links] == ["drain"] * 3
    for link in world.links:
        await world.die(link, 0)
    await stopping


async def test_a_second_worker_that_does_not_start_leaves_the_first_one_alone():
    world = World(most=2, concurrency=1)
    link = await world.woken()
    world.refuse = OSError(11, "Resource temporarily unavailable")
    for _ in range(3):
        world.activation.rows_wait(100)
        await world.clock.pass_(LOOK)
    assert (world.phase, world.looking_out, link.did) == ("running", False, ["serve"])
    assert "Resource temporarily unavailable" in world.activation.phase()[1]
    assert await world.activation.activate() is link
