"""A decoded dataclass holds its defaults itself, wherever in a value it is: encoding keeps them."""

from dataclasses import dataclass, field
from typing import TypedDict

import msgspec
import pytest
from fleetfn.filling import filler
from fleetfn.values import Codec, encode


@dataclass
class Cell:
    number: int
    volts: float = 3.7


@dataclass(frozen=True)
class Fixed:
    a: int = 1


@dataclass(slots=True)
class Slotted:
    cell: Cell
    a: int = 1


@dataclass
class Pack:
    level: int = 0
    cells: list[Cell] = field(default_factory=list)
    spare: Cell | None = None
    next: "Pack | None" = None


class Struct(msgspec.Struct):
    cell: Cell
    a: int = 1


class Entry(TypedDict, total=False):
    cell: Cell


@pytest.mark.parametrize(
    ("type_", "data", "whole"),
    [
        (Cell, b'{"number":1}', b'{"number":1,"volts":3.7}'),
        (Fixed, b"{}", b'{"a":1}'),
        (Slotted, b'{"cell":{"number":1}}', b'{"cell":{"number":1,"volts":3.7},"a":1}'),
        (Struct, b'{"cell":{"number":1}}', b'{"cell":{"number":1,"volts":3.7},"a":1}'),
        (list[Cell], b'[{"number":1}]', b'[{"number":1,"volts":3.7}]'),
        (dict[str, Cell], b'{"x":{"number":1}}', b'{"x":{"number":1,"volts":3.7}}'),
        (tuple[int, Cell], b'[7,{"number":1}]', b'[7,{"number":1,"volts":3.7}]'),
        (Entry, b'{"cell":{"number":1}}', b'{"cell":{"number":1,"volts":3.7}}'),
        (Cell | None, b"null", b"null"),
        (Cell | list[Cell], b'[{"number":1}]', b'[{"number":1,"volts":3.7}]'),
    ],
    ids=str,
)
def test_defaults_survive_decoding_and_encoding(type_, data, whole):
    assert encode(Codec(type_).decode(data)) == whole


def test_a_class_inside_of_itself_is_completed_all_the_way_down():
    value = Codec(Pack).decode(b'{"cells":[{"number":1}],"next":{"spare":{"number":2},"next":{}}}')
    inner = b'{"level":0,"cells":[],"spare":null,"next":null}'
    spare = b'{"number":2,"volts":3.7}'
    last = b'{"level":0,"cells":[],"spare":' + spare + b',"next":' + inner + b"}"
    assert msgspec.json.decode(encode(value)) == msgspec.json.decode(
        b'{"level":0,"cells":[{"number":1,"volts":3.7}],"spare":null,"next":' + last + b"}"
    )


@pytest.mark.parametrize("type_", [int, dict, list[str], msgspec.Raw, dict[str, int] | None], ids=str)
def test_types_without_dataclasses_cost_nothing(type_):
    assert filler(type_) is None
