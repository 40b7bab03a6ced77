"""A function's folder and function.yaml -> handlers bound to their triggers, ready to run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleetfn.binder import BindInfo, bind, check_state_types, state_type
from fleetfn.bound import BoundHandler
from fleetfn.errors import BindingError
from fleetfn.invocation import Handler
from fleetfn.lifespan import Lifespan
from fleetfn.states import Walks
from fleetfn_spec import secrets
from fleetfn_spec.durations import seconds
from fleetfn_spec.function import BatchPolicy, Function, RetryPolicy, Trigger
from fleetfn_triggers.trigger import Reader, Reading

from fleetfn_runtime import imports
from fleetfn_runtime.breaker import Limits
from fleetfn_runtime.imports import LoadError
from fleetfn_runtime.retrying import Policy
from fleetfn_runtime.runs import Batching, Route


@dataclass(frozen=True, slots=True)
class LoadedTrigger:
    spec: Trigger
    route: Route
    reader: Reader
    decode: Callable[[bytes], Any] | None = None
    """The user's `decode`, for rows of the inbox that hold data as it came."""


@dataclass(frozen=True, slots=True)
class LoadedFunction:
    function: Function
    triggers: tuple[LoadedTrigger, ...]
    lifespan: Lifespan
    config: dict[str, Any]
    """As in function.yaml, secret references resolved."""
    walks: Walks
    """What `ctx.states` of its handlers reads: to be opened with the store."""

    @property
    def stateful(self) -> Handler | None:
        """A handler that reads or writes state, if there is one: all have the same state type."""
        for trigger in self.triggers:
            if trigger.route.handler.has_state or trigger.route.handler.has_snapshot:
                return trigger.route.handler
        return None


def load(function: Function, folder: Path, *, revision: str = "") -> LoadedFunction:
    """Import, bind, resolve. Raises LoadError: what is wrong, with the user's own line."""
    imports.prepare(folder)
    spec = function.spec
    lifespan = Lifespan(imports.find(spec.lifespan, folder) if spec.lifespan is not None else None)
    config = secrets.resolve_config(spec.config, os.environ, folder)
    targets = {trigger.name: imports.find(spec.handler_of(trigger), folder) for trigger in spec.triggers}
    secret_config = any(True for _ in secrets.references(spec.config))
    triggers: list[LoadedTrigger] = []
    try:
        walks = Walks(next((type_ for target in targets.values() if (type_ := state_type(target)) is not None), None))
        for kind, trigger in enumerate(spec.triggers):
            info = replace(
                bind_info(function, trigger, folder, config),
                revision=revision,
                secret_config=secret_config,
                lifespan=lifespan,
                walks=walks,
            )
            handler = bind(targets[trigger.name], trigger=info)
            triggers.append(_trigger(function, trigger, kind, handler, folder))
        check_state_types(targets)
    except BindingError as error:
        raise _unbound(error, folder) from error
    return LoadedFunction(function, tuple(triggers), lifespan, config, walks)


def bind_info(function: Function, trigger: Trigger, folder: Path, config: dict[str, Any]) -> BindInfo:
    """What function.yaml says of a trigger, for the binder: `fn check` and the worker bind by the same."""
    spec = function.spec
    return BindInfo(
        name=trigger.name,
        kind=trigger.kind.name,
        has_key=trigger.key_expression is not None,
        batch=trigger.batch.by if trigger.batch is not None else None,
        function=function.name,
        returns=spec.returns_of(trigger),
        outputs=frozenset(output.name for output in spec.outputs),
        config=config,
        root=folder,
    )


def _trigger(function: Function, trigger: Trigger, kind: int, handler: BoundHandler, folder: Path) -> LoadedTrigger:
    spec = function.spec
    route = Route(
        trigger=trigger.name,
        handler=handler,
        kind=kind,
        timeout=spec.timeout_of(trigger),
        policy=policy(spec.retry_of(trigger)),
        park=spec.onDeadLetter == "park",
        breaker=None if spec.breaker is None else Limits(spec.breaker.keys, seconds(spec.breaker.window)),
        batch=batching(trigger.batch or BatchPolicy()) if handler.takes_batch else None,
    )
    decode = imports.find(trigger.decode, folder) if trigger.decode is not None else None
    reading = Reading(
        trigger=trigger.name,
        function=function.name,
        key=trigger.key_expression,
        event=trigger.event,
        decode=decode,
    )
    return LoadedTrigger(trigger, route, trigger.kind.reader(trigger.block, reading), decode)


def policy(retry: RetryPolicy) -> Policy:
    return Policy(retry.attempts, seconds(retry.initial), retry.factor, seconds(retry.max))


def batching(batch: BatchPolicy) -> Batching:
    return Batching(batch.size, seconds(batch.wait), by_key=batch.by == "key")


def _unbound(error: BindingError, folder: Path) -> LoadError:
    if not error.file:
        return LoadError(error.message, hint=error.hint)
    path = Path(error.file)
    place = f"{path.relative_to(folder) if path.is_relative_to(folder) else path}:{error.line}"
    return LoadError(error.message.removeprefix(f"{error.file}:{error.line}: "), hint=error.hint, place=place)
