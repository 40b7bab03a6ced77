"""Feeds are made, started again and ended as functions change."""

from pathlib import Path

import pytest
from fleetfn.errors import FleetError
from fleetfn_gateway.feeds import Feeds
from fleetfn_triggers.mqtt_connection import MqttConnection
from fleetfn_triggers.secret import Secret
from gateway_doubles import cron, function, http, mqtt


class FakeFeed:
    def __init__(self, told, function, trigger, failure=None):
        self.problem = ""
        self._told = told
        self._name = f"{function.name}/{trigger.name}"
        self._failure = failure
        told.append(f"made {self._name}")

    async def start(self):
        if self._failure is not None:
            raise self._failure
        self._told.append(f"started {self._name}")

    async def close(self, *, forget=False):
        self._told.append(f"{'forgot' if forget else 'closed'} {self._name}")


@pytest.fixture
def told():
    return []


@pytest.fixture
def feeds(told):
    def make(function, trigger, queue):
        return FakeFeed(told, function, trigger)

    return Feeds(None, {"mqtt": make, "cron": make})


def begun(*names):
    return [f"{verb} {name}" for name in names for verb in ("made", "started")]


async def test_triggers_whose_kind_feeds_the_inbox_have_a_feed(feeds, told):
    await feeds.change(function(http(), cron("a"), mqtt("b")))
    assert sorted(told) == sorted(begun("f/a", "f/b"))
    assert feeds.get("f", "a") is not None
    assert feeds.get("f", "t") is None


async def test_a_new_revision_with_the_same_triggers_leaves_feeds_alone(feeds, told):
    connections = {"mqtt": MqttConnection(url="mqtt://broker")}
    await feeds.change(function(cron("a"), mqtt("b"), mqtt=connections))
    told.clear()
    await feeds.change(function(cron("a"), mqtt("b"), mqtt=connections, revision="other", source=Path("/other")))
    await feeds.change(function(cron("a"), mqtt("b"), http(), mqtt=connections, paused=("a", "b")))
    assert told == []


CONNECTION = MqttConnection(url="mqtt://broker", username="fn", password=Secret(env="PASSWORD"))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        pytest.param(
            function(cron("a"), mqtt("b", "other/+"), mqtt={"mqtt": CONNECTION}),
            ["closed f/b", *begun("f/b")],
            id="a trigger's field",
        ),
        pytest.param(
            function(cron("a"), mqtt("b"), mqtt={"mqtt": MqttConnection(url="mqtt://elsewhere")}),
            ["closed f/b", *begun("f/b")],
            id="its connection",
        ),
        pytest.param(
            function(cron("a"), mqtt("b"), mqtt={"mqtt": CONNECTION, "other": MqttConnection(url="mqtt://other")}),
            [],
            id="a connection of others",
        ),
        pytest.param(function(cron("a"), mqtt={"mqtt": CONNECTION}), ["forgot f/b"], id="deleted"),
        pytest.param(
            function(cron("a"), cron("b"), mqtt={"mqtt": CONNECTION}), ["forgot f/b", *begun("f/b")], id="another kind"
        ),
    ],
)
async def test_feeds_follow_their_trigger_and_connection(feeds, told, changed, expected):
    await feeds.change(function(cron("a"), mqtt("b"), mqtt={"mqtt": CONNECTION}))
    await feeds.change(function(cron("a"), name="other"))
    told.clear()
    await feeds.change(changed)
    assert told == expected


async def test_feeds_of_a_function_end_and_what_their_sources_keep_is_let_go_by_itself(feeds, told):
    told_of = function(cron("a"), mqtt("b"))
    await feeds.change(told_of)
    await feeds.change(function(cron("a"), name="other"))
    told.clear()
    await feeds.end("f")
    assert told == ["closed f/a", "closed f/b"]
    told.clear()
    assert [await feeds.forget(told_of, each) for each in feeds.fed(told_of)] == ["", ""]
    assert told == ["made f/a", "forgot f/a", "made f/b", "forgot f/b"]


async def test_a_connection_with_files_of_the_revision_follows_each_revision(feeds, told):
    connections = {"mqtt": MqttConnection(url="mqtt://broker", username="fn", password=Secret(file="password"))}
    await feeds.change(function(mqtt("b"), mqtt=connections))
    told.clear()
    await feeds.change(function(mqtt("b"), mqtt=connections, source=Path("/other")))
    assert told == ["closed f/b", *begun("f/b")]


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (FleetError("no such zone", hint="name another"), "no such zone (name another)"),
        (ImportError("No module named 'paho'"), "pip install 'fleetfn[gateway]'"),
        (RuntimeError("a defect"), "RuntimeError: a defect"),
    ],
    ids=["settings", "not installed", "defect"],
)
@pytest.mark.parametrize("when", ["made", "started"])
async def test_a_feed_that_cannot_be_is_a_problem_of_its_trigger_and_tried_again(told, failure, problem, when):
    failing = True

    def make(function, trigger, queue):
        if failing and trigger.name == "a" and when == "made":
            raise failure
        return FakeFeed(told, function, trigger, failure if failing and trigger.name == "a" else None)

    feeds = Feeds(None, {"cron": make})
    await feeds.change(function(cron("a"), cron("b")))
    assert problem in feeds.problem("f", "a")
    assert feeds.problem("f", "b") == ""
    assert "started f/b" in told
    assert ("made f/a" in told) == ("closed f/a" in told) == (when == "started")
    told.clear()
    failing = False
    await feeds.mend()
    assert feeds.problem("f", "a") == ""
    assert told == begun("f/a")


async def test_a_feed_that_does_not_end_holds_nobody_up(told):
    class Stubborn(FakeFeed):
        async def close(self, *, forget=False):
            await super().close(forget=forget)
            raise OSError("gone already")

    feeds = Feeds(None, {"cron": lambda function, trigger, _: Stubborn(told, function, trigger)})
    await feeds.change(function(cron("a"), cron("b")))
    told.clear()
    await feeds.close()
    assert told == ["closed f/a", "closed f/b"]
