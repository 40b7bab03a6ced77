"""function.yaml: a complete valid example, then what is said about broken ones."""

from pathlib import Path

import msgspec
import pytest
from fleetfn_runtime.load import policy
from fleetfn_spec.function import Function
from fleetfn_spec.load import load_function
from fleetfn_spec.problems import SpecError
from msgspec import UNSET
from spec_cases import cases

VALID = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: battery-alert, labels: {team: battery}}
spec:
  handler: handler:watch
  lifespan: handler:resources
  config: {hot: 60, clear: 55.5, note: "yes", token: {env: MAP_TOKEN}, deep: [1, {a: null}]}
  triggers:
  - name: telemetry
    key: data.vehicle
    event: {id: data.id, time: data.ts}
    retry: {attempts: 3, initial: 500ms, factor: 1.5, max: 1m30s}
    kafka: {topic: vehicle.telemetry, start: earliest}
  - name: frames
    key: null
    decode: frames:decode
    timeout: 2s
    connection: plant
    kafka: {topic: frames}
  - name: show
    handler: handler:Show.get
    key: path.vehicle
    returns: null
    http: {path: "/battery/{vehicle}", methods: [GET, HEAD], max_body: 1024}
  outputs:
  - {name: alerts, kafka: {topic: alerts}}
  - {name: audit, connection: plant, kafka: {topic: audit}}
  returns: alerts
  state: {ttl: 90d}
  scale: {min: 0, max: 1, idle: 10s, concurrency: 8, warm: imports}
  retry: {attempts: 5}
  onDeadLetter: continue
  timeout: 30s
"""

HANDLER = """\
import contextlib
try:
    from somewhere import resources
except ImportError:
    resources = None
def watch(reading): ...
class Show:
    def get(self): ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("handler.py").write_text(HANDLER)
    Path("frames.py").write_text("async def decode(data): ...\n")
    Path("function.yaml").write_text(VALID)
    return Path()


def problems(text: str) -> list[str]:
    Path("function.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_function(Path())
    assert str(caught.value).splitlines() == [str(each) for each in caught.value.problems]
    return [str(each).removeprefix("function.yaml:") for each in caught.value.problems]


def test_a_complete_example_loads(folder: Path) -> None:
    function = load_function(folder)
    telemetry, frames, show = function.spec.triggers
    assert function.name == "battery-alert"
    assert function.spec.config == {
        "hot": 60,
        "clear": 55.5,
        "note": "yes",
        "token": {"env": "MAP_TOKEN"},
        "deep": [1, {"a": None}],
    }
    assert telemetry.retry is not None
    assert policy(telemetry.retry).backoff(2) == 0.75
    assert policy(telemetry.retry).backoff(100) == 90
    assert telemetry.kind.name == "kafka"
    assert telemetry.block.start == "earliest"
    assert (telemetry.key_expression, frames.key_expression, show.key_expression) == (
        "data.vehicle",
        None,
        "path.vehicle",
    )
    spec = function.spec
    assert (spec.handler_of(telemetry), spec.handler_of(show)) == ("handler:watch", "handler:Show.get")
    assert (spec.returns_of(telemetry), spec.returns_of(show)) == ("alerts", None)
    assert (spec.timeout_of(telemetry), spec.timeout_of(frames)) == (30.0, 2.0)
    assert (spec.retry_of(telemetry).attempts, spec.retry_of(frames).attempts) == (3, 5)


def test_survives_the_wire(folder: Path) -> None:
    function = load_function(folder)
    assert msgspec.json.decode(msgspec.json.encode(function), type=Function) == function


def test_absent_and_null_keys_differ(folder: Path) -> None:
    Path("function.yaml").write_text(VALID.replace("    key: data.vehicle\n", ""))
    telemetry, frames, _ = load_function(folder).spec.triggers
    assert (telemetry.key, telemetry.key_expression) == (UNSET, "kafka.key")
    assert (frames.key, frames.key_expression) == (None, None)


def test_the_breaker_is_switched_off_by_a_null_that_is_written_out(folder: Path) -> None:
    assert load_function(folder).spec.breaker is not None
    Path("function.yaml").write_text(VALID.replace("spec:\n", "spec:\n  breaker: null\n", 1))
    assert load_function(folder).spec.breaker is None
    assert "spec.breaker: is empty" in problems(VALID.replace("spec:\n", "spec:\n  breaker:\n", 1))[0]


@pytest.mark.parametrize("text", ["\ufeff" + VALID, VALID.replace("\n", "\r\n"), "---\n" + VALID + "...\n"])
def test_what_editors_add_does_no_harm(folder: Path, text: str) -> None:
    Path("function.yaml").write_bytes(text.encode())
    assert load_function(folder).name == "battery-alert"


@pytest.mark.parametrize(("old", "new", "expected"), cases("broken_functions.txt"))
def test_says_what_is_wrong_and_where(folder: Path, old: str, new: str, expected: list[str]) -> None:
    assert VALID.count(old) == 1
    assert problems(VALID.replace(old, new, 1)) == expected


def test_tells_all_problems_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = VALID
    for old, new in (
        ("kind: Function", "kind: Fun"),
        ("handler: handler:watch", "handler: handler:wacth"),
        ("topic: vehicle.telemetry", "topic: 7"),
        ("- name: frames", "- name: telemetry"),
        ("returns: null", "returns: nowhere"),
        ("ttl: 90d", "ttl: soon"),
    ):
        text = text.replace(old, new, 1)
    told = problems(text)
    assert [line.split(": ")[1] for line in told] == [
        "kind",
        "spec.handler",
        "spec.triggers[0].kafka.topic",
        "spec.triggers[1].name",
        "spec.triggers[2].returns",
        "spec.state.ttl",
    ]


def test_a_broken_part_hides_nothing_and_adds_nothing(folder: Path) -> None:
    """The rules across fields still look at the sound parts, and say nothing about the broken one."""
    told = problems(VALID.replace("name: alerts, kafka", "name: 5, kafka").replace("returns: null", "returns: audti"))
    assert [line.split(": ")[1] for line in told] == ["spec.outputs[0].name"]


def test_yaml_words_of_old_are_text_where_text_is_asked(folder: Path) -> None:
    Path("function.yaml").write_text(VALID.replace("topic: frames", "topic: on"))
    assert load_function(folder).spec.triggers[1].block.topic == "on"


def test_a_syntax_error_in_the_handler_is_told_with_its_own_place(folder: Path) -> None:
    Path("handler.py").write_text("def watch(:\n")
    told = problems(VALID)
    assert told == ["handler.py:1:11: not Python: invalid syntax; mend this line"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        pytest.param(b"x = '\xff'\n", "handler.py:1:8: not Python: ", id="not UTF-8"),
        pytest.param(b"def watch():\n  a\n\tb\n", "handler.py:3:", id="mixed indentation"),
        pytest.param(b"x = 1\0\n", "handler.py", id="null byte"),
    ],
)
def test_a_handler_that_is_no_python_is_told(folder: Path, source: bytes, told: str) -> None:
    Path("handler.py").write_bytes(source)
    (problem,) = problems(VALID)
    assert problem.startswith(told)


def test_a_star_import_may_define_any_handler(folder: Path) -> None:
    Path("handler.py").write_text("from elsewhere import *\n")
    assert load_function(folder).spec.handler == "handler:watch"


def test_a_package_may_hold_the_handler(folder: Path) -> None:
    Path("handler.py").unlink()
    Path("handler").mkdir()
    Path("handler/__init__.py").write_text(HANDLER)
    assert load_function(folder).spec.handler == "handler:watch"
