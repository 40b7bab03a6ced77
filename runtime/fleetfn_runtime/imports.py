"""Importing what function.yaml names as `module:callable`, and telling users which of their lines is wrong."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from fleetfn.errors import FleetError


class LoadError(FleetError):
    """A function that cannot be loaded. `place`: the user's own line, `handler.py:12`; `traceback`: whole; or ''."""

    def __init__(self, message: str, *, hint: str = "", place: str = "", traceback: str = "") -> None:
        super().__init__(message, hint=hint)
        self.place = place
        self.traceback = traceback


def prepare(folder: Path) -> None:
    """Put the function's folder first on sys.path, so that its modules are found before others of the same name."""
    place = str(folder)
    if sys.path[:1] != [place]:
        sys.path.insert(0, place)
    importlib.invalidate_caches()


def find(reference: str, folder: Path) -> Callable[..., Any]:
    """The callable that `module:callable` names in the function's folder (see `prepare`). Raises LoadError."""
    name, _, attribute = reference.partition(":")
    module = _import(name, folder)
    found: Any = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise _no_attribute(reference, module, folder) from None
    if not callable(found):
        raise LoadError(
            f'"{reference}" is not callable: it is {type(found).__name__} {found!r:.80}',
            hint="name a function",
            place=_shown(Path(module.__file__ or ""), folder),
        )
    return found  # type: ignore[no-any-return]  # callable, as just seen


def _import(name: str, folder: Path) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name, folder) from None
        raise _broken(
            error,
            folder,
            f"{name} needs the module {error.name!r}, which is not installed",
            f"add the package that has {error.name!r} to requirements.txt",
        ) from error
    except SyntaxError as error:
        place = _shown(Path(error.filename or ""), folder)
        text = f"{error.msg}: {(error.text or '').strip()}" if error.text else error.msg
        raise LoadError(
            f"{name} is not Python: {text}",
            hint="mend the line",
            place=f"{place}:{error.lineno}",
            traceback="".join(traceback.format_exception_only(error)),
        ) from error
    except BaseException as error:  # a module may do anything while it is imported, sys.exit() included
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _broken(error, folder, f"{name} cannot be imported: {type(error).__name__}: {error}", "") from error
    _check_shadowed(module, name, folder)
    return module


def _check_shadowed(module: ModuleType, name: str, folder: Path) -> None:
    """`inbox.py` or `json.py` in the folder is not what `import` gives, if the worker has imported its namesake."""
    top = name.partition(".")[0]
    mine = next((path for path in (folder / f"{top}.py", folder / top / "__init__.py") if path.exists()), None)
    where = Path(getattr(module, "__file__", None) or "")
    if mine is not None and not where.is_relative_to(folder):
        raise LoadError(
            f"{mine.name} is hidden by another module of the name {top!r}, {where}",
            hint="rename your file",
            place=_shown(mine, folder),
        )


def user_place(error: BaseException, folder: Path) -> str:
    """The innermost line of the user's own that `error` passed through, `handler.py:12`, or ''."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(folder):
            return f"{path.relative_to(folder)}:{frame.lineno}"
    return ""


def _broken(error: BaseException, folder: Path, message: str, hint: str) -> LoadError:
    text = "".join(traceback.format_exception(error))
    return LoadError(message, hint=hint, place=user_place(error, folder), traceback=text)


def _no_module(name: str, folder: Path) -> LoadError:
    known = sorted(path.stem for path in folder.glob("*.py"))
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"modules there: {', '.join(known) or 'none'}"
    return LoadError(f"there is no module {name!r} in the function's folder", hint=hint)


def _no_attribute(reference: str, module: ModuleType, folder: Path) -> LoadError:
    wanted = reference.partition(":")[2]
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    near = difflib.get_close_matches(wanted, own, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"callables there: {', '.join(own) or 'none'}"
    place = _shown(Path(module.__file__ or ""), folder)
    return LoadError(f'"{reference}": {module.__name__} has no {wanted!r}', hint=hint, place=place)


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
