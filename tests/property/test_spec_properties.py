"""Whatever stands in a file, loading ends in a value or in problems with places; never in another exception."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
import yaml
from fleetfn_spec import scalars, walk, yaml_nodes
from fleetfn_spec.check import check_spec
from fleetfn_spec.durations import DurationError, seconds, shown
from fleetfn_spec.environments import Environments
from fleetfn_spec.function import Function
from fleetfn_spec.problems import Problem, SpecError
from fleetfn_spec.secrets import SecretError, parse_env_file
from hypothesis import assume, given, settings

VALID: dict[str, Any] = {
    "apiVersion": "fleetfn.dev/v1alpha1",
    "kind": "Function",
    "metadata": {"name": "battery-alert", "labels": {"team": "battery"}},
    "spec": {
        "handler": "handler:watch",
        "config": {"hot": 60, "deep": [1.5, None, True, "text"]},
        "triggers": [
            {
                "name": "telemetry",
                "key": "data.vehicle",
                "event": {"time": "data.ts"},
                "retry": {"attempts": 3, "factor": 1.5, "initial": "1s"},
                "kafka": {"topic": "vehicle.telemetry", "start": "latest"},
            },
            {
                "name": "show",
                "key": None,
                "returns": None,
                "http": {"path": "/b/{v}", "methods": ["GET"], "max_body": 9},
            },
        ],
        "outputs": [{"name": "alerts", "kafka": {"topic": "alerts"}}],
        "returns": "alerts",
        "state": {"ttl": "90d"},
        "scale": {"min": 0, "idle": "10s", "concurrency": 8, "warm": "imports"},
        "timeout": "30s",
    },
}

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.sampled_from(["data.x", "handler:watch", "5m", "/a/{b}", "GET", "kafka", "yes", "1e3", "010", "~", "path.v"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abkfz.{} ", max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = st.sampled_from(["kafka", "http", "mqtt", "name", "topic", "spec", "max", "secret", "x", ""])


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """The valid example with a few places replaced, removed or added to."""
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(list(places(document))[1:]))
        holder = document
        for part in above:
            holder = holder[part]  # type: ignore[index]  # the path was taken from it
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                holder[last] = draw(VALUES)  # type: ignore[index]  # the path was taken from it
            case "remove":
                del holder[last]  # type: ignore[arg-type]  # the path was taken from it
            case "add" if isinstance(holder, dict):
                holder[draw(KEYS)] = draw(VALUES)
    return document


def read(text: str, model: type[Any] = Function) -> tuple[Any, list[Problem]]:
    root, problems = yaml_nodes.parse(text, "function.yaml")
    value, found, wrong = walk.walk(root, model, "function.yaml")
    if model is Function:
        wrong = wrong + check_spec(value, found)
    return value, problems + wrong


@given(mutated())
@settings(max_examples=100, deadline=None)
def test_a_mutated_function_loads_as_msgspec_would_or_is_refused_with_places(document: Any) -> None:
    text = json.dumps(document)
    value, problems = read(text)
    lines = text.count("\n") + 1
    assert all(1 <= each.line <= lines and each.column >= 1 and each.message for each in problems)
    assert all(str(each).startswith("function.yaml:") for each in problems)
    if not problems:
        assert value == msgspec.convert(document, Function)
        assert msgspec.json.decode(msgspec.json.encode(value), type=Function) == value


@given(mutated())
@settings(max_examples=100, deadline=None)
def test_what_the_types_refuse_is_refused_here_too(document: Any) -> None:
    try:
        msgspec.convert(document, Function)
    except msgspec.ValidationError:
        assert read(json.dumps(document))[1]


@given(st.text() | st.text("{}[]:,-#&*!|>'\"%@`\n\t ab0~<?", max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_loads_or_is_refused(text: str) -> None:
    try:
        problems = read(text)[1]
    except SpecError as exc:
        problems = exc.problems
    assert problems
    assert str(SpecError(problems))


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp()) / "bytes.yaml"
    path.write_bytes(data)
    try:
        read(yaml_nodes.read(path), Environments)
    except SpecError as exc:
        assert exc.problems  # noqa: PT017 - either way is right


@given(VALUES)
@settings(max_examples=100, deadline=None)
def test_config_is_read_as_it_was_written_by_yaml_1_1_or_doubted(value: Any) -> None:
    document = {**VALID, "spec": {**VALID["spec"], "config": {"value": value}}}
    loaded, problems = read(yaml.safe_dump(document))
    assert all("means different things" in each.message for each in problems)
    assert problems or loaded.spec.config == {"value": value}


@given(st.text("0123456789.+-eExXoO_:abfnyYNOinNfF~", max_size=8))
@settings(max_examples=500)
def test_a_plain_scalar_means_the_same_to_yaml_1_1_or_is_doubted(text: str) -> None:
    assume(text not in {"---", "..."})  # marks between documents, no scalars
    node = yaml.ScalarNode("", text, style=None)  # type: ignore[arg-type]  # None is plain
    try:
        doubted, ours, theirs = scalars.doubt(node), scalars.value(node), yaml.safe_load(text)
    except (scalars.ScalarError, yaml.YAMLError, ValueError):
        return
    if isinstance(theirs, str | int | float | bool | None) and not doubted:
        assert ours == theirs
        assert type(ours) is type(theirs)


@given(st.integers(0, 10**12))
def test_durations_are_read_as_they_are_shown(milliseconds: int) -> None:
    assert round(seconds(shown(milliseconds / 1000)) * 1000) == milliseconds


@given(st.text("0123456789.dhms ", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert seconds(text) >= 0
    except DurationError as exc:
        assert repr(text)[1:-1] in str(exc)  # noqa: PT017 - either way is right


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    )
)
def test_env_files_are_read_as_they_are_written(values: dict[str, str]) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "".join(f"{name}={quoted(value)}\n" for name, value in values.items())
    assert parse_env_file(text) == values


@given(st.text(max_size=80))
def test_any_text_is_an_env_file_or_refused(text: str) -> None:
    try:
        parse_env_file(text)
    except SecretError:
        return
