"""Reading function.yaml and environments.yaml: strict, all problems at once, each with file, line and next step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fleetfn_spec import check, walk, yaml_nodes
from fleetfn_spec.anchoring import anchored
from fleetfn_spec.environments import Environments
from fleetfn_spec.function import Function
from fleetfn_spec.handlers import Sources
from fleetfn_spec.places import Places
from fleetfn_spec.problems import Problem, SpecError

FUNCTION_FILE = "function.yaml"
ENVIRONMENTS_FILE = "environments.yaml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A function, and where in its file everything stands (for `check.check_function`)."""

    function: Function
    places: Places


def load_function(folder: Path) -> Function:
    """The function of a folder, its handlers' files checked too. Raises SpecError with all problems."""
    return read_function(folder).function


def read_function(folder: Path) -> Loaded:
    """As `load_function`, with places."""
    path = folder / FUNCTION_FILE
    if not path.exists():
        raise SpecError([_no_function(folder, path)])
    root, problems = yaml_nodes.parse(yaml_nodes.read(path), str(path))
    function, places, wrong = walk.walk(root, Function, str(path))
    problems += wrong
    problems += check.check_spec(function, places)
    problems += _handlers(function, folder, places)
    if problems:
        raise SpecError(problems)
    return Loaded(function, places)


def load_environments(start: Path) -> tuple[Environments, Path] | None:
    """The nearest environments.yaml in `start` or above it, and its path; None: there is none. Raises SpecError.

    Relative paths of secrets' files and certificates come back absolute: they start at the file's own folder.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        path = folder / ENVIRONMENTS_FILE
        if path.exists():
            return read_environments(path), path
    return None


def read_environments(path: Path) -> Environments:
    """Of this very file. Raises SpecError."""
    root, problems = yaml_nodes.parse(yaml_nodes.read(path), str(path))
    environments, places, wrong = walk.walk(root, Environments, str(path))
    problems += wrong
    problems += check.check_environments(environments, places)
    if problems:
        raise SpecError(problems)
    replace = msgspec.structs.replace
    return replace(
        environments,
        environments=[
            replace(
                environment,
                connections=[anchored(each, path.parent) for each in environment.connections],
            )
            for environment in environments.environments
        ],
    )


def _no_function(folder: Path, path: Path) -> Problem:
    if folder.is_file():
        return Problem(str(folder), 0, 0, "", "is a file, not a function's folder", f"name the folder, {folder.parent}")
    if not folder.exists():
        return Problem(str(folder), 0, 0, "", "there is no such folder", "`fn new NAME` makes a function")
    there = sorted(each.name + ("/" if each.is_dir() else "") for each in folder.iterdir())
    near = [name for name in there if name.lower() in ("function.yml", "functions.yaml", "func.yaml")]
    if near:
        return Problem(str(path), 0, 0, "", "is not there", f"rename {near[0]}")
    listed = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") if there else "nothing"  # noqa: PLR2004 - as many as are listed
    hint = f"the folder holds {listed}; `fn new NAME` makes a function"
    return Problem(str(path), 0, 0, "", "is not there", hint)


def _handlers(function: Function, folder: Path, places: Places) -> list[Problem]:
    sources = Sources(folder)
    found: list[Problem] = []
    for path in _handler_fields(function):
        try:
            target: Any = function
            for part in path:
                target = target[part] if isinstance(part, int) else getattr(target, part)
            if isinstance(target, str):
                found.extend(sources.check(target, path, places))
        except walk.TouchedBrokenError:
            continue
    return found


def _handler_fields(function: Function) -> list[tuple[str | int, ...]]:
    fields: list[tuple[str | int, ...]] = [("spec", "handler"), ("spec", "lifespan")]
    try:
        count = len(function.spec.triggers)
    except walk.TouchedBrokenError:
        count = 0
    for i in range(count):
        fields += [("spec", "triggers", i, "handler"), ("spec", "triggers", i, "decode")]
    return fields
