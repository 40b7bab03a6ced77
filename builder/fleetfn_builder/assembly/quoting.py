"""What of another program's output is shown: its reason, short, and no secrets."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, unquote, urlsplit

_LONG_ENOUGH = 4
"""Characters: a shorter value, a `1` of a switch, is no secret, and hiding it would tear words apart."""

_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")

_BUILD_LINES = 12
"""Of a failed build's own output: the last ones, where compilers and build backends say why."""

_LINES = 30


class Scrubber:
    """Takes secrets out of text: these values, and `user:password@` of any URL."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        values = {form for value in (secrets or {}).values() for form in _forms(value)}
        self._values = sorted((each for each in values if len(each) >= _LONG_ENOUGH), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, "***")
        return _USERINFO.sub("***@", text)


def _forms(value: str) -> Iterable[str]:
    """As it stands, line by line, as a URL writes it, and of a URL the password and the query alone: uv asks an index
    for more than its own address.
    """
    for each in (value, *value.splitlines(), *value.split()):
        yield each.strip()
        yield quote(each.strip(), safe="")
        try:
            url = urlsplit(each)
        except ValueError:
            continue
        yield from filter(None, (url.password, url.query))
        for name_and_value in url.query.split("&") if url.scheme else ():
            written = name_and_value.rpartition("=")[2]
            yield from (written, unquote(written))


def reason(lines: Sequence[str]) -> list[str]:
    """Of uv's output the part that says why: from its error on, a build's own output cut to its end, and no advice on
    flags of uv that its caller has set.
    """
    start = next((at for at, line in enumerate(lines) if line.lstrip().startswith(("error:", "×"))), None)  # noqa: RUF001 - uv writes it
    if start is None:
        return [line for line in lines if line.strip()][-_BUILD_LINES:]
    kept = [re.sub(r"^[\s│]*(?:error: |× |╰─▶ |├─▶ |cause: )?", "", line) for line in lines[start:]]  # noqa: RUF001 - uv's own
    return [line for line in _without_build(kept) if line.strip() and "--no-build" not in line][:_LINES]


def _without_build(lines: list[str]) -> list[str]:
    outputs = [at for at, line in enumerate(lines) if line in {"[stdout]", "[stderr]"}]
    if not outputs:
        return lines
    end = next((at for at, line in enumerate(lines) if line.startswith("hint:")), len(lines))
    return [*lines[: outputs[0]], *lines[outputs[-1] + 1 : end][-_BUILD_LINES:], *lines[end:]]


def space(error: OSError) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free some space on that disk, or name another folder"
    return "the folder must be writable"
