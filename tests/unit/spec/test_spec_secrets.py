"""References to secrets, and the file that gives a node its environment."""

from pathlib import Path

import msgspec
import pytest
from fleetfn_spec.secrets import SecretError, SecretText, parse_env_file, resolve, resolve_config
from fleetfn_triggers.secret import Secret


def test_an_environment_variable_is_looked_up(tmp_path: Path) -> None:
    assert resolve(Secret(env="PW"), {"PW": "hunter2"}, tmp_path) == "hunter2"


@pytest.mark.parametrize(
    ("content", "value"), [(b"hunter2\n", "hunter2"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"", "")]
)
def test_a_file_is_read_without_the_line_end_at_its_end(tmp_path: Path, content: bytes, value: str) -> None:
    (tmp_path / "pw").write_bytes(content)
    assert resolve(Secret(file="pw"), {}, tmp_path) == value
    assert resolve(Secret(file=str(tmp_path / "pw")), {}, Path("/nowhere")) == value


def test_a_value_does_not_show_itself() -> None:
    value = resolve(Secret(env="PW"), {"PW": "hunter2"}, Path())
    assert repr({"password": value}) == "{'password': '***'}"


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        pytest.param(Secret(env="PW"), "{env: PW}: the environment has no PW", id="variable"),
        pytest.param(Secret(file="x"), "{file: x}: /nowhere/x cannot be read: No such file or directory", id="file"),
        pytest.param(
            Secret(secret="a/b"),  # noqa: S106 - a reference
            "{secret: a/b}: a Kubernetes Secret is there for the kubernetes target only",
            id="kubernetes",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(secret: Secret, message: str) -> None:
    with pytest.raises(SecretError) as caught:
        resolve(secret, {}, Path("/nowhere"))
    assert caught.value.message == message
    assert caught.value.hint


def test_bytes_that_are_no_text_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "pw").write_bytes(b"hunter\xff")
    with pytest.raises(SecretError, match="is not UTF-8 text") as caught:
        resolve(Secret(file="pw"), {}, tmp_path)
    assert "hunter" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_references_in_config_are_replaced_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k\n")
    config = {"hot": 60, "deep": [{"token": {"env": "T"}}, {"key": {"file": "key"}}], "env": {"env": "a", "b": 1}}
    assert resolve_config(config, {"T": "t"}, tmp_path) == {
        "hot": 60,
        "deep": [{"token": "t"}, {"key": "k"}],
        "env": {"env": "a", "b": 1},
    }


def test_a_problem_in_config_names_the_field() -> None:
    with pytest.raises(SecretError, match=r"spec\.config\.deep\[0\]\.token: \{env: T\}: the environment has no T"):
        resolve_config({"deep": [{"token": {"env": "T"}}]}, {}, Path())


def test_exactly_one_place() -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Secret()
    with pytest.raises(msgspec.ValidationError, match="exactly one"):
        msgspec.json.decode(b'{"env":"A","file":"b"}', type=Secret)


def test_an_env_file_is_read() -> None:
    text = """\
# a comment
PLAIN=value
export SPACED = a b c   # not this
EMPTY=
SINGLE='as $it # is \\n'
DOUBLE="line\\nand \\"quotes\\" and \\\\" # comment
HASH=a#b
URL=http://x/?a=b
"""
    assert parse_env_file(text) == {
        "PLAIN": "value",
        "SPACED": "a b c",
        "EMPTY": "",
        "SINGLE": "as $it # is \\n",
        "DOUBLE": 'line\nand "quotes" and \\',
        "HASH": "a#b",
        "URL": "http://x/?a=b",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("A=1\nhunter2\n", "x.env:2: not KEY=VALUE", id="no equals sign"),
        pytest.param("A='hunter2\n", "x.env:1: not KEY=VALUE", id="open quote"),
        pytest.param("A='hunter2'x\n", "x.env:1: not KEY=VALUE", id="text after the quote"),
        pytest.param("1A=hunter2\n", "x.env:1: not KEY=VALUE", id="no name"),
        pytest.param("A=1\nA=hunter2\n", "x.env:2: A stands twice", id="twice"),
    ],
)
def test_a_broken_env_file_names_the_line_and_never_the_value(text: str, message: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse_env_file(text, "x.env")
    assert caught.value.message == message


def test_secret_text_is_text() -> None:
    assert isinstance(SecretText("a"), str)
    assert f"{SecretText('a')}b" == "ab"
