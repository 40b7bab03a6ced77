"""Functions that sleep for long are woken before Kafka forgets their offsets: who, when, and over gateways."""

import msgspec
import pytest
from fleetfn_gateway.cluster.refreshing import AWAKE, EVERY, HOUR, SPREAD, Refreshing
from gateway_doubles import cron, function

KAFKA = {"name": "k", "kafka": {"topic": "t"}}
START = 1_800_000_000.0


class Notes:
    def __init__(self):
        self.kept = {}

    def note(self, name):
        return self.kept.get(name)

    async def put(self, _, *, notes):
        self.kept |= notes
        return []

    async def forget(self, prefix):
        self.kept = {name: value for name, value in self.kept.items() if not name.startswith(prefix)}


class Place:
    """Pods, demand and time. `broken`: functions whose pods do not come up."""

    def __init__(self, *names):
        self.now = START
        self.notes = Notes()
        self.functions = {name: function(KAFKA, cron(), name=name) for name in names}
        self.broken = set()
        self.awake = set()
        self.woken = []
        self.start()

    def start(self):
        self.refreshing = Refreshing(
            self.notes, self, self, lambda: self.functions, lambda _: "why", clock=lambda: self.now, sleep=self.sleep
        )

    def ready(self, name):
        return ("pod",) if name in self.awake else ()

    async def first(self, name, limit):
        if name in self.broken:
            self.now += limit
            return ()
        return self.wake(name)

    def waiting(self, name):
        self.woken.append(name)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in set(self.awake):
            self.fall_asleep(name)

    def wake(self, name):
        self.awake.add(name)
        self.refreshing.changed(name)
        return ("pod",)

    def fall_asleep(self, name):
        self.awake.discard(name)
        self.refreshing.changed(name)

    async def sleep(self, seconds):
        self.now += seconds

    async def pass_by(self, hours, *, step=0.25):
        """Who was woken meanwhile."""
        del self.woken[:]
        for _ in range(int(hours / step)):
            self.now += step * HOUR
            await self.refreshing.look()
        return self.woken


async def test_who_sleeps_is_woken_once_a_day_at_a_time_of_its_own():
    place = Place("f", "g", "h")
    place.functions["clock"] = function(cron(), name="clock")
    await place.refreshing.look()
    assert await place.pass_by((EVERY - SPREAD) / HOUR - 1) == []
    woken = await place.pass_by(SPREAD / HOUR + 1.5, step=0.1)
    assert sorted(woken) == ["f", "g", "h"]
    assert sorted(await place.pass_by(24)) == ["f", "g", "h"]


@pytest.mark.parametrize(("seconds", "woken"), [(AWAKE - 1, ["f"]), (AWAKE, [])], ids=["too-short", "long-enough"])
async def test_a_worker_has_to_be_awake_for_as_long_as_it_takes_to_commit(seconds, woken):
    place = Place("f")
    await place.refreshing.look()
    place.now += 17 * HOUR
    place.wake("f")
    place.now += seconds
    place.fall_asleep("f")
    assert await place.pass_by(8) == woken


async def test_who_is_awake_is_left_alone():
    place = Place("f")
    place.wake("f")
    assert await place.pass_by(100) == []
    place.fall_asleep("f")
    assert await place.pass_by(17) == []
    assert await place.pass_by(8) == ["f"]


async def test_a_restart_wakes_nobody_and_forgets_nobody():
    place = Place("f")
    place.wake("f")
    place.now += HOUR
    await place.refreshing.look()
    place.fall_asleep("f")
    await place.pass_by(10)
    place.start()
    assert await place.pass_by(7) == []
    assert await place.pass_by(8) == ["f"]


async def test_after_a_long_absence_they_wake_one_after_the_other():
    names = [f"f{each}" for each in range(20)]
    place = Place(*names)
    place.notes.kept = {f"awake/{name}/": msgspec.json.encode(START - 48 * HOUR) for name in names}
    await place.refreshing.look()
    assert sorted(place.woken) == sorted(names)
    assert place.now - START > len(names) * AWAKE
    assert await place.pass_by(17) == []


async def test_who_does_not_wake_is_tried_again_in_an_hour_and_holds_up_nobody(caplog):
    place = Place("f", "g")
    place.broken.add("f")
    place.notes.kept = {f"awake/{name}/": msgspec.json.encode(START - 25 * HOUR) for name in "fg"}
    assert await place.pass_by(2.9) == ["f", "g", "f", "f"]
    assert "f has slept for 25 h and does not wake: why" in caplog.text
    place.broken.clear()
    assert await place.pass_by(3) == ["f"]


async def test_what_is_dropped_and_what_a_clock_that_was_ahead_wrote():
    place = Place("f")
    place.notes.kept = {"awake/f/": msgspec.json.encode(START + 1000 * HOUR)}
    assert await place.pass_by(25) == ["f"]
    await place.refreshing.forget("f")
    assert place.notes.kept == {}
