"""What an outcome means to an HTTP caller, and the bytes of a reply."""

import json

import pytest
from fleetfn.http import Response
from fleetfn.invocation import Again, Done, Failure, Rejected
from fleetfn_runtime.http_replies import encoded, of_outcome, problem

CRASH = Failure("KeyError", "'secret of the house'", "handler.py:7", "Traceback ... secret of the house")


@pytest.mark.parametrize(
    ("outcome", "status", "headers", "error"),
    [
        pytest.param(Done(Response(201, b"{}", {"x-a": "1"})), 201, {"x-a": "1"}, None, id="the handler's reply"),
        pytest.param(Done(None), 204, {}, None, id="nothing"),
        pytest.param(Rejected("no such vehicle"), 422, {}, "no such vehicle", id="reject"),
        pytest.param(Rejected("no JSON", status=400), 400, {}, "no JSON", id="unreadable"),
        pytest.param(Again(after=1.2, reason="busy"), 503, {"retry-after": "2"}, "busy", id="retry"),
        pytest.param(Again(), 503, {"retry-after": "1"}, "not now, try again later", id="retry, no time named"),
        pytest.param(
            Again(after=5, reason="kafka-0:9092 is down", counted=False),
            503,
            {"retry-after": "5"},
            "not now, try again later",
            id="an output is down",
        ),
        pytest.param(Again(reason="'secret of the house'", failure=CRASH), 500, {}, "handler failed", id="crash"),
        pytest.param(
            Again(reason="ran", timed_out=True), 504, {}, "the handler ran longer than its timeout", id="timeout"
        ),
    ],
)
def test_outcomes(outcome, status, headers, error):
    response = of_outcome(outcome, "i-7")
    assert response.status == status
    assert response.headers.items() >= headers.items()
    if error is not None:
        assert json.loads(response.body)["error"] == error
        assert b"secret" not in response.body


def test_a_crash_names_the_invocation_to_look_for_in_the_log():
    assert json.loads(of_outcome(Again(failure=CRASH), "i-7").body) == {"error": "handler failed", "invocation": "i-7"}


def test_a_reply_is_one_head_and_its_body():
    raw = encoded(Response(200, b"hello", {"X-A": "1", "content-type": "text/plain"}), keep=True)
    head, _, body = raw.partition(b"\r\n\r\n")
    first, date, *lines = head.split(b"\r\n")
    assert (first, body) == (b"HTTP/1.1 200 OK", b"hello")
    assert date.startswith(b"date: ")
    assert date.endswith(b" GMT")
    assert lines == [b"x-a: 1", b"content-type: text/plain", b"content-length: 5"]


@pytest.mark.parametrize(
    ("keep", "http11", "line"),
    [
        (False, True, b"connection: close"),
        (True, False, b"connection: keep-alive"),
        (False, False, b"connection: close"),
    ],
)
def test_the_client_is_told_what_becomes_of_the_connection(keep, http11, line):
    assert line in encoded(Response(200, b""), keep=keep, http11=http11).split(b"\r\n")


def test_replies_without_a_body_have_none():
    assert encoded(Response(204, b"x"), keep=True).endswith(b"GMT\r\n\r\n")
    assert encoded(Response(304, b"x"), keep=True).endswith(b"GMT\r\n\r\n")
    assert encoded(Response(200, b"hello"), keep=True, bodiless=True).endswith(b"content-length: 5\r\n\r\n")


def test_how_a_message_is_carried_is_not_the_handlers_to_say():
    headers = {"Content-Length": "99", "Transfer-Encoding": "chunked", "connection": "upgrade", "date": "never"}
    raw = encoded(Response(200, b"ok", headers), keep=True)
    assert b"99" not in raw
    assert b"chunked" not in raw
    assert b"upgrade" not in raw
    assert b"never" not in raw


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"", {"x": "a\r\nset-cookie: b"}),
        Response(200, b"", {"x": "a\nb"}),
        Response(200, b"", {"x\r\ny": "a"}),
        Response(200, b"", {"x y": "a"}),
        Response(200, b"", {"": "a"}),
        Response(200, b"", {"x": "\x00"}),
        Response(200, b"", {"x": "ключ"}),
        Response(99, b""),
        Response(101, b""),
        Response(600, b""),
    ],
)
def test_replies_that_cannot_be_sent_are_refused(response):
    with pytest.raises(ValueError):
        encoded(response, keep=True)


def test_a_problem_says_what_and_the_next_step():
    response = problem(503, "paused", "resume it", retry_after=0.2)
    assert json.loads(response.body) == {"error": "paused", "hint": "resume it"}
    assert response.headers["retry-after"] == "1"
