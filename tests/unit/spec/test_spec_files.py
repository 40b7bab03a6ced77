"""Files that are no YAML, or not there at all."""

from itertools import pairwise
from pathlib import Path

import pytest
from fleetfn_spec import yaml_nodes
from fleetfn_spec.load import load_function
from fleetfn_spec.problems import SpecError


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def told(folder: str = ".") -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_function(Path(folder))
    return [str(each) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "1:1: is empty; begin with apiVersion and kind", id="empty"),
        pytest.param(b"# nothing\n", "1:1: is empty; begin with apiVersion and kind", id="comment only"),
        pytest.param(b"\xef\xbb\xbf", "1:1: is empty; begin with apiVersion and kind", id="byte order mark only"),
        pytest.param("kind: Function".encode("utf-16"), "1:1: is UTF-16; save it as UTF-8", id="UTF-16"),
        pytest.param(
            b"kind: Function\nname: caf\xe9\n", "2:10: the byte 0xe9 is not UTF-8; save the file as UTF-8", id="Latin-1"
        ),
        pytest.param(
            b"a: 1\nb: \x07\n",
            "2:4: the character U+0007 may not stand in YAML; remove it, or write it as an escape in quotes",
            id="bell",
        ),
        pytest.param(
            "a: 1\nb: x\u2028y\n".encode(),
            "2:5: the character U+2028 may not stand in YAML; remove it, or write it as an escape in quotes",
            id="line separator",
        ),
        pytest.param(b"a: 1\n\tb: 2\n", "2:1: a tab where YAML wants spaces; indent with spaces", id="tab"),
        pytest.param(
            b"a:\n  b: 1\n \tc: 2\n", "3:2: a tab where YAML wants spaces; indent with spaces", id="tab after a space"
        ),
        pytest.param(b"just text", '1:1: the text "just text" where a block of keys is expected', id="text"),
        pytest.param(b"- a\n- b\n", "1:1: a list where a block of keys is expected", id="list"),
        pytest.param(b"null", "1:1: is empty; give it apiVersion, kind, metadata, spec", id="null"),
        pytest.param(
            b"a: {b: 1\nc: 2\n",
            "2:2: not YAML: expected ',' or '}', but got ':', while parsing a flow mapping that begins in line 1; "
            "check indentation and brackets; text with ': ', ' #' or braces needs quotes",
            id="open brace",
        ),
        pytest.param(
            b"a: b: c\n",
            "1:5: not YAML: mapping values are not allowed here; "
            "check indentation and brackets; text with ': ', ' #' or braces needs quotes",
            id="colon in text",
        ),
        pytest.param(
            b'a: "b\n',
            "2:1: not YAML: found unexpected end of stream, while scanning a quoted scalar that begins in line 1; "
            "check indentation and brackets; text with ': ', ' #' or braces needs quotes",
            id="open quote",
        ),
        pytest.param(
            b"a: " + b"[" * 100_000, "1:53: more than 50 blocks within one another; nest less", id="nested without end"
        ),
    ],
)
def test_says_what_is_wrong_with_the_file(content: bytes, expected: str) -> None:
    Path("function.yaml").write_bytes(content)
    assert told()[0] == f"function.yaml:{expected}"


def test_a_missing_file_lists_what_is_there() -> None:
    Path("handler.py").touch()
    Path("data").mkdir()
    assert told() == ["function.yaml: is not there; the folder holds data/, handler.py; `fn new NAME` makes a function"]


def test_an_empty_folder_says_so() -> None:
    assert told() == ["function.yaml: is not there; the folder holds nothing; `fn new NAME` makes a function"]


def test_another_ending_is_named() -> None:
    Path("function.yml").touch()
    assert told() == ["function.yaml: is not there; rename function.yml"]


def test_a_missing_folder_says_so() -> None:
    assert told("nowhere") == ["nowhere: there is no such folder; `fn new NAME` makes a function"]


def test_a_file_for_a_folder_says_so() -> None:
    Path("function.yaml").touch()
    assert told("function.yaml") == ["function.yaml: is a file, not a function's folder; name the folder, ."]


def test_a_folder_named_function_yaml_says_so() -> None:
    Path("function.yaml").mkdir()
    assert told() == ["function.yaml: is a folder; write the YAML into a file of this name"]


def test_a_huge_file_is_not_read() -> None:
    Path("function.yaml").write_bytes(b"#" * (yaml_nodes.SIZE_LIMIT + 1))
    assert told() == ["function.yaml: is longer than 1048576 bytes; is it the right file?"]


def test_the_folder_is_part_of_the_file_s_name() -> None:
    Path("battery").mkdir()
    Path("battery/function.yaml").write_text("kind: Function\n")
    assert told("battery")[0].startswith("battery/function.yaml:1:1: apiVersion: is missing")


def test_a_merge_bomb_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x,x]\n" + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairwise("abcdefghi"))
    Path("function.yaml").write_text(bomb)
    assert 'function.yaml:1:4: the anchor "&a" is not taken; write values out' in told()
