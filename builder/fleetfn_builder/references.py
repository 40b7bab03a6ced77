"""Names of images: `registry.example:5000/team/battery-alert:1.4@sha256:...`, as Docker reads them.

Grammar: https://github.com/distribution/reference (a first part with a dot, a colon, or `localhost` is a host; else
the host is docker.io, and a bare name lies in `library/`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fleetfn.errors import UsageError

HUB = "docker.io"

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """`host` as written (`docker.io` where it is not); `tag` is `latest` where neither tag nor digest is given."""

    host: str
    name: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.name}"

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, or the tag."""
        return self.digest or self.tag or "latest"

    def at(self, digest: str) -> Reference:
        return replace(self, digest=digest)


def parse(text: str) -> Reference:
    """Raises UsageError."""
    rest, _, digest = text.partition("@")
    first, slash, after = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        host, path = first, after
    else:
        host, path = HUB, rest
    name, _, tag = path.partition(":")
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    for what, value, form in (
        ("host", host, _HOST),
        ("name", name, _NAME),
        ("tag", tag, _TAG),
        ("digest", digest, _DIGEST),
    ):
        if (value or what in {"host", "name"}) and not form.fullmatch(value):
            raise UsageError(
                f"{text!r} is no image reference: its {what} {value!r} does not fit",
                hint="registry.example/team/battery-alert:1.4 is one; names are lower-case",
            )
    if text.endswith(("@", ":")):
        raise UsageError(f"{text!r} is no image reference: it breaks off", hint="leave the last character out")
    return Reference(host, name, tag or (None if digest else "latest"), digest or None)
