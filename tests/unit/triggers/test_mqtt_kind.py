"""What is said of mqtt blocks that do not fit together."""

from __future__ import annotations

from typing import Any

import pytest
from fleetfn_spec.check import check_spec
from fleetfn_spec.function import Function, Metadata, Output, Spec, Trigger
from fleetfn_spec.places import Places
from fleetfn_triggers.mqtt import Mqtt, MqttOutput
from fleetfn_triggers.trigger import EventFields


def said(*outputs: Output, topic: str = "vehicles/{vehicle}", **fields: Any) -> list[str]:
    block = {name: fields.pop(name) for name in ("share", "retained") if name in fields}
    trigger = Trigger(name="live", mqtt=Mqtt(topic=topic, **block), **fields)
    function = Function(
        apiVersion="fleetfn.dev/v1alpha1",
        kind="Function",
        metadata=Metadata(name="battery"),
        spec=Spec(handler="handler:watch", triggers=[trigger], outputs=list(outputs)),
    )
    return [str(problem) for problem in check_spec(function, Places("function.yaml"))]


def test_a_name_of_the_topic_may_be_the_key() -> None:
    assert said(key="topic.vehicle") == []
    assert said(key="header.vin", event=EventFields(id="topic.vehicle", time="data.ts")) == []


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"key": "topic.car"}, '"topic.car" names no level of the topic "vehicles/{vehicle}"; it has: topic.vehicle'),
        ({"key": "topic.car", "topic": "#"}, '"topic.car" names no level of the topic "#"; it has: none'),
        ({"key": "kafka.key"}, '"kafka.key" is no key expression here'),
        ({"topic": "a/#/b"}, '"#" is not the last level'),
        ({"share": "g", "retained": "new"}, "a shared subscription gets no retained messages"),
        (
            {"decode": "frames:decode", "key": "topic.vehicle", "event": EventFields(time="data.ts")},
            '"data.ts" cannot be read from data that `decode` makes',
        ),
        (
            {"decode": "frames:decode", "key": "data.vehicle"},
            '"data.vehicle" cannot be read from data that `decode` makes',
        ),
    ],
)
def test_what_does_not_fit_is_said(fields: dict[str, Any], wanted: str) -> None:
    (problem,) = said(**fields)
    assert wanted in problem


def test_an_outputs_topic_is_checked() -> None:
    assert said(Output(name="alerts", mqtt=MqttOutput(topic="vehicles/{key}/alerts"))) == []
    (problem,) = said(Output(name="alerts", mqtt=MqttOutput(topic="vehicles/+/alerts")))
    assert '"vehicles/+/alerts" has a wildcard' in problem
