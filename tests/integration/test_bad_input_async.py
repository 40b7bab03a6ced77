"""Asynchronous requests as callers get them wrong: odd Prefer headers, repeats at once, too much, at the wrong time."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from bad_input import client, states, trigger
from kafka_broker import eventually
from machine import Machine
from running_node import write_function

pytestmark = [pytest.mark.node]

CODE = """
from dataclasses import dataclass

from fleetfn import Reject, Request, State


@dataclass
class Number:
    n: int


def count(number: Number, seen: State[list[int]]) -> list[int]:
    seen.value.append(number.n)
    return seen.value


def whole(request: Request, seen: State[list[int]]) -> None:
    seen.value.append(len(request.body))


def exact(number: Number) -> int:
    raise Reject("never")
"""

SPEC = """
handler: handler:count
retry: {attempts: 2, initial: 10ms, max: 20ms}
scale: {idle: 60s}
triggers:
- {name: ask, key: path.vehicle, http: {path: "/count/{vehicle}"}}
- {name: header, key: header.vin, http: {path: /header}}
- {name: whole, handler: "handler:whole", key: path.vehicle, http: {path: "/whole/{vehicle}", methods: [POST, GET]}}
- {name: exact, handler: "handler:exact", key: null, http: {path: /exact}}
"""

ASYNC = {"prefer": "respond-async"}
JSON = {"content-type": "application/json"}


class Desk:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def ask(
        self, path: str, body: bytes = b"", method: str = "POST", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.machine.port, timeout=30)
        try:
            connection.request(method, path, body, {**JSON, **headers})
            reply = connection.getresponse()
            said = reply.read()
            headers = {name.lower(): value for name, value in reply.getheaders()}
            return reply.status, headers, json.loads(said) if said else None
        finally:
            connection.close()

    def raw(self, request: bytes) -> bytes:
        """The status line and whatever else comes until the node closes."""
        with socket.create_connection(("127.0.0.1", self.machine.port), timeout=30) as wire:
            wire.sendall(request)
            wire.shutdown(socket.SHUT_WR)
            answer = b""
            while block := wire.recv(65536):
                answer += block
            return answer

    def seen(self, key: str) -> Any:
        return states(self.machine, "desk").get(key, [])

    def rest(self) -> None:
        """Until nothing waits any more."""
        eventually(lambda: all(each.waiting == 0 for each in client(self.machine).function("desk").triggers))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    machine = Machine(tmp_path_factory.mktemp("async"))
    machine.fn("deploy", str(write_function(machine.folder / "desk", CODE, SPEC, name="desk")))
    yield Desk(machine)
    machine.run("down")


PREFER = {
    "as it is": ("respond-async", 202),
    "in capitals": ("Respond-Async", 202),
    "with a wait": ("wait=5, respond-async", 202),
    "with a parameter": ("respond-async;x=1, return=minimal", 202),
    "with a value": ('respond-async="1"', 202),
    "with spaces": ("  respond-async  ,", 202),
    "within a quoted text": ('note="a, respond-async"', 200),
    "another word": ("respond-asynchronously", 200),
    "a typing error": ("respond_async", 200),
    "a quote that never ends": ('note="respond-async', 200),
    "nothing": ("", 200),
    "commas alone": (",,,", 200),
    "very long": ("x=" + "y" * 4000, 200),
}


@pytest.mark.parametrize(("prefer", "status"), PREFER.values(), ids=PREFER)
def test_what_a_prefer_header_asks_for(desk: Desk, prefer: str, status: int) -> None:
    key = f"P{list(PREFER.values()).index((prefer, status))}"
    found, headers, body = desk.ask(f"/count/{key}", b'{"n": 1}', prefer=prefer)
    assert found == status
    assert ("preference-applied" in headers) == (status == 202)
    assert ("sequence" in body) if status == 202 else (body == [1])
    eventually(lambda: desk.seen(key) == [1])


def test_two_prefer_headers_are_one_list(desk: Desk) -> None:
    answer = desk.raw(
        b"POST /count/two HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=1\r\n"
        b'Prefer: respond-async\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{"n": 4}'
    )
    assert answer.startswith(b"HTTP/1.1 202 ")
    eventually(lambda: desk.seen("two") == [4])


def test_the_same_idempotency_key_sent_at_once_by_many_runs_once(desk: Desk) -> None:
    def one(_: int) -> tuple[int, int]:
        status, _, body = desk.ask("/count/same", b'{"n": 9}', **ASYNC, **{"idempotency-key": "order-1"})
        return status, body["sequence"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(48)))
    assert {status for status, _ in answers} == {202}
    assert len({sequence for _, sequence in answers}) == 1
    eventually(lambda: desk.seen("same") == [9])
    assert one(0) == answers[0]
    desk.rest()
    assert desk.seen("same") == [9]


def test_a_body_that_no_handler_takes_is_a_dead_letter_with_the_whole_of_it(desk: Desk) -> None:
    bodies = {b'{"n": ': "not JSON", b'{"n": "x"}': "$.n", b"": "empty", b'{"n": 1}\xff': "JSON"}
    sequences = {body: desk.ask("/count/bad", body, **ASYNC) for body in bodies}
    assert {status for status, _, _ in sequences.values()} == {202}
    node = client(desk.machine)
    eventually(lambda: len(node.dead(function="desk", key="bad")) == len(bodies))
    letters = {each.sequence: each for each in node.dead(function="desk", key="bad")}
    for body, (_, _, told) in sequences.items():
        letter = letters[told["sequence"]]
        assert letter.reason == "unreadable"
        assert bodies[body] in letter.detail, letter
        assert (letter.event.data or b"") == body
    assert desk.seen("bad") == []


def test_a_request_without_a_key_is_refused_at_once(desk: Desk) -> None:
    status, _, body = desk.ask("/header", b'{"n": 1}', **ASYNC)
    assert status == 400
    assert "header.vin is missing" in json.dumps(body)
    assert desk.ask("/header", b'{"n": 1}', **ASYNC, vin="H1")[0] == 202
    eventually(lambda: desk.seen("H1") == [1])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/count/m", 405), ("POST", "/nowhere", 404), ("GET", "/whole/get", 202), ("POST", "/whole/post", 202)],
    ids=["no method", "no path", "GET", "an empty body"],
)
def test_what_is_not_there_is_refused_as_ever(desk: Desk, method: str, path: str, status: int) -> None:
    assert desk.ask(path, b"", method, **ASYNC)[0] == status
    if status == 202:
        eventually(lambda: desk.seen(path.rpartition("/")[2]) == [0])


def test_a_body_that_is_too_large_is_refused_and_leaves_nothing_behind(desk: Desk) -> None:
    desk.rest()  # what other tests left may wait still
    assert desk.ask("/whole/big", b"x" * 1_000_000, **ASYNC)[0] == 202
    assert desk.ask("/whole/big", b"x" * 1_100_000, **ASYNC)[0] == 413
    head = b"POST /whole/big HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Length: 99999999999\r\n\r\n"
    assert desk.raw(head).startswith(b"HTTP/1.1 413 ")
    cut = b"POST /whole/cut HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Length: 100\r\n\r\nhalf"
    assert not desk.raw(cut).startswith(b"HTTP/1.1 2")
    eventually(lambda: desk.seen("big") == [1_000_000])
    desk.rest()
    assert trigger(desk.machine, "desk", "whole").waiting == 0
    assert desk.seen("cut") == []


def test_a_request_that_is_rejected_tells_its_caller_nothing_and_is_a_dead_letter(desk: Desk) -> None:
    status, _, told = desk.ask("/exact", b'{"n": 1}', **ASYNC)
    assert status == 202
    node = client(desk.machine)
    eventually(lambda: node.dead(function="desk", trigger="exact"))
    (letter,) = node.dead(function="desk", trigger="exact")
    assert (letter.sequence, letter.reason, letter.detail) == (told["sequence"], "rejected", "never")


def test_many_callers_at_once_are_all_kept_in_order_per_key(desk: Desk) -> None:
    def car(vehicle: int) -> list[int]:
        taken = []
        connection = http.client.HTTPConnection("127.0.0.1", desk.machine.port, timeout=30)

        def ask(n: int) -> bool:
            headers = {**JSON, **ASYNC, "idempotency-key": str(n)}  # one that is answered with 503 may be kept
            connection.request("POST", f"/count/C{vehicle}", b'{"n": %d}' % n, headers)
            reply = connection.getresponse()
            reply.read()
            return reply.status == 202

        for n in range(40):
            eventually(lambda n=n: ask(n))
            taken.append(n)
        connection.close()
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(car, range(8)))
    eventually(lambda: [desk.seen(f"C{vehicle}") for vehicle in range(8)] == taken)
    assert sum(map(len, taken)) == 320


def test_while_the_gateway_is_away_callers_are_told_to_come_again_and_nothing_is_half_done(desk: Desk) -> None:
    (gateway,) = desk.machine._below("fleetfn_gateway")
    desk.ask("/count/away", b'{"n": 0}')
    gateway.suspend()
    try:
        status, headers, body = desk.ask("/count/away", b'{"n": 1}', **ASYNC, **{"idempotency-key": "a"})
        assert (status, headers["retry-after"]) == (503, "5")
        assert "send it again later" in body["hint"]
        assert desk.ask("/count/away", b'{"n": 2}')[0] == 200
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):  # the node may have ended it
            gateway.resume()
    eventually(lambda: _gateways(desk.machine))
    eventually(lambda: desk.ask("/count/away", b'{"n": 1}', **ASYNC, **{"idempotency-key": "a"})[0] == 202)
    eventually(lambda: sorted(desk.seen("away")) == [0, 1, 2])
    desk.rest()
    assert sorted(desk.seen("away")) == [0, 1, 2]


def _gateways(machine: Machine) -> list[psutil.Process]:
    return machine._below("fleetfn_gateway")
