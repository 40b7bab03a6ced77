"""Topic templates: `vehicles/{vehicle}/battery` of a trigger, `vehicles/{key}/alerts` of an output.

In a trigger a level is fixed, one `{name}`, `+`, or (the last one) `#`; the broker is asked for the *filter*, in which
a name is a `+`. In an output `{key}` may stand anywhere; what comes of it is one topic, without wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fleetfn.errors import UsageError

Found = Iterator[tuple[str, str]]
"""(message, hint)"""

LIMIT = 65_535
"""Bytes of a topic: MQTT has two bytes for the length."""

_NAMED = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_SHARE = "$share/"


def problems(template: str) -> Found:
    """All that is wrong with a trigger's template."""
    if not template:
        yield "the topic is empty", "write e.g. vehicles/{vehicle}/battery"
        return
    if template.startswith(_SHARE):
        yield f'"{template}" begins with "{_SHARE}"', "write the topic alone, and the group's name as `share`"
    yield from _text_problems(template)
    levels = template.split("/")
    for place, level in enumerate(levels, 1):
        yield from _level_problems(level, last=place == len(levels))
    found = names(template)
    for name in dict.fromkeys(found):
        if found.count(name) > 1:
            yield f'the name "{name}" stands twice in "{template}"', "give each {name} its own"


def _level_problems(level: str, *, last: bool) -> Found:
    if "{" in level or "}" in level:
        if not _NAMED.fullmatch(level):
            yield (
                f'"{level}" is no {{name}}',
                "a level is fixed or one {name} of lower-case letters, digits and '_'",
            )
    elif level == "#":
        if not last:
            yield '"#" is not the last level', 'it stands for all levels from there on; for one level write "+"'
    elif level != "+" and ("+" in level or "#" in level):
        yield f'"{level}" mixes a wildcard with text', "a wildcard is a level of its own"


def _text_problems(text: str) -> Found:
    if "\0" in text:
        yield "the topic holds the character U+0000", "MQTT does not allow it"
    if len(text.encode(errors="replace")) > LIMIT:
        yield f"the topic is longer than {LIMIT} bytes", "MQTT allows no longer one"


def names(template: str) -> list[str]:
    """The `{name}` levels, from left to right."""
    return [match[1] for level in template.split("/") if (match := _NAMED.fullmatch(level))]


def topic_filter(template: str, share: str | None = None) -> str:
    """What the broker is asked for."""
    plain = "/".join("+" if _NAMED.fullmatch(level) else level for level in template.split("/"))
    return f"{_SHARE}{share}/{plain}" if share else plain


def level_of(template: str, name: str) -> Callable[[str], str | None]:
    """A function topic -> what stands at `{name}`; None where the topic does not fit the template."""
    parts: list[str] = []
    for level in template.split("/"):
        if level == "#":
            parts[-1:] = [parts[-1] + "(?:/.*)?"] if parts else [".*"]
        elif level == f"{{{name}}}":
            parts.append("([^/]*)")
        elif level == "+" or _NAMED.fullmatch(level):
            parts.append("[^/]*")
        else:
            parts.append(re.escape(level))
    match = re.compile("/".join(parts), re.DOTALL).fullmatch

    def get(topic: str) -> str | None:
        found = match(topic)
        return found[1] if found else None

    return get


def matches(filter_: str, topic: str) -> bool:
    """Whether a broker delivers `topic` to the subscription `filter_` (without `$share`)."""
    wanted, given = filter_.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(given) or level not in ("+", given[place]):
            return False
    return len(wanted) == len(given)


def choose(
    template: str, key_expression: str | None, *, topic: str | None, key: str | None, subject: object = None
) -> str:
    """The topic of an event that somebody makes by hand: the one named, else the template with the key in its place,
    else the topic that the event came on (a dead letter's subject). Raises UsageError.
    """
    fits = topic_filter(template)
    if topic is not None:
        if not matches(fits, topic):
            raise UsageError(f"the trigger does not subscribe to topic {topic!r}", hint=f"its topic: {template}")
        return topic
    filled = _filled(template, key_expression, key)
    if filled is not None:
        return filled
    if isinstance(subject, str) and matches(fits, subject):
        return subject
    raise UsageError(
        f"the topic {template} has a level that the event does not give",
        hint="give the event's key if that is the level, else the whole topic",
    )


def _filled(template: str, key_expression: str | None, key: str | None) -> str | None:
    """None: it has levels that the key is not."""
    levels = template.split("/")
    for place, level in enumerate(levels):
        if level in ("+", "#"):
            return None
        if not level.startswith("{"):
            continue
        if key is None or key_expression != f"topic.{level[1:-1]}":
            return None
        if any(sign in key for sign in "+#/\0"):
            raise UsageError(
                f"the key {key!r} is no level of a topic: '+', '#' and '/' have a meaning of their own there"
            )
        levels[place] = key
    return "/".join(levels)


def output_problems(template: str) -> Found:
    """All that is wrong with an output's topic."""
    if not template:
        yield "the topic is empty", "write e.g. vehicles/{key}/alerts"
        return
    yield from _text_problems(template)
    if template.startswith("$"):
        yield f'"{template}" begins with "$"', "such topics are the broker's own"
    rest = template.replace("{key}", "")
    if "{" in rest or "}" in rest:
        yield f'"{template}" has braces that are not {{key}}', "{key} is the event's key; nothing else is filled in"
    if "+" in rest or "#" in rest:
        yield f'"{template}" has a wildcard', "an event goes to one topic; use {key}"


def needs_key(template: str) -> bool:
    return "{key}" in template


def output_topic(template: str, key: str | None) -> str:
    """The topic of an event. Raises ValueError, saying why there is none."""
    if not needs_key(template):
        return template
    if key is None:
        raise ValueError(f'topic "{template}" needs a key, and the event has none')
    if (wrong := next((sign for sign in "+#/\0" if sign in key), None)) is not None:
        raise ValueError(f'the key "{key[:60]}" holds {wrong!a}, which has a meaning of its own in topics')
    topic = template.replace("{key}", key)
    if len(topic.encode()) > LIMIT:
        raise ValueError(f"the topic is longer than {LIMIT} bytes: {topic[:60]}...")
    return topic
