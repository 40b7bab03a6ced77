"""Reading a handler's signature: which argument is what, by its type. Raises BindingError."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fleetfn.batch import Batch
from fleetfn.config import ConfigMark
from fleetfn.context import Context
from fleetfn.errors import BindingError
from fleetfn.event import Event
from fleetfn.http import Request
from fleetfn.state import Snapshot, State
from fleetfn.tick import Tick

Role = Literal["payload", "context", "state", "snapshot", "config"]


@dataclass(frozen=True, slots=True)
class Argument:
    """`type`: the T of State[T], Snapshot[T], Config[T], Batch[T]; the annotation itself for another payload."""

    name: str
    role: Role
    type: Any
    keyword: bool
    """It can only be passed by name."""
    batch: bool = False
    """A payload per event: Batch[T]."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a handler is written, for messages."""

    name: str
    file: str
    line: int
    code: Callable[..., Any] | None

    def error(self, message: str, hint: str, argument: str = "") -> BindingError:
        where = f"{self.name}(): argument {argument!r} " if argument else f"{self.name}() "
        return BindingError(where + message, hint=hint, argument=argument, file=self.file, line=self._line(argument))

    def _line(self, argument: str) -> int:
        if not argument or self.code is None:
            return self.line
        try:
            tree = ast.parse(textwrap.dedent("".join(inspect.getsourcelines(self.code)[0])))
        except (OSError, SyntaxError):
            return self.line
        first = inspect.getsourcelines(self.code)[1]
        lines = (node.lineno for node in ast.walk(tree) if isinstance(node, ast.arg) and node.arg == argument)
        return first + next(lines, 1) - 1


def place(target: Callable[..., Any], root: Path | None = None) -> Place:
    code = underlying(target)
    name = str(getattr(target, "__name__", "") or getattr(code, "__qualname__", type(target).__name__))
    if not hasattr(code, "__code__"):
        return Place(name, "", 0, None)
    file = code.__code__.co_filename
    if root is not None and file.startswith(f"{root}/"):
        file = file[len(str(root)) + 1 :]
    return Place(name, file, code.__code__.co_firstlineno, code)


def underlying(target: Any) -> Any:
    """The function a user wrote, below partial(), decorators and instances with `__call__`."""
    while True:
        inner = inspect.unwrap(target)
        if isinstance(inner, functools.partial):
            inner = inner.func
        elif callable(inner) and not inspect.isroutine(inner) and not isinstance(inner, type):
            inner = type(inner).__call__
        if inner is target:
            return target
        target = inner


def arguments(target: Callable[..., Any], at: Place) -> list[Argument]:
    """Every argument with its role, in the order of the signature; at most one payload."""
    _check_callable(target, at)
    found: list[Argument] = []
    for name, parameter in _parameters(target, at).items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise at.error("takes whatever comes, and nothing would", "name each argument with its type", name)
        if isinstance(target, functools.partial) and name in target.keywords:
            continue
        type_ = _hint(target, name, parameter, at)
        found.append(_argument(name, type_, keyword=parameter.kind is parameter.KEYWORD_ONLY, at=at))
    payloads = [argument.name for argument in found if argument.role == "payload"]
    if len(payloads) > 1:
        raise at.error(
            f"is a second payload beside {payloads[0]!r}",
            "an event has one payload; put configuration into Config[T], state into State[T]",
            payloads[1],
        )
    for role in ("state", "snapshot", "config", "context"):
        same = [argument.name for argument in found if argument.role == role]
        if len(same) > 1:
            raise at.error(f"is a second {role} beside {same[0]!r}", f"take {role} once", same[1])
    return found


def takes_batch(target: Callable[..., Any]) -> bool:
    """Whether it takes several events at a time. Raises BindingError."""
    return any(argument.batch for argument in arguments(target, place(target)))


def takes_tick(target: Callable[..., Any]) -> bool:
    """Whether it is a handler of a clock. Raises BindingError."""
    return any(argument.type in (Tick, Event[Tick]) for argument in arguments(target, place(target)))


def _check_callable(target: Callable[..., Any], at: Place) -> None:
    if isinstance(target, type):
        raise at.error("is a class", "name a function, or an instance that has __call__")
    if not callable(target):
        raise at.error(f"is no function but {type(target).__name__}", "name a function: `handler: module:function`")
    code = underlying(target)
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise at.error("is a generator", "return one value; send more with ctx.emit(output, data)")


def _parameters(target: Callable[..., Any], at: Place) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (ValueError, TypeError, NameError) as error:
        raise at.error(f"has no signature to read: {error}", "name a function written in Python") from error


def _hint(target: Callable[..., Any], name: str, parameter: inspect.Parameter, at: Place) -> Any:
    if parameter.annotation is parameter.empty:
        raise at.error("has no type", f"annotate it, e.g. {name}: dict", name)
    code = underlying(target)
    # One argument at a time: the return annotation need not resolve, and the message can name the argument.
    shim = SimpleNamespace(__annotations__={name: parameter.annotation})
    try:
        return get_type_hints(shim, globalns=getattr(code, "__globals__", {}), include_extras=True)[name]
    except NameError as error:
        missing = error.name or str(error)
        if missing in _type_checking_names(code):
            raise at.error(
                f"has the type {parameter.annotation!r}, and {missing!r} is imported under TYPE_CHECKING only",
                "import it at run time: the binder reads annotations (with ruff, ignore TC001-TC003 for handlers)",
                name,
            ) from error
        raise at.error(
            f"has the type {parameter.annotation!r}, and {missing!r} is not defined in its module",
            f"import {missing}, outside of functions and TYPE_CHECKING",
            name,
        ) from error
    except (SyntaxError, TypeError, AttributeError) as error:
        raise at.error(
            f"has the type {parameter.annotation!r}, which fails: {error}", "mend the annotation", name
        ) from error


def _type_checking_names(code: Any) -> set[str]:
    module = sys.modules.get(getattr(code, "__module__", ""))
    try:
        tree = ast.parse(inspect.getsource(module)) if module is not None else ast.parse("")
    except (OSError, TypeError, SyntaxError):
        return set()
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    return {
        (alias.asname or alias.name).split(".")[0]
        for block in blocks
        for node in ast.walk(block)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


def _argument(name: str, type_: Any, *, keyword: bool, at: Place) -> Argument:
    origin = get_origin(type_)
    args = get_args(type_)
    if origin is Annotated and any(isinstance(mark, ConfigMark) for mark in args[1:]):
        if isinstance(args[0], TypeVar):
            raise at.error("is Config of nothing", "say of what: Config[Limits]", name)
        return Argument(name, "config", args[0], keyword)
    if type_ is Context:
        return Argument(name, "context", Context, keyword)
    for generic, role, example in _GENERICS:
        if type_ is generic:
            word = generic.__name__
            raise at.error(f"is {word} of nothing", f"say of what: {word}[{example}]", name)
        if origin is generic:
            if generic is Batch:
                _refuse_in_batch(name, args[0], at)
            return Argument(name, role, args[0], keyword, batch=generic is Batch)
    _refuse_inside(name, type_, at)
    return Argument(name, "payload", type_, keyword)


_GENERICS: tuple[tuple[type, Role, str], ...] = (
    (State, "state", "Pack"),
    (Snapshot, "snapshot", "Pack"),
    (Batch, "payload", "Reading"),
)


def _refuse_in_batch(name: str, type_: Any, at: Place) -> None:
    if isinstance(type_, TypeVar):
        raise at.error("is Batch of nothing", "say of what: Batch[Reading]", name)
    base = get_origin(type_) or type_
    if base is Annotated and any(isinstance(mark, ConfigMark) for mark in get_args(type_)):
        raise at.error("is a Batch of Config", "take Config[T] beside the batch", name)
    if base in {State, Snapshot, Context, Batch, Request, Tick} or type_ == Event[Tick]:
        hint = "take one at a time" if base in {Request, Tick, Event} else "take it beside the batch"
        raise at.error(f"is a Batch of {_word(type_)}", hint, name)
    _refuse_inside(name, type_, at)


def _word(type_: Any) -> str:
    base = get_origin(type_) or type_
    return "Tick" if base is Event else str(base.__name__)


def _refuse_inside(name: str, type_: Any, at: Place) -> None:
    """`State[Pack] | None`, `list[Event]`: words of ours that stand inside of another type."""
    inside = get_args(type_) if get_origin(type_) not in {Event, Literal} else ()
    for part in inside:
        base = get_origin(part) or part
        if base is Annotated and any(isinstance(mark, ConfigMark) for mark in get_args(part)):
            raise at.error("has Config inside of another type", "take Config[T] alone", name)
        if base in {Batch, State, Snapshot, Context, Event, Request, Tick}:
            optional = get_origin(type_) in {Union, UnionType}
            raise at.error(
                f"has {base.__name__} inside of another type",
                "Event[T | None] takes events without data"
                if optional and base is Event
                else f"take {base.__name__} alone",
                name,
            )
