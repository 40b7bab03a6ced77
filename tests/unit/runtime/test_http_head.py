"""A head is found in bytes and read strictly."""

import contextlib

import httptools
import pytest
from fleetfn_runtime import http_head
from fleetfn_runtime.http_head import HEAD_LIMIT, HeadError, read, segments, skipped
from hypothesis import given
from hypothesis import strategies as st

GOOD = b"POST /battery/LFV1?full=1 HTTP/1.1\r\nHost: node\r\nContent-Length: 5\r\nX-A: 1\r\nx-a: 2\r\n\r\nhello"


def test_a_head_is_read_with_what_follows_left_alone():
    head = read(GOOD)
    assert (head.method, head.raw_path, head.query, head.http11) == ("POST", "/battery/LFV1", "full=1", True)
    assert head.headers == {"host": "node", "content-length": "5", "x-a": "1, 2"}
    assert (head.length, head.chunked, head.keep_alive, head.expects) == (5, False, True, False)
    assert GOOD[head.size :] == b"hello"


def test_a_head_that_is_not_all_there_is_waited_for():
    end = GOOD.index(b"\r\n\r\n") + 4
    assert all(read(GOOD[:cut]) is None for cut in range(end))


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        pytest.param(b"/", "/", "", id="root"),
        pytest.param(b"/a?b=c?d", "/a", "b=c?d", id="second question mark"),
        pytest.param(b"/a?", "/a", "", id="empty query"),
        pytest.param(b"http://node:8080/a/b?c", "/a/b", "c", id="url"),
        pytest.param(b"http://node", "/", "", id="url without a path"),
        pytest.param(b"http://node?x=1", "/", "x=1", id="url with a query alone"),
    ],
)
def test_targets(raw, path, query):
    head = read(b"GET " + raw + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (head.raw_path, head.query) == (path, query)


@pytest.mark.parametrize(
    ("lines", "status", "words"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", 400, "Host", id="no host"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n", 400, "twice", id="two hosts"),
        pytest.param(b"GET / HTTP/2.0\r\nhost: a\r\n", 505, "HTTP/2.0", id="http2"),
        pytest.param(b"PRI * HTTP/2.0\r\n", 505, "HTTP/2.0", id="http2 preface"),
        pytest.param(b"GET /\r\n", 400, "request line", id="http 0.9"),
        pytest.param(b"GET  / HTTP/1.1\r\n", 400, "request line", id="two spaces"),
        pytest.param(b"GET /a b HTTP/1.1\r\nhost: a\r\n", 400, "request line", id="space in target"),
        pytest.param(b"GET /\xc3\xa4 HTTP/1.1\r\nhost: a\r\n", 400, "request line", id="bytes in target"),
        pytest.param(b"GET /a#b HTTP/1.1\r\nhost: a\r\n", 400, "target", id="fragment"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n", 400, "target", id="connect"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx : 1\r\n", 400, "name", id="space before the colon"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\naccept\r\n", 400, "colon", id="known name without a colon"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\n folded\r\n", 400, "colon", id="folded line"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: a\x00b\r\n", 400, "control", id="nul"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: a\nb: c\r\n", 400, "CR LF", id="bare line feed"),
        pytest.param(b"GET / HTTP/1.1\r\nhost: a\r\nx: a\rb: c\r\n", 400, "CR LF", id="bare carriage return"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
            400,
            "both",
            id="length and chunked",
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n", 400, "twice", id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n", 400, "number", id="signed length"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n", 400, "number", id="list of lengths"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n", 400, "number", id="empty length"),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n", 501, "gzip", id="other coding"
        ),
        pytest.param(
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            501,
            "chunked, chunked",
            id="chunked twice",
        ),
        pytest.param(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n", 400, "chunked", id="chunked in 1.0"),
        pytest.param(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\n", 417, "tea", id="other expectation"),
    ],
)
def test_what_is_refused(lines, status, words):
    with pytest.raises(HeadError) as refused:
        read(lines + b"\r\n")
    assert refused.value.status == status
    assert words in refused.value.reason


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00", 400, id="tls"),
        pytest.param(b"GET / HTTP/1.1\nhost: a\n\n", 400, id="line feeds alone"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"a" * HEAD_LIMIT, 431, id="endless header"),
    ],
)
def test_what_cannot_become_a_head_is_not_waited_for(begun, status):
    with pytest.raises(HeadError) as refused:
        read(begun)
    assert refused.value.status == status


def test_a_head_of_exactly_the_limit_is_taken_and_one_byte_more_is_not():
    frame = b"GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n"
    fits = frame.replace(b"x: ", b"x: " + b"a" * (HEAD_LIMIT - len(frame)))
    assert read(fits).size == HEAD_LIMIT
    with pytest.raises(HeadError) as refused:
        read(fits.replace(b"x: ", b"x: a"))
    assert refused.value.status == 431


def test_more_headers_than_the_limit_are_refused():
    lines = b"".join(b"x%d: 1\r\n" % number for number in range(http_head.HEADERS_LIMIT))
    with pytest.raises(HeadError) as refused:
        read(b"GET / HTTP/1.1\r\nhost: a\r\n" + lines + b"\r\n")
    assert refused.value.status == 431


@pytest.mark.parametrize(
    ("head", "keeps"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
    ],
)
def test_who_keeps_the_connection(head, keeps):
    assert read(head).keep_alive is keeps


def test_empty_lines_before_a_request_are_skipped():
    assert skipped(b"\r\n\r\nGET") == b"GET"
    assert skipped(b"GET\r\n") == b"GET\r\n"


def test_a_path_is_decoded_once_after_it_was_split():
    assert segments("/battery/LFV%201%2F2/%2541") == ("battery", "LFV 1/2", "%41")
    assert segments("/%C3%A4") == ("ä",)


@pytest.mark.parametrize("path", ["/a/../b", "/a/%2e%2E/b", "/./a", "/%00", "/%zz", "/%", "/%ff", "/a%0Ab"])
def test_paths_that_lead_elsewhere_are_refused(path):
    with pytest.raises(HeadError) as refused:
        segments(path)
    assert refused.value.status == 400


class _Seen:
    """What httptools makes of the same bytes."""

    def __init__(self, raw: bytes) -> None:
        self.url, self.headers, self.complete = b"", [], False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.feed_data(raw)

    def on_url(self, url):
        self.url += url

    def on_header(self, name, value):
        self.headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_headers_complete(self):
        self.complete = True


TOKEN = st.text("abcXYZ019-_.!~", min_size=1, max_size=12)
VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
TARGET = st.text("abc/%20?=&.-~:@", max_size=30).map(lambda text: f"/{text}")
RESERVED = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade"}


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
    target=TARGET,
    headers=st.dictionaries(TOKEN.filter(lambda name: name.lower() not in RESERVED), VALUE, max_size=8),
    space=st.sampled_from(["", " ", "  ", "\t"]),
)
def test_what_is_taken_is_what_httptools_sees(method, target, headers, space):
    lower = {name.lower(): value for name, value in headers.items()}
    lines = "".join(f"{name}:{space}{value}{space}\r\n" for name, value in lower.items())
    raw = f"{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode()
    head = read(raw)
    seen = _Seen(raw)
    assert head.method.encode() == seen.parser.get_method()
    assert f"{head.raw_path}?{head.query}" == (target if "?" in target else f"{target}?")
    assert head.headers == {name: value.rstrip(" \t") for name, value in seen.headers}
    assert head.size == len(raw)


@given(st.binary(max_size=200).map(lambda rest: b"POST /a HTTP/1.1\r\nhost: x\r\n" + rest + b"\r\n\r\n"))
def test_strict_reading_takes_nothing_that_httptools_refuses(raw):
    try:
        head = read(raw)
    except HeadError:
        return
    assert head is not None
    if "upgrade" in head.headers:
        return
    assert _Seen(raw[: head.size]).complete
    assert _Seen(raw[: head.size]).headers == [] or head.headers["host"] == "x"


ODD = st.sampled_from([*[""] * 20, *"a:?#% \t\r\n\x00\x85\xa0\xb2"])
LINE = st.builds(
    "{}:{}{}{}".format, st.sampled_from(["Host", "accept", "ce-id"]), st.sampled_from(["", " "]), ODD, VALUE
)


@given(first=st.builds("{} {}{} HTTP/1.1".format, st.sampled_from(["GET", "FOO"]), TARGET, ODD), rest=st.lists(LINE))
def test_a_plain_head_is_what_the_exact_way_of_reading_makes_of_it(first, rest):
    lines = "\r\n".join([first, *rest]).split("\r\n")
    plain = http_head._plain(lines)
    if plain is not None:
        exact = http_head._request_line(lines[0])
        exact.headers = http_head._headers(lines[1:])
        assert all(getattr(plain, name) == getattr(exact, name) for name in http_head.Head.__slots__)
        assert http_head.is_plain("\r\n".join(lines).encode("latin-1"), len(lines) - 1)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_an_error_or_waited_for(raw):
    with contextlib.suppress(HeadError):
        head = read(skipped(raw))
        assert head is None or head.size <= len(raw)
