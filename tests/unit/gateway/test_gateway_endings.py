"""A delete that was cut short is finished when the gateway opens again, and one whose source is away later."""

import logging

import pytest
from fleetfn.errors import FleetError, StoreError
from fleetfn_gateway import endings
from fleetfn_gateway import gateway as gateway_module
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.owner import Nobody
from fleetfn_gateway.queue import Queue
from gateway_doubles import arrival, cron, function, mqtt, until


class Source:
    """What sources were told. `away`: they do not answer."""

    def __init__(self):
        self.away = False
        self.told = []

    def feed(self, function, trigger, _queue):
        return Feed(self, f"{function.name}/{trigger.name}")


class Feed:
    problem = ""

    def __init__(self, source, name):
        self._source = source
        self._name = name

    async def start(self):
        self._source.told.append(f"started {self._name}")

    async def close(self, *, forget=False):
        if forget and self._source.away:
            raise FleetError("the broker is away")
        if forget:
            self._source.told.append(f"forgot {self._name}")


class Killed(BaseException):
    """Ends a call where a kill -9 would."""


@pytest.fixture
async def queue(tmp_path):
    queue = await Queue.open(tmp_path / "inbox.db", quota=2**30)
    yield queue
    await queue.close()


@pytest.fixture
def source():
    return Source()


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gateway_of(queue, source, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(gateway_module, "_HOUSE", 0.01)
    monkeypatch.setattr(endings, "FIRST", 0.01)
    monkeypatch.setattr(endings, "LONGEST", 0.02)
    factories = {"mqtt": source.feed, "cron": source.feed}
    return lambda: Gateway(queue, Nobody(), data=tmp_path, retention=1e10, factories=factories, clock=clock)


@pytest.fixture
async def gateway(gateway_of, queue):
    gateway = gateway_of()
    await gateway.open()
    await gateway.put(function(mqtt("a"), cron("b")))
    await queue.put([arrival(1, trigger="a")])
    yield gateway
    await gateway.close(0)


async def cut_short(gateway, monkeypatch):
    """A delete that is killed once it is written down, and the end of what is left of the process."""

    async def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(gateway, "_end", killed)
        with pytest.raises(Killed):
            await gateway.delete("f", drop=True)
    await gateway.close(0)


async def finished(gateway):
    await until(lambda: not gateway._registry.endings)


async def test_a_delete_that_was_cut_short_is_finished_at_the_next_open(
    gateway, gateway_of, queue, source, monkeypatch
):
    await cut_short(gateway, monkeypatch)
    assert queue.counts()["f"]["a"].waiting == 1
    source.told.clear()
    again = gateway_of()
    await again.open()
    await finished(again)
    assert sorted(source.told) == ["forgot f/a", "forgot f/b"]
    assert queue.counts() == {}
    await again.close(0)
    third = gateway_of()
    await third.open()
    assert third._registry.endings == []
    await third.close(0)


async def test_a_function_that_comes_before_a_delete_is_finished_does_not_get_the_old_ones_rows(
    gateway, gateway_of, queue, source, monkeypatch
):
    await cut_short(gateway, monkeypatch)
    source.told.clear()
    again = gateway_of()
    again._registry.load()  # as `open` does, which then begins to finish it
    await again.put(function(mqtt("a")))
    assert source.told[-1] == "started f/a"
    assert sorted(source.told[:-1]) == ["forgot f/a", "forgot f/b"]
    assert queue.counts() == {}
    await again.close(0)


async def test_a_source_that_is_away_is_told_when_it_is_back(gateway, queue, source, caplog):
    source.away = True
    await gateway.delete("f", drop=True)
    assert queue.counts() == {}
    assert [each.name for each in gateway._registry.endings] == ["f"]
    source.told.clear()
    source.away = False
    await finished(gateway)
    assert sorted(source.told) == ["forgot f/a", "forgot f/b"]
    assert caplog.text.count("f/a is deleted, and its source could not be told; it is tried again: the broker") == 1


async def test_a_trigger_that_is_there_again_keeps_its_source(gateway, source):
    source.away = True
    await gateway.delete("f", drop=True)
    source.told.clear()
    await gateway.put(function(mqtt("a")))
    source.away = False
    await finished(gateway)
    assert source.told == ["started f/a", "forgot f/b"]


async def test_a_source_that_stays_away_is_given_up(gateway, source, clock, caplog):
    source.away = True
    await gateway.delete("f", drop=False)
    clock.now += endings.GIVE_UP
    with caplog.at_level(logging.WARNING):
        await finished(gateway)
    assert "f/a is deleted, and what its source keeps for it may still be there; it is tried no more" in caplog.text


async def test_rows_that_cannot_be_dropped_are_dropped_later(gateway, queue, source, monkeypatch):
    async def full(*_):
        raise StoreError("the disk does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(queue, "drop", full)
        with pytest.raises(StoreError):
            await gateway.delete("f", drop=True)
    await finished(gateway)
    assert queue.counts() == {}
    assert sorted(source.told[-2:]) == ["forgot f/a", "forgot f/b"]
