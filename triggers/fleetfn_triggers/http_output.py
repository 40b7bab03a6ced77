"""The http output: events are sent to a URL. Its fields, and what may not stand in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fleetfn_triggers.fields import Strict
from fleetfn_triggers.secret import Secret


class HttpOutput(Strict, frozen=True):
    """Events are sent as binary CloudEvents, each in a request of its own, in order per key. 2xx is success; 401, 407,
    408, 425, 429, 5xx and silence are waited out; any other answer, a redirect too, refuses the event for good.
    """

    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^\s/?#]+([/?][^\s#]*)?$",
            description="Where events go.",
            examples=["https://alerts.example/vehicles"],
            extra={"form": "http://host/path or https://host/path"},
        ),
    ]
    method: Annotated[Literal["POST", "PUT"], Meta(description="HTTP method.", examples=["PUT"])] = "POST"
    headers: Annotated[
        dict[str, str | Secret],
        Meta(
            description="Headers of each request; secrets by reference.",
            examples=[{"authorization": {"env": "ALERTS_TOKEN"}}],
        ),
    ] = msgspec.field(default_factory=dict)
    timeout: Annotated[
        float, Meta(description="Seconds until a request has failed.", examples=[5], ge=0.01, le=300)
    ] = 10.0


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS = frozenset({"content-length", "content-type", "transfer-encoding", "connection", "host", "te", "upgrade"})


def problems(output: HttpOutput) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(field, message, hint) of what the types do not say."""
    if not output.url.isascii():
        yield ("url",), f'"{output.url}" is not ASCII', "percent-encode the path, and write the host in punycode"
    elif (wrong := _wrong_place(output.url)) is not None:
        yield ("url",), *wrong
    for name, value in output.headers.items():
        at = ("headers", name)
        if not _NAME.fullmatch(name):
            yield at, f'"{name}" is no name of a header', "write letters, digits and '-'"
        elif name.lower() in _OURS or name.lower().startswith("ce-"):
            yield at, f'"{name}" is set for each event', "leave it out"
        elif isinstance(value, str) and not _VALUE.fullmatch(value):
            yield at, "the value is not printable ASCII", "percent-encode it, or quote it as its receiver expects"


def _wrong_place(url: str) -> tuple[str, str] | None:
    """The URL is not quoted: what stands before an @ is a secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return f"no URL: {error}", "write http://host:port/path"
    if "@" in parts.netloc:
        return "a user or password stands in the URL", "send it as a header: {authorization: {env: NAME}}"
    return None if parts.hostname else ("the URL names no host", "write http://host/path")


def shown_url(url: str) -> str:
    """For messages: without what may be secret, the query and what stands before an @."""
    base, query, _ = url.partition("?")
    scheme, mark, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}{'?...' if query else ''}"
