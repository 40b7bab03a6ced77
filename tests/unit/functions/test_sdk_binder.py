"""Binding by type: what a handler may ask for, and what is refused with argument, file and line."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import importlib
import json
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from fleetfn import Batch, Config, Context, Event, Request, Response, Snapshot, State, Tick
from fleetfn.binder import BindInfo, bind, check_state_types, state_type
from fleetfn.errors import BindingError
from fleetfn.invocation import Call, Done, Rejected


class Reading(msgspec.Struct):
    vehicle: str
    temperature: float


@dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str
    age: NotRequired[int]


class Model(pydantic.BaseModel):
    name: str
    level: int = pydantic.Field(alias="lvl", ge=0)


@pydantic.dataclasses.dataclass
class Checked:
    level: int = pydantic.Field(ge=0)


class Colour(enum.Enum):
    RED = "red"


class Car(msgspec.Struct, tag=True):
    doors: int


class Truck(msgspec.Struct, tag=True):
    axles: int


class Pack(msgspec.Struct):
    hottest: float = 0.0


class Needy(msgspec.Struct):
    hottest: float


def info(**changes):
    return BindInfo(**{"name": "telemetry", "kind": "kafka", "has_key": True, "function": "fn", **changes})


def call(data, **changes):
    event = Event(id="1", source="/s", type="t", datacontenttype="application/json", data=data)
    return Call(**{"event": event, "trigger": "telemetry", "key": "V1", "seed": "seed", **changes})


def seen(annotation, data, **changes):
    """What a handler with this payload annotation gets for these bytes, or why not."""
    got = []

    def handler(payload):
        got.append(payload)

    handler.__annotations__ = {"payload": annotation}
    outcome = bind(handler, trigger=info(**changes)).invoke([call(data)])[0].outcome
    if isinstance(outcome, Rejected):
        assert outcome.status == 400
        return outcome.reason
    assert isinstance(outcome, Done), outcome
    return got[0]


class TestPayload:
    @pytest.mark.parametrize(
        ("annotation", "data", "value"),
        [
            (Reading, b'{"vehicle":"V1","temperature":7}', Reading("V1", 7.0)),
            (Point, b'{"x":1}', Point(1)),
            (Named, b'{"name":"a"}', {"name": "a"}),
            (dict, b'{"a":1}', {"a": 1}),
            (dict[str, int], b'{"a":1}', {"a": 1}),
            (Any, b"[1]", [1]),
            (list, b"[1]", [1]),
            (list[Point], b'[{"x":1}]', [Point(1)]),
            (int, b"7", 7),
            (float, b"7", 7.0),
            (bool, b"true", True),
            (str, b'"7"', '"7"'),
            (str, "电池".encode(), "电池"),
            (bytes, b"\xff", b"\xff"),
            (Colour, b'"red"', Colour.RED),
            (Literal["a"], b'"a"', "a"),
            (dt.datetime, b'"2026-03-01T12:00:00Z"', dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)),
            (Annotated[int, msgspec.Meta(gt=0)], b"7", 7),
            (Car | Truck, b'{"type":"Truck","axles":3}', Truck(3)),
            (list[Model], b'[{"name":"a","lvl":1}]', [Model(name="a", lvl=1)]),
            (Model | None, b'{"name":"a","lvl":1}', Model(name="a", lvl=1)),
        ],
        ids=str,
    )
    def test_is_decoded_by_its_type(self, annotation, data, value):
        found = seen(annotation, data)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("annotation", "data", "reason"),
        [
            (Reading, b'{"vehicle":"V1","temperature":"hot"}', "$.temperature: Expected float, got str 'hot'"),
            (Reading, b'{"vehicle":"V1"}', "$: Object missing required field temperature"),
            (list[Point], b'[{"x":1},{"x":null}]', "$[1].x: Expected int, got null None"),
            (dict[str, int], b'{"a":"b"}', "$[...]: Expected int, got str"),
            (Reading, b"{", "body is not JSON: it ends too early, after byte 1"),
            (dict, b'{"a":}', "body is not JSON: invalid character at byte 5"),
            (dict, b'{"a":"\xff"}', "body is not UTF-8: invalid start byte at byte 6"),
            (str, b"abc\xff", "body is not UTF-8 text: invalid start byte at byte 3"),
            (Any, b"[" * 100_000, "body is nested too deeply"),
            (dict, b"[" * 100_000, "$: Expected object, got array"),
            (dict, b"", "body is empty (send data, or let the handler take `T | None`)"),
            (dict, None, "body is empty (send data, or let the handler take `T | None`)"),
            (bytes, None, "body is empty (send data, or let the handler take `T | None`)"),
            (str, None, "body is empty (send data, or let the handler take `T | None`)"),
            (Model, b'{"name":"a","lvl":-1}', "$.lvl: Input should be greater than or equal to 0, got -1"),
            (Checked, b'{"level":-1}', "$.level: Input should be greater than or equal to 0, got -1"),
            (Car | Truck, b'{"type":"Bus"}', "$.type: Invalid value 'Bus'"),
        ],
        ids=str,
    )
    def test_that_does_not_decode_is_rejected_with_field_and_value(self, annotation, data, reason):
        assert seen(annotation, data) == reason

    def test_pydantic_says_what_is_no_json(self):
        assert seen(Model, b"{").startswith("body is not JSON: EOF while parsing an object")

    def test_a_content_type_that_is_not_json_is_named(self):
        def handler(data: dict) -> None: ...

        event = Event(id="1", source="/s", type="t", datacontenttype="application/xml", data=b"<a/>")
        outcome = bind(handler, trigger=info()).invoke([Call(event, "telemetry")])[0].outcome
        assert outcome.reason == "body is not JSON: invalid character at byte 0; its content type is 'application/xml'"

    def test_a_charset_that_json_has_not_is_named(self):
        def handler(data: dict) -> None: ...

        event = Event(
            id="1", source="/s", type="t", datacontenttype="application/json; charset=utf-16", data=b"\xff\xfe{\0"
        )
        outcome = bind(handler, trigger=info()).invoke([Call(event, "telemetry")])[0].outcome
        assert "its content type is 'application/json; charset=utf-16'" in outcome.reason

    def test_a_ten_megabyte_body_is_rejected_without_quoting_it(self):
        reason = seen(Reading, b'{"vehicle":"' + b"x" * 10_000_000 + b'","temperature":"hot"}')
        assert reason == "$.temperature: Expected float, got str"

    @pytest.mark.parametrize("annotation", [dict | None, Reading | None, str | None, bytes | None, Model | None, Any])
    def test_none_takes_tombstones(self, annotation):
        assert seen(annotation, None) is None

    @pytest.mark.parametrize(("annotation", "value"), [(dict | None, None), (bytes, b""), (str, ""), (str | None, "")])
    def test_an_empty_body_is_no_json_but_is_text(self, annotation, value):
        assert seen(annotation, b"") == value

    def test_event_has_the_bytes_and_the_attributes(self):
        found = seen(Event, b'{"a":1}')
        assert (found.id, found.data) == ("1", b'{"a":1}')

    def test_event_of_t_has_decoded_data(self):
        found = seen(Event[Reading], b'{"vehicle":"V1","temperature":7}')
        assert (found.id, found.source, found.datacontenttype) == ("1", "/s", "application/json")
        assert found.data == Reading("V1", 7.0)
        assert seen(Event[Reading], None).startswith("body is empty")
        assert seen(Event[Reading | None], None).data is None

    @pytest.mark.parametrize("annotation", [Tick, Event[Tick], Event])
    def test_a_fire_of_a_clock_is_a_tick(self, annotation):
        tick = Tick(at=dt.datetime(2026, 3, 29, 1, tzinfo=dt.UTC), missed=2, timezone="Europe/Berlin")
        found = seen(annotation, msgspec.json.encode(tick), kind="cron")
        if annotation is Event:
            assert json.loads(found.data) == {
                "scheduled": "2026-03-29T01:00:00Z",
                "previous": None,
                "missed": 2,
                "timezone": "Europe/Berlin",
            }
        else:
            assert (found if annotation is Tick else found.data) == tick

    @pytest.mark.parametrize("annotation", [dict, Reading, bytes, Any, Event[dict], Request])
    def test_a_clock_gives_nothing_else(self, annotation):
        with pytest.raises(BindingError, match=r"payload.*is no Tick|payload.*cron triggers have none"):
            seen(annotation, b"{}", kind="cron")

    def test_a_request_is_passed_on(self):
        def handler(request: Request) -> str:
            return request.path

        request = Request(method="GET", path="/x")
        result = bind(handler, trigger=info(kind="http")).invoke([call(None, request=request)])[0]
        assert result.outcome.reply.body == b"/x"


class TestSignature:
    def test_any_order_and_keyword_only(self):
        def in_order(ctx: Context, limits: Config[Point], *, state: State[Pack], reading: Reading) -> str:
            return f"{ctx.key} {limits.x} {state.value.hottest} {reading.vehicle}"

        bound = bind(in_order, trigger=info(kind="http", config={"x": 5}))
        reply = bound.invoke([call(b'{"vehicle":"V1","temperature":7}')])[0].outcome.reply
        assert reply.body == b"V1 5 0.0 V1"

    def test_no_argument_at_all(self):
        def handler() -> str:
            return "hello"

        assert bind(handler, trigger=info(kind="http")).invoke([call(None)])[0].outcome.reply.body == b"hello"

    def test_partials_instances_methods_and_decorated_functions(self):
        class Handler:
            def __call__(self, data: int) -> int:
                return data + 1

            def method(self, data: int) -> int:
                return data + 2

        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)

            return wrapper

        @logged
        def decorated(data: int) -> int:
            return data + 3

        def with_factor(factor: int, data: int) -> int:
            return factor * data

        for target, expected in [
            (Handler(), b"2"),
            (Handler().method, b"3"),
            (decorated, b"4"),
            (functools.partial(with_factor, 5), b"5"),
            (functools.partial(with_factor, factor=6), b"6"),
        ]:
            assert bind(target, trigger=info(kind="http")).invoke([call(b"1")])[0].outcome.reply.body == expected

    def test_what_a_handler_is_and_keeps_is_told(self):
        async def changes(state: State[Pack]) -> None: ...
        def reads(pack: Snapshot[Pack]) -> None: ...

        first, second = bind(changes, trigger=info()), bind(reads, trigger=info())
        assert (first.is_async, first.has_state, first.has_snapshot) == (True, True, False)
        assert (second.is_async, second.has_state, second.has_snapshot) == (False, False, True)


def refused(target, **changes):
    with pytest.raises(BindingError) as caught:
        bind(target, trigger=info(**changes))
    return caught.value


class TestRefused:
    def test_names_argument_file_and_line(self):
        def handler(
            data: dict,
            other: str,
        ) -> None: ...

        error = refused(handler)
        assert error.argument == "other"
        assert error.file == Path(__file__).name
        assert error.line == handler.__code__.co_firstlineno + 2
        assert error.message.startswith(f"{error.file}:{error.line}: handler(): argument 'other' is a second payload")
        assert error.hint

    def test_the_file_is_named_within_the_functions_folder(self):
        def handler(data) -> None: ...

        assert refused(handler, root=Path(__file__).parent).file == Path(__file__).name

    @pytest.mark.parametrize(
        ("signature", "message"),
        [
            ("(data)", "'data' has no type"),
            ("(*args: int)", "'args' takes whatever comes"),
            ("(**kwargs: int)", "'kwargs' takes whatever comes"),
            ("(a: dict, b: Event)", "'b' is a second payload beside 'a'"),
            ("(a: Context, b: Context)", "'b' is a second context beside 'a'"),
            ("(a: State[Pack], b: State[Pack])", "'b' is a second state beside 'a'"),
            ("(a: State[Pack], b: Snapshot[Pack])", "'b' reads what 'a' holds"),
            ("(state: State)", "'state' is State of nothing"),
            ("(state: Snapshot)", "'state' is Snapshot of nothing"),
            ("(limits: Config)", "'limits' is Config of nothing"),
            ("(state: State[Needy])", "'state' is State[Needy], and it has no default to start from"),
            ("(state: Snapshot[Needy])", "'state' is Snapshot[Needy], and it has no default to start from"),
            ("(state: State[Named])", "it has no default to start from"),
            ("(state: State[Colour])", "it has no default to start from"),
            ("(state: State[object])", "which JSON cannot hold|no default"),
            ("(state: State[Pack] | None)", "'state' has State inside of another type"),
            ("(event: Event[dict] | None)", "'event' has Event inside of another type"),
            ("(events: list[Event])", "'events' has Event inside of another type"),
            ("(limits: Config[Limits] | None)", "'limits' has Config inside of another type"),
            ("(ctx: Context | None)", "'ctx' has Context inside of another type"),
            ("(request: Request)", "'request' is a Request, and kafka triggers have none"),
            ("(data: bytearray)", "'data' is a bytearray"),
            ("(data: pytest.MonkeyPatch)", "'data' cannot be bound: MonkeyPatch is no type that JSON decodes into"),
            ("(data: list[pytest.MonkeyPatch])", "MonkeyPatch is no type that JSON decodes into"),
            ("(data: Around)", "pydantic's Model is inside of a type that pydantic does not read"),
            ("(data: Batch)", "'data' is Batch of nothing"),
            ("(data: Batch[Request])", "'data' is a Batch of Request"),
            ("(data: Batch[Tick])", "'data' is a Batch of Tick"),
            ("(data: Batch[Event[Tick]])", "'data' is a Batch of Tick"),
            ("(data: Batch[Context])", "'data' is a Batch of Context"),
            ("(data: Batch[State[Pack]])", "'data' is a Batch of State"),
            ("(data: Batch[Batch[dict]])", "'data' is a Batch of Batch"),
            ("(data: Batch[Config[Limits]])", "'data' is a Batch of Config"),
            ("(data: Batch[dict] | None)", "'data' has Batch inside of another type"),
            ("(data: Batch[Event[dict] | None])", "'data' has Event inside of another type"),
            ("(data: list[Batch[dict]])", "'data' has Batch inside of another type"),
            (
                "(data: Batch[pytest.MonkeyPatch])",
                "'data' cannot be bound: MonkeyPatch is no type that JSON decodes into",
            ),
            ("(a: Batch[dict], b: dict)", "'b' is a second payload beside 'a'"),
            ("(a: Batch[dict], b: State[Pack])", "'b' is State, and a batch of trigger 'telemetry' may have events of"),
            ("(a: Batch[dict], b: Snapshot[Pack])", "'b' is Snapshot, and a batch of trigger 'telemetry' may have"),
            ("(tick: Tick)", "'tick' is a Tick, and kafka triggers have none"),
            ("(tick: Event[Tick])", "'tick' is a Tick, and kafka triggers have none"),
            ("(tick: Tick | None)", "'tick' has Tick inside of another type"),
            ("(ticks: list[Tick])", "'ticks' has Tick inside of another type"),
            ("(data: Missing)", "'Missing' is not defined in its module"),
            ("(data: Reading.Nothing)", "which fails: type object 'Reading' has no attribute 'Nothing'"),
        ],
    )
    def test_signatures(self, signature, message):
        class Around(msgspec.Struct):
            inner: Model

        scope = {**globals(), "Around": Around}
        source = f"from __future__ import annotations\ndef handler{signature} -> None: ..."
        exec(compile(source, __file__, "exec"), scope)  # noqa: S102 - the annotations stay text
        error = refused(scope["handler"])
        assert any(part in error.message for part in message.split("|")), error.message

    def test_generators_and_classes(self):
        def generator(data: dict):
            yield data

        async def asynchronous(data: dict):
            yield data

        assert "is a generator" in refused(generator).message
        assert "is a generator" in refused(asynchronous).message
        assert "is a class" in refused(Reading).message
        assert "is no function but int" in refused(7).message
        assert "has no signature to read" in refused(min).message

    def test_state_without_a_key(self):
        def handler(state: State[Pack]) -> None: ...

        error = refused(handler, has_key=False)
        assert "'state' is State, and trigger 'telemetry' has no key" in error.message

    def test_names_under_type_checking(self, tmp_path, monkeypatch):
        source = """
            from __future__ import annotations
            from typing import TYPE_CHECKING
            if TYPE_CHECKING:
                from fleetfn import Context

            def handler(ctx: Context) -> None: ...
        """
        (tmp_path / "sdk_type_checking.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(tmp_path))
        module = importlib.import_module("sdk_type_checking")

        error = refused(module.handler, root=tmp_path)
        assert (error.argument, error.file, error.line) == ("ctx", "sdk_type_checking.py", 7)
        assert "'Context' is imported under TYPE_CHECKING only" in error.message
        assert "ruff" in error.hint
        assert "TC001" in error.hint
        del sys.modules["sdk_type_checking"]

    def test_a_return_annotation_need_not_resolve(self):
        def handler(data: dict) -> Missing: ...  # noqa: F821 - the point

        bind(handler, trigger=info())

    @pytest.mark.parametrize("by", ["any", "key"])
    def test_batches_for_a_handler_that_takes_none(self, by):
        def handler(data: dict) -> None: ...

        error = refused(handler, batch=by)
        assert "takes no Batch, and trigger 'telemetry' has `batch`" in error.message
        assert (error.file, error.line) == (Path(__file__).name, handler.__code__.co_firstlineno)

    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            ("http", "'data' is a Batch, and each caller of an http trigger waits for a reply of its own"),
            ("cron", "'data' is a Batch, and each fire of a cron trigger is for itself"),
        ],
    )
    def test_batches_of_triggers_that_have_none(self, kind, why):
        def handler(data: Batch[dict], state: State[Pack]) -> None: ...

        error = refused(handler, kind=kind)
        assert why in error.message
        assert error.argument == "data"

    @pytest.mark.parametrize("kind", ["kafka", "mqtt"])
    def test_state_with_batches_wants_them_by_key(self, kind):
        def handler(data: Batch[dict], state: State[Pack]) -> None: ...

        assert "batch: {by: key}" in refused(handler, kind=kind).hint
        assert bind(handler, trigger=info(kind=kind, batch="key")).has_state


class TestStateTypes:
    def test_one_function_keeps_one_type(self):
        def watch(state: State[Pack]) -> None: ...
        def show(pack: Snapshot[Pack]) -> None: ...
        def count(state: State[Point]) -> None: ...
        def plain(data: dict) -> None: ...

        assert state_type(watch) is state_type(show) is Pack
        assert state_type(plain) is None
        check_state_types({"telemetry": watch, "show": show, "plain": plain})
        with pytest.raises(BindingError) as caught:
            check_state_types({"telemetry": watch, "plain": plain, "count": count})
        assert caught.value.argument == "state"
        assert "keeps Point, but trigger 'telemetry' of the same function keeps Pack" in caught.value.message

    @pytest.mark.parametrize(
        "type_", [int, str, dict, list[int], dict[str, Point], Pack | None, Any, Named, set[str], float], ids=str
    )
    def test_types_that_start_empty(self, type_):
        def handler(state) -> None: ...

        handler.__annotations__ = {"state": State[type_]}
        if type_ is Named:
            assert "no default" in refused(handler).message
        else:
            bind(handler, trigger=info())


class Limits(msgspec.Struct):
    hot: float
    clear: Annotated[float, msgspec.Meta(ge=0)] = 50
    zones: list[Point] = []
    nested: Point | None = None


class Strict(pydantic.BaseModel):
    hot: float
    inner: Model | None = None
    names: tuple[str, ...] = ()


class TestConfig:
    def bound(self, type_, config):
        got = []

        def handler(limits) -> None:
            got.append(limits)

        handler.__annotations__ = {"limits": Config[type_]}
        bind(handler, trigger=info(config=config)).invoke([call(None)])
        return got[0]

    def problems(self, type_, config):
        with pytest.raises(BindingError) as caught:
            self.bound(type_, config)
        assert caught.value.argument == "limits"
        assert "handler()" in caught.value.hint
        return caught.value.message.removeprefix("function.yaml: ").split("; ")

    @pytest.mark.parametrize(
        ("type_", "config", "value"),
        [
            (Limits, {"hot": 60}, Limits(60.0)),
            (Point, {"x": 1}, Point(1)),
            (dict, {"a": [1]}, {"a": [1]}),
            (Named, {"name": "a"}, {"name": "a"}),
            (Strict, {"hot": 60, "names": ["a"]}, Strict(hot=60.0, names=("a",))),
            (
                Limits,
                {"hot": 1, "zones": [{"x": 1}], "nested": {"x": 2}},
                Limits(1.0, zones=[Point(1)], nested=Point(2)),
            ),
        ],
        ids=str,
    )
    def test_is_a_plain_t(self, type_, config, value):
        found = self.bound(type_, config)
        assert found == value
        assert type(found) is type(value)

    def test_every_problem_has_its_path(self):
        assert self.problems(Limits, {"hot": "x", "clear": -1, "htt": 1}) == [
            "spec.config.htt: unknown key",
            "did you mean hot?",
            "spec.config.hot: expected float, got str 'x'",
            "spec.config.clear: expected float >= 0.0",
        ]

    def test_missing_keys(self):
        assert self.problems(Limits, {}) == ["spec.config.hot: is missing"]

    def test_unknown_keys_within(self):
        assert self.problems(Limits, {"hot": 1, "zones": [{"x": 1, "z": 1}]}) == [
            "spec.config.zones[0].z: unknown key",
            "known: x, y",
        ]
        assert self.problems(Limits, {"hot": 1, "nested": {"x": 1, "yy": 1}})[0] == "spec.config.nested.yy: unknown key"

    def test_pydantic_models(self):
        assert self.problems(Strict, {"hot": "60"}) == ["spec.config.hot: input should be a valid number, got '60'"]
        assert self.problems(Strict, {"hot": 60, "hto": 1})[0] == "spec.config.hto: unknown key"
        assert self.problems(Strict, {"hot": 1, "inner": {"name": "a", "lvl": 1, "x": 1}})[0] == (
            "spec.config.inner.x: unknown key"
        )


def test_responses_are_for_http_callers_only():
    def handler(data: dict) -> Response:
        return Response(404)

    result = bind(handler, trigger=info(returns="alerts", outputs=frozenset({"alerts"}))).invoke([call(b"{}")])[0]
    assert (result.outcome, result.emits) == (Done(), ())


class StructLimits(msgspec.Struct):
    hot: int


class ModelLimits(pydantic.BaseModel):
    hot: int


def with_struct(limits: Config[StructLimits]) -> None: ...


def with_model(limits: Config[ModelLimits]) -> None: ...


@pytest.mark.parametrize("handler", [with_struct, with_model])
def test_a_configuration_with_secrets_is_never_quoted(handler):
    with pytest.raises(BindingError) as refused:
        bind(handler, trigger=info(config={"hot": "hunter2"}, secret_config=True))
    assert "spec.config.hot" in refused.value.message
    assert "hunter2" not in f"{refused.value.message} {refused.value.hint}"
    with pytest.raises(BindingError, match="hunter2"):
        bind(handler, trigger=info(config={"hot": "hunter2"}))
