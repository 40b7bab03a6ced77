"""Key expressions: what may be written, and what they find in a payload."""

import pytest
from fleetfn_triggers import data_paths, keys
from fleetfn_triggers.reading import Unreadable

NEITHER = ", neither text nor a whole number"
KAFKA = frozenset({"data", "kafka.key", "header"}) | keys.ATTRIBUTES


@pytest.mark.parametrize(
    ("text", "root", "rest"),
    [
        ("data.vehicle", "data", "vehicle"),
        ("data.frames.0.vin", "data", "frames.0.vin"),
        ("subject", "subject", ""),
        ("source", "source", ""),
        ("partitionkey", "partitionkey", ""),
        ("kafka.key", "kafka.key", ""),
        ("header.X-Vehicle", "header", "x-vehicle"),
    ],
)
def test_reads_expressions(text: str, root: str, rest: str) -> None:
    assert keys.parse(text, KAFKA) == keys.Expression(text, root, rest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "data",
        "data.",
        "data..a",
        "data.a.",
        "header",
        "header.",
        "path.vin",
        "kafka",
        "kafka.offset",
        "type",
        "Subject",
        "topic.x",
    ],
)
def test_refuses_others(text: str) -> None:
    with pytest.raises(keys.ExpressionError) as caught:
        keys.parse(text, KAFKA)
    assert f'"{text}"' in caught.value.message
    assert caught.value.hint


def key_of(payload: bytes, path: str) -> str:
    (value,) = data_paths.compile_paths([tuple(path.split("."))])(payload)
    return keys.key_text(value, f"data.{path}")


@pytest.mark.parametrize(
    ("payload", "path", "key"),
    [
        pytest.param(b'{"vehicle":"v1"}', "vehicle", "v1", id="text"),
        pytest.param(b'{"vehicle":17}', "vehicle", "17", id="whole number"),
        pytest.param(b'{"vehicle":-17}', "vehicle", "-17", id="negative number"),
        pytest.param(
            b'{"vehicle":123456789012345678901234567890}', "vehicle", "123456789012345678901234567890", id="long"
        ),
        pytest.param(b'{"a":{"b":{"c":"v"}}}', "a.b.c", "v", id="nested"),
        pytest.param(b'{"a":[{"b":"x"},{"b":"v"}]}', "a.1.b", "v", id="index"),
        pytest.param(b'[["v"]]', "0.0", "v", id="list at the top"),
        pytest.param(b'{"a":{"0":"v"}}', "a.0", "v", id="number as a name"),
        pytest.param(b'{"vehicle":"x","vehicle":"v"}', "vehicle", "v", id="the last of equal names"),
        pytest.param(b'{"other":{"deep":[1,2,{"x":null}]},"vehicle":"v"}', "vehicle", "v", id="skips the rest"),
        pytest.param('{"vehicle":"粤B12345"}'.encode(), "vehicle", "粤B12345", id="not ASCII"),
        pytest.param(b'{"class":"v","__init__":1}', "class", "v", id="word of Python"),
        pytest.param(b'{"vehicle":"' + b"v" * 1024 + b'"}', "vehicle", "v" * 1024, id="longest"),
    ],
)
def test_finds_keys(payload: bytes, path: str, key: str) -> None:
    assert key_of(payload, path) == key


@pytest.mark.parametrize(
    ("payload", "path", "problem"),
    [
        pytest.param(b"{}", "vehicle", "no key: data.vehicle is missing", id="missing"),
        pytest.param(b'{"a":{}}', "a.b", "no key: data.a.b is missing", id="missing below"),
        pytest.param(b'{"a":"text"}', "a.b", "no key: data.a.b is missing", id="text where a block is"),
        pytest.param(b'{"a":[1]}', "a.1", "no key: data.a.1 is missing", id="beyond the list"),
        pytest.param(b'[{"vehicle":"v"}]', "vehicle", "no key: data.vehicle is missing", id="list"),
        pytest.param(b'"text"', "vehicle", "no key: data.vehicle is missing", id="text alone"),
        pytest.param(b'{"vehicle":null}', "vehicle", "no key: data.vehicle is null", id="null"),
        pytest.param(b'{"vehicle":""}', "vehicle", "no key: data.vehicle is empty", id="empty"),
        pytest.param(b'{"vehicle":1.5}', "vehicle", "no key: data.vehicle is 1.5" + NEITHER, id="fraction"),
        pytest.param(b'{"vehicle":1.0}', "vehicle", "no key: data.vehicle is 1.0" + NEITHER, id="1.0"),
        pytest.param(b'{"vehicle":true}', "vehicle", "no key: data.vehicle is true" + NEITHER, id="true"),
        pytest.param(b'{"vehicle":{"a":1}}', "vehicle", 'no key: data.vehicle is {"a":1}' + NEITHER, id="block"),
        pytest.param(b'{"vehicle":["v"]}', "vehicle", 'no key: data.vehicle is ["v"]' + NEITHER, id="list of keys"),
        pytest.param(
            b'{"vehicle":"' + b"v" * 1025 + b'"}',
            "vehicle",
            "no key: data.vehicle is longer than 1024 bytes",
            id="too long",
        ),
        pytest.param(
            b'{"vehicle":"' + "ü".encode() * 513 + b'"}',
            "vehicle",
            "no key: data.vehicle is longer than 1024 bytes",
            id="too long in bytes",
        ),
    ],
)
def test_says_what_is_there_instead(payload: bytes, path: str, problem: str) -> None:
    with pytest.raises(Unreadable) as caught:
        key_of(payload, path)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    "payload", [b"", b"{", b"\xff", b'{"vehicle":"\xff"}', b"{'vehicle':1}", b'{"vehicle":NaN}', b"{} {}"]
)
def test_says_that_it_is_no_json(payload: bytes) -> None:
    with pytest.raises(data_paths.NotJsonError):
        key_of(payload, "vehicle")


def test_several_paths_are_read_at_once() -> None:
    read = data_paths.compile_paths([("a", "b"), ("ts",), ("a", "c"), ("a", "b")])
    assert read(b'{"a":{"b":1,"c":"x"},"ts":1.5}') == (1, 1.5, "x", 1)
    assert read(b'{"a":{"b":true}}') == (True, data_paths.MISSING, data_paths.MISSING, True)


def test_a_path_through_another_ones_end() -> None:
    read = data_paths.compile_paths([("a",), ("a", "b")])
    assert read(b'{"a":{"b":1}}') == ({"b": 1}, 1)
    assert read(b'{"a":"x"}') == ("x", data_paths.MISSING)
