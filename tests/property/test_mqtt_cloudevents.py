"""CloudEvents through MQTT messages and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from fleetfn.cloudevents import mqtt as codec
from fleetfn.event import Event
from hypothesis import given
from hypothesis import strategies as st

text = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff", max_codepoint=0xFFFD),
    min_size=1,
    max_size=20,
).filter(lambda value: not any("\ufdd0" <= character <= "\ufdef" for character in value))
name = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True).filter(
    lambda value: value not in {"id", "source", "type", "subject", "time", "data", "specversion", "datacontenttype",
                                "dataschema"}
)  # fmt: skip
header = st.tuples(st.from_regex(r"[A-Z][a-z]{0,5}-[a-z]{0,5}", fullmatch=True), text.map(str.encode))


def events(extension: st.SearchStrategy[Any], data: st.SearchStrategy[Any]) -> st.SearchStrategy[Event[bytes | None]]:
    return st.builds(
        Event,
        id=text,
        source=text,
        type=text,
        subject=st.none() | text,
        time=st.none() | st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - see timezones
        datacontenttype=st.none() | st.sampled_from(["application/json", "application/octet-stream", "text/plain"]),
        dataschema=st.none() | text,
        extensions=st.dictionaries(name, extension, max_size=3),
        headers=st.lists(header, max_size=3, unique_by=lambda each: each[0]).map(tuple),
        data=data,
    )


@given(events(text, st.none() | st.binary(min_size=1, max_size=50)))
def test_binary_events_come_back_whole(event: Event[bytes | None]) -> None:
    assert codec.decode(*codec.encode_binary(event)) == event


@given(
    events(
        text | st.booleans() | st.integers(-(2**31), 2**31 - 1),
        st.none() | st.recursive(st.booleans() | text, st.lists).map(msgspec.json.encode),
    )
)
def test_structured_events_come_back_without_their_transport_headers(event: Event[bytes | None]) -> None:
    plain = msgspec.structs.replace(event, headers=())
    message = codec.encode_structured(event)
    assert codec.decode(*message) == plain
    # MQTT 3.1.1 has neither content types nor properties
    assert codec.decode(None, (), message.payload) == plain


@given(st.none() | text, st.lists(st.tuples(text, text), max_size=4), st.binary(max_size=60))
def test_a_message_that_does_not_say_so_is_no_cloudevent(
    media: str | None, user: list[tuple[str, str]], payload: bytes
) -> None:
    if (media or "").lower().startswith("application/cloudevents") or "specversion" in dict(user):
        return
    assert codec.decode(media, user, payload) is None
