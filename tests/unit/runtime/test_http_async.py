"""`Prefer: respond-async`: what callers get, what the inbox keeps, and what a handler is given of it later."""

import json

import msgspec
import pytest
from fleetfn.errors import StoreError
from fleetfn.event import Event
from fleetfn_runtime import http_async
from fleetfn_runtime.http_async import Accepting
from fleetfn_triggers.reading import Unreadable
from http_doubles import Client, FakeRoad, ListeningSource, request, trigger

ASYNC = "Prefer: respond-async\r\n"
CLOUDEVENT = "ce-specversion: 1.0\r\nce-id: 7\r\nce-source: /car\r\nce-type: reading\r\n"


class Inbox:
    def __init__(self):
        self.arrivals = []
        self.down = False

    async def put(self, arrivals):
        if self.down:
            raise StoreError("the gateway does not answer")
        self.arrivals.extend(arrivals)
        known = [one.source for one in self.arrivals]
        return [known.index(one.source) + 1 if one.source else len(known) for one in arrivals]


@pytest.fixture
async def inbox():
    return Inbox()


@pytest.fixture
async def road():
    return FakeRoad()


@pytest.fixture
async def source(inbox, road):
    triggers = [
        trigger("/x", methods=("GET", "HEAD", "POST")),
        trigger("/battery/{vehicle}", methods=("POST",), key="data.vehicle"),
    ]
    source = ListeningSource("watch", triggers, road.take, accepting=Accepting("watch", inbox))
    source.listen()
    yield source
    source.close()


@pytest.fixture
async def client(source):
    client = await Client.connect(source.address)
    yield client
    await client.close()


async def test_the_caller_gets_202_once_the_inbox_has_the_request(client, inbox, road, source):
    answer = await client.ask(request("/x", b"hello", headers=ASYNC))
    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
    [arrival] = inbox.arrivals
    assert json.loads(answer.body) == {"id": arrival.event.id, "sequence": 1}
    assert (arrival.function, arrival.trigger, arrival.key, arrival.source) == ("watch", "/x", None, None)
    assert arrival.event.data == b"hello"
    assert not road.taken
    assert (source.in_flight, source.held) == (0, 0)


async def test_a_caller_without_the_preference_waits(client, inbox, road):
    assert (await client.ask(request("/x", b"hello"))).status == 200
    assert (await client.ask(request("/x", b"hello", headers="Prefer: wait=5\r\n"))).status == 200
    assert len(road.taken) == 2
    assert not inbox.arrivals


async def test_a_repeat_has_the_sequence_of_the_first(client, inbox):
    answers = [
        await client.ask(request("/x", b"1", headers=f"{ASYNC}{given}"))
        for given in ("Idempotency-Key: a\r\n", "Idempotency-Key: a\r\n", CLOUDEVENT, CLOUDEVENT)
    ]
    assert [(answer.status, json.loads(answer.body)["sequence"]) for answer in answers] == [
        (202, 1),
        (202, 1),
        (202, 3),
        (202, 3),
    ]
    assert all(len(arrival.source) == 32 for arrival in inbox.arrivals)


async def test_a_name_is_known_per_key(client, inbox):
    answers = [
        await client.ask(
            request(f"/battery/{car}", b'{"vehicle": "%s"}' % car.encode(), headers=f"{ASYNC}Idempotency-Key: a\r\n")
        )
        for car in ("V1", "V2", "V1")
    ]
    assert [json.loads(answer.body)["sequence"] for answer in answers] == [1, 2, 1]


@pytest.mark.parametrize(
    ("body", "headers", "words"),
    [(b'{"car": 1}', "", "no key"), (b"{}", "ce-specversion: 7\r\n", "CloudEvent"), (b"\xff", "", "not JSON")],
    ids=["no key", "no cloudevent", "no json"],
)
async def test_what_can_become_no_run_is_refused_at_once(client, inbox, body, headers, words):
    answer = await client.ask(request("/battery/LFV1", body, headers=ASYNC + headers))
    assert answer.status == 400
    assert words in json.loads(answer.body)["error"]
    assert not inbox.arrivals


async def test_an_inbox_that_takes_nothing_is_a_503_and_the_log_says_why_once(client, inbox, caplog):
    inbox.down = True
    for _ in range(2):
        answer = await client.ask(request("/x", b"1", headers=ASYNC))
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert b"gateway" not in answer.body
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "asynchronous requests get 503: the gateway does not answer"
    ]
    inbox.down = False
    assert (await client.ask(request("/x", b"1", headers=ASYNC))).status == 202


async def test_a_paused_trigger_takes_what_can_wait(client, source):
    source.pause("/x")
    assert (await client.ask(request("/x", b"1"))).status == 503
    assert (await client.ask(request("/x", b"1", headers=ASYNC))).status == 202


async def test_a_worker_without_an_inbox_lets_callers_wait(road):
    source = ListeningSource("watch", [trigger("/x")], road.take)
    client = await Client.connect(source.listen())
    assert (await client.ask(request("/x", b"1", headers=ASYNC))).status == 200
    await client.close()
    source.close()


async def test_what_a_handler_is_given_later_is_what_it_had_got_at_once(client, inbox, road):
    for method, body in (("GET", b""), ("POST", b'{"a":1}'), ("POST", b"")):
        for more in ("", CLOUDEVENT):
            headers = f"X-A: caf\xe9\r\nContent-Type: application/json\r\n{more}"
            for prefer in ("", ASYNC):
                raw = request("/x?q=1&q=%C3%A9&e=", body, method=method)
                head, _, rest = raw.partition(b"\r\n\r\n")
                raw = head + b"\r\n" + (headers + prefer).encode("latin-1") + b"\r\n" + rest
                client.send(raw)
                await client.answer()
            at_once, arrival = road.taken[-1], inbox.arrivals[-1]
            event, seen = http_async.restored(arrival.event)
            headers = {name: value for name, value in seen.headers.items() if name != "prefer"}
            assert msgspec.structs.replace(seen, headers=headers) == at_once.request
            same = {"time": at_once.event.time, "id": at_once.event.id}
            kept = tuple(one for one in event.headers if one[0] != "prefer")
            assert msgspec.structs.replace(event, headers=kept, **same) == at_once.event


async def test_a_structured_event_keeps_its_body_beside_its_data(client, inbox):
    body = b'{"specversion":"1.0","id":"7","source":"/car","type":"reading","data":{"a":1}}'
    headers = f"{ASYNC}content-type: application/cloudevents+json\r\n"
    assert (await client.ask(request("/x", body, headers=headers))).status == 202
    event, seen = http_async.restored(inbox.arrivals[0].event)
    assert (seen.body, event.data) == (body, b'{"a":1}')


async def test_parts_of_the_path_are_kept(client, inbox):
    await client.ask(request("/battery/LFV%201", b'{"vehicle":"LFV 1"}', headers=ASYNC))
    [arrival] = inbox.arrivals
    _, seen = http_async.restored(arrival.event)
    assert (arrival.key, seen.path, seen.path_params) == ("LFV 1", "/battery/LFV 1", {"vehicle": "LFV 1"})


async def test_credentials_are_not_kept(client, inbox):
    await client.ask(request("/x", b"1", headers=f"{ASYNC}Authorization: Bearer secret\r\nCookie: secret\r\n"))
    assert b"secret" not in msgspec.msgpack.encode(inbox.arrivals)


def test_an_event_without_its_request_has_none():
    event = Event(id="1", source="/x", type="t", headers=(("a", b"b"),), data=b"1")
    assert http_async.restored(event) == (event, None)


def test_a_kept_request_that_cannot_be_read_is_a_problem_of_the_event():
    with pytest.raises(Unreadable):
        http_async.restored(Event(id="1", source="/x", type="t", headers=((http_async.KEPT, b"{"),), data=b"1"))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("respond-async", True),
        ("Respond-Async", True),
        ("respond-async, wait=10", True),
        ("wait=10, respond-async", True),
        ("return=minimal; foo=bar, respond-async; x", True),
        (" respond-async ;wait=5", True),
        ('note="a, respond-async"', False),
        (r'note="a\", respond-async", other', False),
        ('note="unclosed, respond-async', False),
        ('note="a", respond-async', True),
        ("respond-asynchronously", False),
        ("wait=respond-async", False),
        ("return=minimal; respond-async", False),
        (", ,", False),
        ("", False),
    ],
)
def test_the_preference_is_read_as_rfc_7240_has_it(given, wanted):
    assert http_async.preferred({"prefer": given}) is wanted


def test_a_long_header_is_read_in_linear_time():
    assert not http_async.preferred({"prefer": '"\\' * 32_000})


def test_a_request_without_preferences_prefers_nothing():
    assert not http_async.preferred({})
