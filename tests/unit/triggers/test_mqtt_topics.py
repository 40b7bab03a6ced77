"""Topic templates: what is refused, the filter they become, what their names take from a topic."""

from __future__ import annotations

import pytest
from fleetfn_triggers import mqtt_topics


@pytest.mark.parametrize(
    ("template", "filter_", "names"),
    [
        ("vehicles/{vehicle}/battery", "vehicles/+/battery", ["vehicle"]),
        ("{region}/{vehicle}", "+/+", ["region", "vehicle"]),
        ("a/+/{b}/#", "a/+/+/#", ["b"]),
        ("#", "#", []),
        ("/leading", "/leading", []),
        ("$SYS/broker/uptime", "$SYS/broker/uptime", []),
    ],
)
def test_a_template_becomes_a_filter(template: str, filter_: str, names: list[str]) -> None:
    assert list(mqtt_topics.problems(template)) == []
    assert mqtt_topics.topic_filter(template) == filter_
    assert mqtt_topics.topic_filter(template, "group") == f"$share/group/{filter_}"
    assert mqtt_topics.names(template) == names


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "the topic is empty"),
        ("a/#/b", '"#" is not the last level'),
        ("a/b#", '"b#" mixes a wildcard with text'),
        ("a+/b", '"a+" mixes a wildcard with text'),
        ("a/v-{vehicle}", '"v-{vehicle}" is no {name}'),
        ("a/{Vehicle}", '"{Vehicle}" is no {name}'),
        ("a/{}", '"{}" is no {name}'),
        ("{a}/{a}", 'the name "a" stands twice in "{a}/{a}"'),
        ("$share/g/a", '"$share/g/a" begins with "$share/"'),
        ("a\0b", "the topic holds the character U+0000"),
        ("a" * 65_536, "the topic is longer than 65535 bytes"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(template: str, said: str) -> None:
    (message, hint), *_ = mqtt_topics.problems(template)
    assert message == said
    assert hint


@pytest.mark.parametrize(
    ("template", "topic", "level"),
    [
        ("vehicles/{v}/battery", "vehicles/v1/battery", "v1"),
        ("vehicles/{v}/battery", "vehicles//battery", ""),
        ("vehicles/{v}/battery", "vehicles/v1/doors", None),
        ("vehicles/{v}/battery", "vehicles/v1/x/battery", None),
        ("{v}/#", "v1/a/b", "v1"),
        ("{v}/#", "v1", "v1"),
        ("+/{v}", "a/v.1\n", "v.1\n"),
        ("a.c/{v}", "abc/v1", None),
    ],
)
def test_a_name_is_one_level_of_a_topic_that_fits(template: str, topic: str, level: str | None) -> None:
    assert mqtt_topics.level_of(template, "v")(topic) == level


@pytest.mark.parametrize(
    ("filter_", "topic", "fits"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a/b", "a/b/c", False),
    ],
)
def test_filters_match_as_mqtt_has_it(filter_: str, topic: str, fits: bool) -> None:  # noqa: FBT001 - a parameter
    assert mqtt_topics.matches(filter_, topic) is fits


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "the topic is empty"),
        ("a/+", '"a/+" has a wildcard'),
        ("a/{vehicle}", '"a/{vehicle}" has braces that are not {key}'),
        ("$SYS/x", '"$SYS/x" begins with "$"'),
    ],
)
def test_what_is_wrong_with_an_outputs_topic_is_said(template: str, said: str) -> None:
    (message, hint), *_ = mqtt_topics.output_problems(template)
    assert message == said
    assert hint


def test_an_outputs_topic_takes_the_key_anywhere() -> None:
    assert list(mqtt_topics.output_problems("a/{key}/x-{key}")) == []
    assert mqtt_topics.output_topic("a/{key}/x-{key}", "v1") == "a/v1/x-v1"
    assert mqtt_topics.output_topic("a/b", None) == "a/b"


@pytest.mark.parametrize("key", ["a/b", "+", "#x", "a\0", None, "é" * 40_000])
def test_a_key_that_makes_no_topic_is_an_error(key: str | None) -> None:
    with pytest.raises(ValueError, match=r"key|longer"):
        mqtt_topics.output_topic("a/{key}", key)
