"""The payload argument: from an event's bytes to what the handler asks for, decided when it is bound."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from fleetfn import values
from fleetfn.errors import DataError
from fleetfn.event import Event
from fleetfn.http import Request
from fleetfn.invocation import Call
from fleetfn.signature import Argument, Place
from fleetfn.tick import Tick

Read = Callable[[Call], Any]
"""A call -> the payload, of a batch that of one of its events. Raises DataError."""

ONE_BY_ONE = {
    "http": "each caller of an http trigger waits for a reply of its own",
    "cron": "each fire of a cron trigger is for itself",
}
"""Why triggers of a kind have no batches."""


def reader(argument: Argument, at: Place, *, kind: str) -> Read:
    """Raises BindingError for a type that no bytes decode into."""
    type_ = argument.type
    if argument.batch and kind in ONE_BY_ONE:
        raise at.error(f"is a Batch, and {ONE_BY_ONE[kind]}", "take one event at a time", argument.name)
    if type_ is Request:
        if kind != "http":
            raise at.error(
                f"is a Request, and {kind} triggers have none", "take the data: T, Event[T] or bytes", argument.name
            )
        return _request
    ticks = type_ in (Tick, Event[Tick])
    if ticks and kind != "cron":
        raise at.error(
            f"is a Tick, and {kind} triggers have none", "take the data: T, Event[T] or bytes", argument.name
        )
    if kind == "cron" and not ticks and type_ is not Event:
        raise at.error("is no Tick, and a clock gives nothing else", "take tick: Tick, or no payload", argument.name)
    if type_ is Event:
        return _event
    if get_origin(type_) is Event:
        return _with_attributes(_data(get_args(type_)[0], argument, at))
    return _of_call(_data(type_, argument, at))


def _request(call: Call) -> Request:
    if call.request is None:
        raise DataError("the handler asks for a Request, and the event did not come over HTTP")
    return call.request


def _event(call: Call) -> Event[bytes | None]:
    return call.event


def _with_attributes(data: Callable[[bytes | None], Any]) -> Read:
    def read(call: Call) -> Event[Any]:
        event = call.event
        return Event(
            id=event.id,
            source=event.source,
            type=event.type,
            subject=event.subject,
            time=event.time,
            datacontenttype=event.datacontenttype,
            dataschema=event.dataschema,
            extensions=event.extensions,
            headers=event.headers,
            data=data(event.data),
        )

    return read


def _data(type_: Any, argument: Argument, at: Place) -> Callable[[bytes | None], Any]:
    optional = type_ in {Any, object, NoneType} or (
        get_origin(type_) in {Union, UnionType} and NoneType in get_args(type_)
    )
    bare = _without_none(type_)
    if bare is bytes:
        return _raw(optional=optional)
    if bare is str:
        return _text(optional=optional)
    if bare in {bytearray, memoryview}:
        raise at.error(f"is a {bare.__name__}", "take bytes", argument.name)
    return _json(_decoder(type_, argument, at), optional=optional)


def _of_call(data: Callable[[bytes | None], Any]) -> Read:
    return lambda call: data(call.event.data)


def _without_none(type_: Any) -> Any:
    if get_origin(type_) in {Union, UnionType}:
        rest = [part for part in get_args(type_) if part is not NoneType]
        return rest[0] if len(rest) == 1 else type_
    return type_


def _decoder(type_: Any, argument: Argument, at: Place) -> Callable[[bytes], Any]:
    try:
        problem = values.undecodable(type_)
        codec = values.Codec(type_)
    except Exception as error:
        raise at.error(
            f"cannot be decoded from JSON: {error}", "see the payload types in the docs", argument.name
        ) from error
    if problem:
        raise at.error(
            f"cannot be bound: {problem}",
            "a payload is a Struct, dataclass, TypedDict, pydantic model, builtin, Event, or Request",
            argument.name,
        )
    return codec.decoder


def _json(decode: Callable[[bytes], Any], *, optional: bool) -> Callable[[bytes | None], Any]:
    def read(data: bytes | None) -> Any:
        if data:
            try:
                return decode(data)
            except (ValueError, RecursionError) as error:
                raise DataError(_about_body(values.explain(error, data))) from error
        if optional:
            return None
        raise _empty()

    return read


def _about_body(message: str) -> str:
    return message if message.startswith("$") else f"body is {message}"


def _raw(*, optional: bool) -> Callable[[bytes | None], Any]:
    def read(data: bytes | None) -> bytes | None:
        if data is None and not optional:
            raise _empty()
        return data

    return read


def _text(*, optional: bool) -> Callable[[bytes | None], Any]:
    def read(data: bytes | None) -> str | None:
        if data is None:
            if optional:
                return None
            raise _empty()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"body is not UTF-8 text: {error.reason} at byte {error.start}") from error

    return read


def _empty() -> DataError:
    return DataError("body is empty", hint="send data, or let the handler take `T | None`")
