"""Run a handler in your own tests, by the code that runs it in production.

    run = testing.Function(watch, config={"hot": 60}, returns="alerts", key=lambda reading: reading.vehicle)

    def test_a_hot_pack_alarms_once():
        assert run(Reading("V1", 71.0)).emits[0].data["level"] == 3
        assert run(Reading("V1", 72.0)).emits == []
        assert run.state("V1").alarmed

State lives in memory, per key, for as long as the Function does; time stands still until the test moves it. A Function
that walks `ctx.states` sees what `put` left, or what another one keeps: `nightly.store = watch.store`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from fleetfn import emits as emitting
from fleetfn.binder import BindInfo, bind, state_type
from fleetfn.bound_batch import BoundBatch
from fleetfn.cloudevents.json import is_json
from fleetfn.errors import UsageError
from fleetfn.event import Event
from fleetfn.http import Request, Response
from fleetfn.invocation import UNCHANGED, Again, Call, Done, Emit, Failure, Outcome, Rejected
from fleetfn.invocation import Result as Ran
from fleetfn.lifespan import Lifespan
from fleetfn.memory import MemoryStore
from fleetfn.position import At, Named, Position, Reply
from fleetfn.signature import place, takes_batch, takes_tick
from fleetfn.states import UNKNOWN, Stretch, Walks, stretch
from fleetfn.store import Loaded, Saved, Write
from fleetfn.testing_batch import run_batch
from fleetfn.tick import Tick
from fleetfn.values import Codec, encode

T = TypeVar("T")

START = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the clock of a Function stands at first."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One event on its way to an output. `data`: JSON decoded, text as str, anything else as bytes."""

    output: str
    key: str | None
    data: Any
    id: str
    event: Event[bytes | None]

    def read(self, type_: type[T]) -> T:
        """The data as a T. Raises DataError."""
        return Codec(type_).decode(self.event.data or b"")  # type: ignore[no-any-return]  # a codec of T gives T


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run. A handler's exception is an outcome here, as it is for the platform."""

    outcome: Outcome
    emits: list[Sent]
    """What leaves for the outputs, the return value last (if `returns` names an output). Empty unless done."""
    state: Any
    """The key's value after the run; None if there is none."""
    duplicate: bool = False
    """The position was taken before: the handler did not run."""
    _returned: Any = None

    @property
    def done(self) -> bool:
        return isinstance(self.outcome, Done)

    @property
    def returned(self) -> Any:
        """What the handler returned. Raises AssertionError, with the traceback, if it did not return."""
        if not self.done:
            failure = self.failure
            raise AssertionError(f"the handler did not return: {self.error}\n{failure.traceback if failure else ''}")
        return self._returned

    @property
    def reply(self) -> Response:
        """What an HTTP caller would get, body as bytes; for an outcome other than done as the worker answers it."""
        match self.outcome:
            case Done(reply):
                return reply or Response(204, b"")
            case Rejected(reason, _, status):
                return Response(status, reason.encode())
            case Again(_, _, failure):
                return Response(503 if failure is None else 500, self.error.encode())

    @property
    def failure(self) -> Failure | None:
        """Type, message, place and traceback of an exception."""
        return None if isinstance(self.outcome, Done) else self.outcome.failure

    @property
    def error(self) -> str:
        """Why it is not done, in one line; '' if it is."""
        if isinstance(self.outcome, Done):
            return ""
        failure = self.outcome.failure
        return f"{failure.type}: {failure.message} ({failure.place})" if failure else self.outcome.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    event: Event[bytes | None]
    key: str | None
    position: Position
    attempt: int
    request: Request | None


class Function:
    """A handler with its configuration, state and clock: call it with the data of an event.

    `target`: the handler itself, `"module:callable"`, or a folder with function.yaml, whose handler, config, outputs
    and returns are then taken (of the trigger named by `trigger`, the first by default; what is passed here wins).
    `key`: the key of every event, or a callable that takes it from the data. `outputs`: the names that ctx.emit may
    use; any by default. `returns`: the output that the return value goes to. `resources`: what ctx.resources shows.
    Raises BindingError for a handler that cannot be deployed either.
    """

    def __init__(
        self,
        target: Callable[..., Any] | str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        key: str | Callable[[Any], str] | None = None,
        outputs: set[str] | frozenset[str] | list[str] | None = None,
        returns: str | None = None,
        trigger: str | None = None,
        resources: Any = None,
    ) -> None:
        found = _find(target, trigger)
        returns = found.returns if returns is None else returns
        names = found.outputs if outputs is None else frozenset(outputs)
        lifespan = Lifespan()
        lifespan.resources = resources
        walks = Walks(state_type(found.handler) or UNKNOWN)
        walks.open(_Reader(self))
        self._handler = bind(
            found.handler,
            trigger=BindInfo(
                name=found.trigger,
                kind=_kind(found.handler),
                batch=found.batch,
                has_key=True,
                function=found.name,
                returns=returns,
                outputs=None if names is None else names | ({returns} if returns else set()),
                config=found.config if config is None else config,
                lifespan=lifespan,
                walks=walks,
            ),
        )
        self._trigger = found.trigger
        self._name = place(found.handler).name
        self._key = key
        self._now = START
        self._runs = 0
        self._returned: Any = None
        self._handler.see(self._see)
        self.store = MemoryStore(clock=self._seconds)

    @property
    def clock(self) -> datetime:
        """What ctx.now shows. Set it to an aware datetime or to Unix seconds."""
        return self._now

    @clock.setter
    def clock(self, now: datetime | float) -> None:
        if isinstance(now, datetime) and now.tzinfo is None:
            raise UsageError(f"clock = {now.isoformat()}: no time zone", hint="use datetime(..., tzinfo=UTC)")
        self._now = now.astimezone(UTC) if isinstance(now, datetime) else datetime.fromtimestamp(now, UTC)

    def advance(self, by: float | timedelta) -> None:
        """Move the clock: seconds, or a timedelta."""
        self._now += by if isinstance(by, timedelta) else timedelta(seconds=by)

    def __call__(
        self, data: Any = None, *, key: str | None = None, position: int | str | None = None, attempt: int = 1
    ) -> Result:
        """Run the handler with one event.

        `data`: Struct, dataclass, pydantic, dict (sent as JSON), str or bytes (the body as it is), None (no data, a
        tombstone), an Event with any of these, a Request, or a Tick. `position`: an offset (int) or a caller's id
        (str); one that the key has taken already is a duplicate. Raises UsageError for an async handler within a
        running loop.
        """
        return self._wait(self.aio(data, key=key, position=position, attempt=attempt), "run.aio(data)")

    async def aio(
        self, data: Any = None, *, key: str | None = None, position: int | str | None = None, attempt: int = 1
    ) -> Result:
        """The same, within a running loop."""
        return await self._run(self._input(data, key, position, attempt))

    def batch(
        self, data: Sequence[Any], *, key: str | None = None, position: int | None = None, attempt: int = 1
    ) -> list[Result]:
        """Run a handler that takes a Batch, with one event per entry of `data`; one result for each.

        What is before the first event of a key that is not done is saved, and what is behind it is not done either: it
        would run later. Where the handler fails as a whole each result says so; in production each event then runs
        again alone, as by `run(data)`. `position`: the offset of the first event, by which the others follow. Raises
        UsageError as a call does, and for a handler that takes no Batch or keeps state of one key, with several.
        """
        return self._wait(self.aio_batch(data, key=key, position=position, attempt=attempt), "run.aio_batch(data)")

    async def aio_batch(
        self, data: Sequence[Any], *, key: str | None = None, position: int | None = None, attempt: int = 1
    ) -> list[Result]:
        """The same, within a running loop."""
        places = [None if position is None else position + index for index in range(len(data))]
        return await self._run_batch(
            [self._input(each, key, at, attempt) for each, at in zip(data, places, strict=True)]
        )

    def http(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        body: Any = b"",
        key: str | None = None,
        query: Mapping[str, list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        path_params: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the handler with one HTTP request; `body` as the data of a call."""
        encoded, media = emitting.encode_data(body)
        own = {"content-type": media} if media and encoded else {}
        request = Request(
            method=method,
            path=path,
            path_params=path_params or {},
            query=query or {},
            headers={**own, **{name.lower(): value for name, value in (headers or {}).items()}},
            body=encoded or b"",
        )
        return self(request, key=key)

    def state(self, key: str | None = None) -> Any:
        """The value stored for a key now, None if there is none. `key`: may be left out where it is always the same."""
        return self._decoded(_complete(self.store.load([self._known(key)]))[0].record.value)

    def put(self, value: Any, *, key: str | None = None) -> None:
        """Store a value for a key, as if an earlier run had left it; None: delete it."""
        name = self._known(key)
        loaded = _complete(self.store.load([name]))[0]
        data = None if value is None else encode(value)
        if data is not None:
            self._handler.check_value(data)
        _complete(self.store.save([Write(name, msgspec.structs.replace(loaded.record, value=data), loaded.etag)]))

    def _wait(self, work: Coroutine[Any, Any, T], instead: str) -> T:
        if not self._handler.is_async:
            return _complete(work)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        work.close()
        raise UsageError(f"{self._name}() is async, and a loop runs here already", hint=f"await {instead}")

    def _known(self, key: str | None) -> str:
        if key is None and not isinstance(self._key, str):
            raise UsageError("whose state?", hint="name the key")
        return key if key is not None else str(self._key)

    def _input(self, data: Any, key: str | None, position: int | str | None, attempt: int) -> _Input:
        self._runs += 1
        request = data if isinstance(data, Request) else None
        if key is None:
            key = self._key(data) if callable(self._key) else self._key
        if key is None and (self._handler.has_state or self._handler.has_snapshot):
            raise UsageError(f"{self._name}() has state, and the event no key", hint="run(data, key='V1')")
        at: Position = At("test", 0, position) if isinstance(position, int) else Named(position) if position else None
        return _Input(event=self._event(data), key=key, position=at, attempt=attempt, request=request)

    def _event(self, data: Any) -> Event[bytes | None]:
        if isinstance(data, Event):
            body, media = emitting.encode_data(data.data)
            return msgspec.structs.replace(data, data=body, datacontenttype=data.datacontenttype or media)
        if isinstance(data, Request):
            body, media = data.body or None, data.headers.get("content-type")
        else:
            body, media = emitting.encode_data(data)
        return Event(
            id=f"test-{self._runs}",
            source="/tests",
            type="test",
            time=data.at if isinstance(data, Tick) else self._now,
            datacontenttype=media,
            data=body,
        )

    def _call(self, given: _Input, value: bytes | None) -> Call:
        return Call(
            event=given.event,
            trigger=self._trigger,
            key=given.key,
            attempt=given.attempt,
            value=value,
            request=given.request,
            invocation=f"run-{self._runs}",
            now=self._now.timestamp(),
        )

    async def _run(self, given: _Input) -> Result:
        loaded = (await self.store.load([given.key or ""]))[0]
        if self._handler.has_state and loaded.record.marks.taken(self._trigger, given.position):
            return self._duplicate(given, loaded)
        call = self._call(given, loaded.record.value)
        self._returned = None
        ran = (await self._handler.invoke_async([call]) if self._handler.is_async else self._handler.invoke([call]))[0]
        if not isinstance(ran.outcome, Done):
            return self._not_done(ran, loaded)
        value = loaded.record.value if ran.value is UNCHANGED else ran.value
        await self._save(given, loaded, ran, value)
        return Result(ran.outcome, [_sent(emit) for emit in ran.emits], self._decoded(value), _returned=self._returned)

    async def _run_batch(self, given: Sequence[_Input]) -> list[Result]:
        handler = self._handler
        if not isinstance(handler, BoundBatch):
            raise UsageError(f"{self._name}() takes no Batch", hint="run(data) for each event")
        keys = sorted({each.key or "" for each in given})
        if len(keys) > 1 and (handler.has_state or handler.has_snapshot):
            raise UsageError(f"a batch of the keys {', '.join(keys)}", hint=f"{self._name}() has state: pass one key")
        if not given:
            return []
        loaded = (await self.store.load([given[0].key or ""]))[0]
        taken = loaded.record.marks.taken if handler.has_state else _never
        new = [each for each in given if not taken(self._trigger, each.position)]
        known = [self._duplicate(each, loaded) for each in given if taken(self._trigger, each.position)]
        if not new:
            return known
        self._returned = None
        calls = [self._call(each, loaded.record.value) for each in new]
        results, returned = await run_batch(handler, calls, lambda: self._returned)
        value = loaded.record.value
        for each, ran in zip(new, results, strict=True):
            if isinstance(ran.outcome, Done):
                value = value if ran.value is UNCHANGED else ran.value
                loaded = await self._save(each, loaded, ran, value)
        return known + [self._ended(ran, loaded, what) for ran, what in zip(results, returned, strict=True)]

    def _ended(self, ran: Ran, loaded: Loaded, returned: Any) -> Result:
        if not isinstance(ran.outcome, Done):
            return self._not_done(ran, loaded)
        value = self._decoded(loaded.record.value)
        return Result(ran.outcome, [_sent(emit) for emit in ran.emits], value, _returned=returned)

    async def _save(self, given: _Input, loaded: Loaded, ran: Ran, value: Any) -> Loaded:
        if given.key is None or not self._handler.has_state:
            return loaded
        reply = ran.outcome.reply if isinstance(ran.outcome, Done) else None
        kept = None if reply is None else Reply(reply.status, list(reply.headers.items()), _body(reply))
        marks = loaded.record.marks.with_(self._trigger, given.position, kept)
        record = msgspec.structs.replace(loaded.record, value=value, marks=marks)
        (saved,) = await self.store.save([Write(given.key, record, loaded.etag)])
        return Loaded(record, saved.etag if isinstance(saved, Saved) else loaded.etag)

    def _not_done(self, ran: Ran, loaded: Loaded) -> Result:
        result = Result(ran.outcome, [], None)
        if result.failure is not None and result.failure.type == "KeyboardInterrupt":
            raise KeyboardInterrupt  # whoever runs the tests pressed Ctrl-C
        if isinstance(ran.outcome, Again) and ran.outcome.reason == "state":
            return result
        return replace(result, state=self._decoded(loaded.record.value))

    def _duplicate(self, given: _Input, loaded: Loaded) -> Result:
        marks = loaded.record.marks
        kept = marks.reply(self._trigger, given.position) if isinstance(given.position, Named) else None
        reply = None if kept is None else Response(kept.status, kept.body, dict(kept.headers))
        return Result(Done(reply), [], self._decoded(loaded.record.value), duplicate=True)

    def _seconds(self) -> float:
        return self._now.timestamp()

    def _see(self, returned: Any) -> None:
        self._returned = returned

    def _decoded(self, value: bytes | None) -> Any:
        return self._handler.state_of(value)


class _Reader:
    """Of the store that the Function has now: a test may give one Function the store of another."""

    def __init__(self, function: Function) -> None:
        self._function = function

    def read(self, after: str | None, deadline: float | None) -> Stretch:  # noqa: ARG002 - the port's
        return _complete(self.read_async(after))

    async def read_async(self, after: str | None) -> Stretch:
        return await stretch(self._function.store, after)


@dataclass(frozen=True, slots=True)
class _Found:
    handler: Callable[..., Any]
    name: str = "function"
    trigger: str = "test"
    config: Mapping[str, Any] = field(default_factory=dict)
    outputs: frozenset[str] | None = None
    returns: str | None = None
    batch: Literal["key", "any"] | None = None


def _find(target: Callable[..., Any] | str | Path, trigger: str | None) -> _Found:
    if isinstance(target, Path) or (isinstance(target, str) and Path(target).is_dir()):
        return _in_folder(Path(target).resolve(), trigger)
    handler = _imported(target) if isinstance(target, str) else target
    return _Found(handler, trigger=trigger or "test", batch=_batch_of(handler))


def _batch_of(handler: Callable[..., Any]) -> Literal["key", "any"] | None:
    """What its trigger would have to say."""
    if not takes_batch(handler):
        return None
    return "any" if state_type(handler) is None else "key"


def _kind(handler: Callable[..., Any]) -> str:
    """Where http will do, every run shows its reply; all that Kafka and MQTT give, it takes too."""
    if takes_tick(handler):
        return "cron"
    return "kafka" if takes_batch(handler) else "http"


def _never(_trigger: str, _position: Position) -> bool:
    return False


def _imported(name: str, folder: Path | None = None) -> Callable[..., Any]:
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise UsageError(f"{name!r} is no handler", hint="name it as module:callable, e.g. handler:watch")
    found: Any = importlib.import_module(module)
    if folder is not None and not Path(found.__file__ or "").is_relative_to(folder):
        raise UsageError(
            f"module {module!r} of {folder} cannot be imported: {found.__file__} has the same name",
            hint="run the tests of each function in a process of its own",
        )
    for part in path.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]  # bind says if it is not callable


def _in_folder(folder: Path, trigger: str | None) -> _Found:
    """What a test needs of function.yaml; `fn check` is who checks it."""
    import yaml  # noqa: PLC0415 - only for tests of whole folders

    document = yaml.safe_load((folder / "function.yaml").read_text())
    spec = document["spec"]
    triggers = {one["name"]: one for one in spec["triggers"]}
    if trigger is not None and trigger not in triggers:
        raise UsageError(f"{folder.name} has no trigger {trigger!r}", hint=f"it has: {', '.join(triggers)}")
    chosen = triggers[trigger] if trigger is not None else next(iter(triggers.values()))
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return _Found(
        _imported(chosen.get("handler") or spec["handler"], folder),
        name=document["metadata"]["name"],
        trigger=chosen["name"],
        config=spec.get("config") or {},
        outputs=frozenset(one["name"] for one in spec.get("outputs") or ()),
        returns=chosen["returns"] if "returns" in chosen else spec.get("returns"),
        batch=chosen["batch"].get("by", "any") if chosen.get("batch") else None,
    )


def _sent(emit: Emit) -> Sent:
    data: Any = emit.event.data
    media = emit.event.datacontenttype
    if data is not None and media is not None:
        if is_json(media):
            data = msgspec.json.decode(data)
        elif media.startswith("text/"):
            data = data.decode()
    return Sent(emit.output, emit.key, data, emit.event.id, emit.event)


def _body(reply: Response) -> bytes:
    return reply.body if isinstance(reply.body, bytes) else b""


def _complete(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits: the memory store, and plain handlers."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # T, by the coroutine's type
    work.close()
    raise UsageError("this needs a running loop", hint="await run.aio(data)")
