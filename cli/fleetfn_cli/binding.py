"""Import a function's handlers and bind them to their triggers, in this process (found.py: in one of its own)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fleetfn.binder import bind, check_state_types, state_type
from fleetfn.errors import BindingError, FleetError
from fleetfn_runtime import imports
from fleetfn_runtime.imports import LoadError
from fleetfn_runtime.load import bind_info
from fleetfn_spec import secrets
from fleetfn_spec.function import Function

from fleetfn_cli.found import Found, Looked

Targets = dict[str, Callable[..., Any]]
"""By reference."""


def look(function: Function, folder: Path) -> Looked:
    """Every handler is tried, so that one problem does not hide the next."""
    imports.prepare(folder)
    targets: Targets = {}
    found = list(dict.fromkeys(_problems(function, folder, targets)))
    return Looked(found, keeps_state=bool(found) or any(map(state_type, _used(function, targets).values())))


def _problems(function: Function, folder: Path, targets: Targets) -> Iterator[Found]:
    """`targets` is filled."""
    spec = function.spec
    config = _without_secrets(spec.config)
    for reference in _references(function):
        try:
            targets[reference] = imports.find(reference, folder)
        except LoadError as error:
            yield _load_problem(error)
    for trigger in spec.triggers:
        target = targets.get(spec.handler_of(trigger))
        if target is None:
            continue
        try:
            bind(target, trigger=bind_info(function, trigger, folder, config))
        except FleetError as error:
            yield from _binding_problems(error, folder)
    try:
        check_state_types(_used(function, targets))
    except FleetError as error:
        yield from _binding_problems(error, folder)


def _used(function: Function, targets: Targets) -> Targets:
    """Those that are handlers."""
    return {name: targets[name] for name in _handlers(function) if name in targets}


def _references(function: Function) -> list[str]:
    spec = function.spec
    decodes = [trigger.decode for trigger in spec.triggers if trigger.decode is not None]
    return list(dict.fromkeys([*_handlers(function), *([spec.lifespan] if spec.lifespan else []), *decodes]))


def _handlers(function: Function) -> list[str]:
    return list(dict.fromkeys(function.spec.handler_of(trigger) for trigger in function.spec.triggers))


def _without_secrets(value: Any) -> Any:
    """Secrets are the node's to resolve; a text stands for each here."""
    if secrets.reference_in(value) is not None:
        return secrets.SecretText("")
    if isinstance(value, dict):
        return {name: _without_secrets(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return value


def _load_problem(error: LoadError) -> Found:
    cause = error.__cause__
    module = cause.name or "" if isinstance(cause, ModuleNotFoundError) else ""
    return Found(error.message, error.hint, error.place, module)


def _binding_problems(error: FleetError, folder: Path) -> Iterator[Found]:
    if isinstance(error, BindingError) and error.config:
        lines = _lines(folder)
        for problem in error.config:
            yield Found(problem, error.hint, f"function.yaml:{_line(lines, problem.partition(':')[0])}")
    elif isinstance(error, BindingError) and error.file:
        file = Path(error.file)
        shown = file.relative_to(folder) if file.is_relative_to(folder) else file
        message = error.message.removeprefix(f"{error.file}:{error.line}: ")
        yield Found(message, error.hint, f"{shown}:{error.line}")
    else:
        yield Found(error.message, error.hint)


def _lines(folder: Path) -> dict[str, int]:
    """Of each value in function.yaml, by its path with dots."""
    from fleetfn_spec.load import read_function
    from fleetfn_spec.places import dotted

    return {dotted(path): line for path, (line, _) in read_function(folder).places.spots.items()}


def _line(lines: dict[str, int], name: str) -> int:
    """Of the value called `spec.config.limits.hot`; one that is not there has the line of what should hold it."""
    while name and name not in lines:
        name = name[: max(name.rfind("."), name.rfind("["), 0)]
    return lines.get(name, 1)
