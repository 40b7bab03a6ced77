"""HTTP callers that send what no handler can take: each gets its status and words, and the next caller is served."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka_broker import eventually
from machine import Machine
from running_node import write_function

pytestmark = pytest.mark.node

CODE = """
import time
from dataclasses import dataclass

from fleetfn import Reject, Retry, State


@dataclass
class Reading:
    vehicle: str
    celsius: float


def watch(reading: Reading, seen: State[int]) -> int:
    seen.value += 1
    return seen.value


def text(body: str) -> str:
    return body


def keep(body: bytes) -> int:
    return len(body)


def fail(reading: Reading) -> None:
    secret = "a word of the handler's own"
    raise ValueError(f"{secret}: {reading.vehicle}")


def slow(reading: Reading) -> None:
    time.sleep(60)


async def sleepy(reading: Reading) -> None:
    import asyncio
    await asyncio.sleep(60)


def refuse(reading: Reading) -> None:
    raise Reject(f"no vehicle {reading.vehicle} is ours")


def later(reading: Reading) -> None:
    raise Retry("the map is loading", after=7)
"""

SPEC = """
handler: handler:watch
retry: {initial: 10ms}
triggers:
- {name: watch, key: data.vehicle, http: {path: /watch}}
- {name: read, handler: "handler:watch", key: path.vehicle, http: {path: "/read/{vehicle}"}}
- {name: text, handler: "handler:text", key: null, http: {path: /text}}
- {name: large, handler: "handler:keep", key: null, http: {path: /large, max_body: 16777216}}
- {name: fail, handler: "handler:fail", key: null, http: {path: /fail}}
- {name: slow, handler: "handler:slow", key: null, timeout: 200ms, http: {path: /slow}}
- {name: sleepy, handler: "handler:sleepy", key: null, timeout: 200ms, http: {path: /sleepy}}
- {name: refuse, handler: "handler:refuse", key: null, http: {path: /refuse}}
- {name: later, handler: "handler:later", key: null, http: {path: /later}}
"""

LIMIT = 60.0
JSON = {"content-type": "application/json"}
GOOD = {"vehicle": "V1", "celsius": 20}
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/car", "ce-type": "reading", **JSON}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("http"))
    folder = write_function(machine.folder / "readings", CODE, SPEC, name="readings")
    machine.fn("deploy", str(folder))
    yield machine
    machine.run("down")


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.text = response.read().decode()
        self.headers = {name.lower(): value for name, value in response.getheaders()}

    @property
    def error(self) -> str:
        said = json.loads(self.text)
        return f"{said['error']}; {said.get('hint', '')}"


def ask(machine: Machine, path: str, body: Any = GOOD, headers: dict[str, str] = JSON, method: str = "POST") -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=LIMIT)
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body), headers)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def serves(machine: Machine) -> None:
    """An event that follows is handled."""
    reply = ask(machine, "/watch", {"vehicle": "after", "celsius": 1})
    assert reply.status == 200, reply.text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"vehicle": "V1", "celsius": 2', "data.vehicle"),
        (b"", "no data"),
        (b"null", "data.vehicle"),
        (b"[1, 2]", "data.vehicle"),
        ({"celsius": 20}, "data.vehicle"),
        ({"vehicle": None, "celsius": 20}, "data.vehicle"),
        ({"vehicle": {"vin": 1}, "celsius": 20}, "data.vehicle"),
        ({"vehicle": "V1", "celsius": "warm"}, "$.celsius"),
        ({"vehicle": "V1"}, "celsius"),
        (b'{"vehicle": "V\xff1", "celsius": 20}', "UTF-8"),
        (b'{"vehicle": "V1", "celsius": NaN}', "JSON"),
    ],
)
def test_data_that_the_handler_cannot_take_is_400_and_says_what(served: Machine, body: Any, said: str) -> None:
    reply = ask(served, "/watch", body)
    assert reply.status == 400, reply.text
    assert said in reply.error
    assert "Traceback" not in reply.text
    serves(served)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/read/V1", b'{"vehicle": "V1", "celsius"', "JSON"),
        ("/read/V1", b'{"vehicle": "V1", "celsius": "\xc3\x28"}', ""),
        ("/read/%FF", GOOD, "UTF-8"),
        ("/read/%zz", GOOD, "%"),
        ("/read/", GOOD, ""),
        ("/text", b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_path_or_body_that_cannot_be_read_is_400(served: Machine, path: str, body: Any, said: str) -> None:
    reply = ask(served, path, body)
    assert reply.status in {400, 404}, reply.text
    assert said in reply.error
    serves(served)


def test_ten_megabytes_are_413_before_they_are_read_and_taken_where_the_trigger_allows(served: Machine) -> None:
    large = b"x" * 10 * 1024 * 1024
    reply = _whole(served, "/watch", large)
    assert reply.status == 413
    assert "1048576 bytes" in reply.error
    assert "max_body" in reply.error
    assert _whole(served, "/large", large).text == str(len(large))
    serves(served)


def test_ten_megabytes_in_chunks_are_413_too(served: Machine) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(160):
            yield b"x" * 65536

    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LIMIT)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the reply comes before the body's end
        connection.request("POST", "/watch", chunks(), JSON, encode_chunked=True)
    reply = Reply(connection.getresponse())
    connection.close()
    assert reply.status == 413
    serves(served)


def _whole(machine: Machine, path: str, body: bytes) -> Reply:
    """Send it all, as clients do that read the reply only afterwards, unless the peer hangs up."""
    connection = http.client.HTTPConnection("127.0.0.1", machine.port, timeout=LIMIT)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", path, body, {"content-type": "application/octet-stream"})
    reply = Reply(connection.getresponse())
    connection.close()
    return reply


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": "application/xml"}, "application/xml"),
        ({"content-type": "application/json; charset=utf-16"}, "utf-16"),
    ],
)
def test_a_body_of_another_content_type_that_is_not_json_is_400_and_names_it(
    served: Machine, headers: dict[str, str], said: str
) -> None:
    reply = ask(served, "/read/V1", "<reading/>".encode("utf-16"), headers)
    assert reply.status == 400, reply.text
    assert said in reply.error
    serves(served)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({**CE, "ce-id": ""}, "id"),
        ({name: value for name, value in CE.items() if name != "ce-type"}, "type"),
        ({name: value for name, value in CE.items() if name != "ce-specversion"}, "specversion"),
        ({**CE, "ce-specversion": "0.3"}, "0.3"),
        ({**CE, "ce-time": "yesterday"}, "yesterday"),
        ({**CE, "ce-source": "%FF"}, "UTF-8"),
        ({**CE, "ce-datacontenttype": "application/json"}, "Content-Type"),
        ({**CE, "ce-bad_name": "x"}, "bad_name"),
    ],
)
def test_a_broken_binary_cloudevent_is_400_and_names_the_attribute(
    served: Machine, headers: dict[str, str], said: str
) -> None:
    reply = ask(served, "/watch", GOOD, headers)
    assert reply.status == 400, reply.text
    assert "not a CloudEvent" in reply.error
    assert said in reply.error
    serves(served)


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"{", "application/cloudevents+json", "JSON"),
        (b"[]", "application/cloudevents+json", "object"),
        ({"specversion": "1.0", "id": "1", "source": "/car"}, "application/cloudevents+json", "type"),
        (
            {"specversion": "1.0", "id": "1", "source": "/car", "type": "t", "data": 1, "data_base64": "AA=="},
            "application/cloudevents+json",
            "data_base64",
        ),
        (
            {"specversion": "1.0", "id": "1", "source": "/car", "type": "t", "data_base64": "???"},
            "application/cloudevents+json",
            "data_base64",
        ),
        ({"specversion": "1.0"}, "application/cloudevents+xml", "application/cloudevents+xml"),
        ({"specversion": "1.0"}, "application/cloudevents+json; charset=utf-16", "utf-16"),
        (b'[{"specversion":"1.0","id":"1","source":"/","type":"t"}]', "application/cloudevents-batch+json", "batch"),
        (b"[{", "application/cloudevents-batch+json", ""),
    ],
)
def test_a_broken_structured_cloudevent_is_400_and_says_what(served: Machine, body: Any, kind: str, said: str) -> None:
    reply = ask(served, "/watch", body, {"content-type": kind})
    assert reply.status == 400, reply.text
    assert said in reply.error
    serves(served)


def test_a_path_that_nobody_serves_is_404_and_a_method_405_naming_those_there_are(served: Machine) -> None:
    reply = ask(served, "/nowhere")
    assert (reply.status, "/nowhere" in reply.error) == (404, True)
    reply = ask(served, "/watch", method="DELETE")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "DELETE" in reply.error
    serves(served)


def test_bytes_that_are_no_request_are_400(served: Machine) -> None:
    for sent in (b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"POST /watch HTTP/2.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT) as connection:
            connection.sendall(sent)
            assert connection.recv(65536).split(b" ")[1] in {b"400", b"505"}
    serves(served)


def test_a_handler_that_raises_is_500_without_its_words_which_the_log_has(served: Machine) -> None:
    reply = ask(served, "/fail", {"vehicle": "V-fails", "celsius": 1})
    assert reply.status == 500
    assert "secret" not in reply.text
    assert "V-fails" not in reply.text
    assert "handler.py" not in reply.text
    assert "Traceback" not in reply.text
    invocation = json.loads(reply.text)["invocation"]
    assert reply.headers["fn-invocation"] == invocation
    eventually(lambda: invocation in served.fn("logs", "readings", "-o", "json"))
    lines = served.fn("logs", "readings", "-o", "json").splitlines()
    (line,) = [line for line in map(json.loads, lines) if line.get("invocation") == invocation]
    assert "a word of the handler's own: V-fails" in line["message"]
    assert "handler.py" in line["traceback"]
    assert served.json("dlq", "list", "readings") == []
    serves(served)


@pytest.mark.parametrize("path", ["/sleepy", "/slow"])
def test_a_handler_that_takes_too_long_is_504(served: Machine, path: str) -> None:
    began = time.monotonic()
    reply = ask(served, path)
    assert reply.status == 504, reply.text
    assert "timeout" in reply.error
    assert time.monotonic() - began < 30  # half of what either takes
    serves(served)


def test_reject_is_422_with_the_handlers_words_and_retry_503_with_its_delay(served: Machine) -> None:
    reply = ask(served, "/refuse")
    assert (reply.status, "no vehicle V1 is ours" in reply.error) == (422, True)
    reply = ask(served, "/later")
    assert (reply.status, reply.headers["retry-after"]) == (503, "7")
    assert served.json("dlq", "list", "readings") == []
    serves(served)


def test_every_refusal_left_the_state_of_its_vehicle_alone(served: Machine) -> None:
    for body in ({"vehicle": "V9", "celsius": "warm"}, {"vehicle": "V9"}, b'{"vehicle": "V9", "celsius": '):
        assert ask(served, "/watch", body).status == 400
    assert ask(served, "/watch", {"vehicle": "V9", "celsius": 1}).text == "1"
