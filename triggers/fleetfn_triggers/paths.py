"""Path templates of HTTP triggers: `/battery/{vehicle}`.

A segment is either fixed or one `{name}`. Of two templates that match a path, the one that has a fixed segment where
the other has a name wins, from left to right; so only templates of equal shape clash.
"""

from __future__ import annotations

import re

_FIXED = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_NAMED = re.compile(r"\{([a-z_][a-z0-9_]*)\}")

RESERVED = "/-/"
"""FleetFn's own paths (health, metrics)."""


def problems(template: str) -> list[tuple[str, str]]:
    """(message, hint) for all that is wrong with a template."""
    if not template.startswith("/"):
        return [(f'"{template}" does not begin with "/"', f'write "/{template}"')]
    if template == "/-" or template.startswith(RESERVED):
        return [(f'"{template}" begins with "{RESERVED}", which is FleetFn\'s own', "choose another first segment")]
    found: list[tuple[str, str]] = []
    if template == "/":
        return found
    for segment in template[1:].split("/"):
        if not segment:
            found.append((f'"{template}" has an empty segment', "write single slashes, and none at the end"))
        elif segment in (".", ".."):
            found.append((f'"{template}" has a segment "{segment}", which clients resolve themselves', "leave it out"))
        elif "{" in segment or "}" in segment:
            if not _NAMED.fullmatch(segment):
                hint = "a segment is fixed or one {name} of lower-case letters, digits and '_'"
                found.append((f'"{segment}" is no {{name}}', hint))
        elif not _FIXED.fullmatch(segment):
            found.append((f'"{segment}" holds characters that a path cannot', "percent-encoding is not taken here"))
    found.extend(
        (f'the name "{name}" stands twice in "{template}"', "give each {name} its own")
        for name in dict.fromkeys(names(template))
        if names(template).count(name) > 1
    )
    return found


def names(template: str) -> list[str]:
    """The `{name}` parts, from left to right."""
    return [match[1] for segment in template.split("/") if (match := _NAMED.fullmatch(segment))]


def shape(template: str) -> str:
    """The template without its names: two of equal shape match the same paths."""
    return "/".join("{}" if _NAMED.fullmatch(segment) else segment for segment in template.split("/"))
