"""`bind`: a user's callable and a trigger -> a Handler. Everything that can be decided once is decided here."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fleetfn import configuring, payload, signature
from fleetfn.bound import BoundHandler, Plan
from fleetfn.bound_batch import BoundBatch
from fleetfn.context import Scope
from fleetfn.defaults import default_maker
from fleetfn.emits import Emitter
from fleetfn.errors import BindingError
from fleetfn.lifespan import Lifespan
from fleetfn.signature import Argument, Place
from fleetfn.states import Walks
from fleetfn.values import Codec

__all__ = ["BindInfo", "BindingError", "bind", "check_state_types", "state_type"]


@dataclass(frozen=True, kw_only=True)
class BindInfo:
    """What binding needs to know of the trigger and its function."""

    name: str
    """The trigger's."""
    kind: str
    """http, kafka, mqtt or cron."""
    has_key: bool
    function: str
    batch: Literal["key", "any"] | None = None
    """What `batch.by` of the trigger says; None: it has no `batch`."""
    revision: str = ""
    returns: str | None = None
    """The output that the return value goes to; None: nowhere."""
    outputs: frozenset[str] | None = frozenset()
    """Names that ctx.emit may use; None: any."""
    config: Mapping[str, Any] = field(default_factory=dict)
    secret_config: bool = False
    """Some of its values are secrets, so errors quote none."""
    config_source: str = "function.yaml"
    """The file that problems of `config` point at."""
    root: Path | None = None
    """The function's folder: which lines are the user's own. None: the folder of the handler's file."""
    lifespan: Lifespan = field(default_factory=Lifespan)
    walks: Walks = field(default_factory=Walks)
    """The function's, for ctx.states."""


def bind(target: Callable[..., Any], *, trigger: BindInfo) -> BoundHandler:
    """Raises BindingError, which names argument, file and line."""
    root = trigger.root.absolute() if trigger.root is not None else _folder(target)
    at = signature.place(target, root)
    found = signature.arguments(target, at)
    stored = _stored(found, at, trigger)
    batched = _batched(found, stored, at, trigger)
    codec, make = _codec(stored, at) if stored is not None else (None, _nothing)
    read = next((payload.reader(a, at, kind=trigger.kind) for a in found if a.role == "payload"), None)
    plan = Plan(
        call=_by_position(target, found),
        fixed=tuple(_config(a, at, trigger) if a.role == "config" else None for a in found),
        payload=(_index(found, "payload"), read),
        context=_index(found, "context"),
        cell=_index(found, stored.role if stored is not None else "state"),
        codec=codec,
        make=make,
        snapshot=stored is not None and stored.role == "snapshot",
        replies=trigger.kind == "http",
        returns=trigger.returns,
        root=root,
        place=f"{at.file}:{at.line}",
    )
    scope = Scope(
        function=trigger.function,
        revision=trigger.revision,
        emitter=Emitter(trigger.function, trigger.outputs),
        logger=logging.getLogger(f"fleetfn.function.{trigger.function}"),
        lifespan=trigger.lifespan,
        walks=trigger.walks,
    )
    if batched:
        return BoundBatch(plan, scope, is_async=_is_async(target), by_key=trigger.batch == "key")
    return BoundHandler(plan, scope, is_async=_is_async(target))


def state_type(target: Callable[..., Any]) -> Any:
    """The T of the handler's State[T] or Snapshot[T], None without one. Raises BindingError."""
    found = signature.arguments(target, signature.place(target))
    return next((a.type for a in found if a.role in {"state", "snapshot"}), None)


def check_state_types(targets: Mapping[str, Callable[..., Any]]) -> None:
    """One function keeps one record per key, so all its handlers (by trigger name) must agree on its type."""
    first: tuple[str, Any] | None = None
    for trigger, target in targets.items():
        type_ = state_type(target)
        if type_ is None:
            continue
        if first is None:
            first = trigger, type_
        elif type_ != first[1]:
            at = signature.place(target)
            name = next(a.name for a in signature.arguments(target, at) if a.role in {"state", "snapshot"})
            raise at.error(
                f"keeps {_shown(type_)}, but trigger {first[0]!r} of the same function keeps {_shown(first[1])}",
                "a function has one state type; put both into one T, or make two functions",
                name,
            )


def _stored(found: list[Argument], at: Place, trigger: BindInfo) -> Argument | None:
    kept = [a for a in found if a.role in {"state", "snapshot"}]
    if not kept:
        return None
    if len(kept) > 1:
        raise at.error(f"reads what {kept[0].name!r} holds", "take State or Snapshot, not both", kept[1].name)
    if not trigger.has_key:
        raise at.error(
            f"is {kept[0].role.capitalize()}, and trigger {trigger.name!r} has no key",
            "state is kept per key: give the trigger one, e.g. `key: data.vehicle`",
            kept[0].name,
        )
    return kept[0]


def _batched(found: list[Argument], stored: Argument | None, at: Place, trigger: BindInfo) -> bool:
    payload_ = next((a for a in found if a.role == "payload"), None)
    if payload_ is None or not payload_.batch:
        if trigger.batch is not None:
            raise at.error(
                f"takes no Batch, and trigger {trigger.name!r} has `batch`",
                "take one, e.g. `readings: Batch[Reading]`, or leave `batch` out",
            )
        return False
    if stored is not None and trigger.batch != "key" and trigger.kind not in payload.ONE_BY_ONE:
        raise at.error(
            f"is {stored.role.capitalize()}, and a batch of trigger {trigger.name!r} may have events of several keys",
            "say `batch: {by: key}` in the trigger: then each batch has one key",
            stored.name,
        )
    return True


def _codec(argument: Argument, at: Place) -> tuple[Codec, Callable[[], Any]]:
    word = f"{argument.role.capitalize()}[{_shown(argument.type)}]"
    try:
        codec = Codec(argument.type)
    except Exception as error:
        raise at.error(
            f"is {word}, which JSON cannot hold: {error}", "use a Struct or a dataclass", argument.name
        ) from error
    make, problem = default_maker(argument.type, codec)
    if problem:
        raise at.error(
            f"is {word}, and {problem}",
            f"give every field of {_shown(argument.type)} a default: a new key starts with {_shown(argument.type)}()",
            argument.name,
        )
    return codec, make


def _config(argument: Argument, at: Place, trigger: BindInfo) -> Any:
    value, problems = configuring.convert(trigger.config, argument.type, quote=not trigger.secret_config)
    if problems:
        raise BindingError(
            f"{trigger.config_source}: {'; '.join(problems)}",
            hint=f"config must fit {_shown(argument.type)}, which {at.name}() asks for ({at.file}:{at.line})",
            argument=argument.name,
            config=tuple(problems),
        )
    return value


def _by_position(target: Callable[..., Any], found: list[Argument]) -> Callable[..., Any]:
    names = [a.name for a in found if a.keyword]
    if not names:
        return target
    count = len(found) - len(names)
    return lambda *args: target(*args[:count], **dict(zip(names, args[count:], strict=True)))


def _nothing() -> None:
    return None


def _index(found: list[Argument], role: str) -> int:
    return next((index for index, a in enumerate(found) if a.role == role), -1)


def _is_async(target: Callable[..., Any]) -> bool:
    # A decorator's plain wrapper hands on the coroutine of the `async def` below it.
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(signature.underlying(target))


def _folder(target: Callable[..., Any]) -> Path | None:
    code = getattr(signature.underlying(target), "__code__", None)
    return Path(code.co_filename).parent if code is not None else None


def _shown(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_)) if isinstance(type_, type) else str(type_)
