"""A body ends where it says, however it is cut on its way."""

import itertools

import httptools
import pytest
from fleetfn_runtime import http_body, http_head
from fleetfn_runtime.http_body import Chunked, Sized
from fleetfn_runtime.http_head import HeadError
from hypothesis import given
from hypothesis import strategies as st


def fed(body, pieces):
    """(whole body, what comes after it), or None while it is not all there."""
    for number, piece in enumerate(pieces):
        rest = body.feed(piece)
        if rest is not None:
            return body.whole(), rest + b"".join(pieces[number + 1 :])
    return None


def cut(raw, places):
    marks = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(marks)]


CUTS = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.binary(max_size=100), st.binary(max_size=20), CUTS)
def test_a_sized_body_is_the_same_however_it_is_cut(body, after, places):
    assert fed(Sized(len(body), 100), cut(body + after, places)) == (body, after)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.binary(max_size=20), CUTS, st.booleans())
def test_a_chunked_body_is_the_same_however_it_is_cut(chunks, after, places, extras):
    extension, trailer = (b";name=1", b"x-sum: 1\r\n") if extras else (b"", b"")
    raw = (
        b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"
    )
    assert fed(Chunked(1000), cut(raw + after, places)) == (b"".join(chunks), after)


class _Seen:
    def __init__(self):
        self.body, self.complete = b"", False

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.complete = True


@given(st.text("0123af;=\r\nx ", max_size=40))
def test_chunks_that_are_taken_are_what_httptools_sees(text):
    raw = text.encode()
    body = Chunked(1 << 60)
    try:
        rest = body.feed(raw)
    except HeadError:
        return
    if rest is None:  # not at a line's end yet: httptools may know already that it is wrong
        return
    seen = _Seen()
    httptools.HttpRequestParser(seen).feed_data(
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + raw[: len(raw) - len(rest)]
    )
    assert (seen.body, seen.complete) == (body.whole(), True)


@pytest.mark.parametrize(
    "raw",
    [b"g\r\n", b"-1\r\n", b"0x1\r\n", b"1\n", b"\r\n", b"1\r\nab\r\n", b"1\r\naXX", b"0\r\nno trailer\r\n", b"f" * 300],
)
def test_what_is_no_chunk_is_refused(raw):
    with pytest.raises(HeadError) as refused:
        Chunked(1000).feed(raw + b"\r\n\r\n")
    assert refused.value.status == 400


def test_a_body_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(HeadError) as refused:
        Sized(11, 10)
    assert (refused.value.status, "10 bytes" in refused.value.reason) == (413, True)
    with pytest.raises(HeadError) as refused:
        Chunked(10).feed(b"4\r\naaaa\r\n7\r\n")
    assert refused.value.status == 413


def test_many_tiny_chunks_take_time_that_grows_with_their_number_alone():
    body = Chunked(1 << 20)
    piece = b"1\r\na\r\n" * 10_000
    for _ in range(10):
        assert body.feed(piece) is None
    assert len(body.whole()) == 100_000


def test_the_head_says_which_body_follows():
    head = http_head.read(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n")
    assert isinstance(http_body.of(head, 10), Chunked)
    head = http_head.read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert http_body.of(head, 10).feed(b"next") == b"next"
