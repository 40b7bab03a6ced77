"""Does `module:callable` exist in a function's folder? Found out by reading the source, never by importing it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from fleetfn_spec.nearest import did_you_mean
from fleetfn_spec.places import Path as FieldPath
from fleetfn_spec.places import Places
from fleetfn_spec.problems import Problem

_Names = set[str] | None
"""Names a module defines; None: it may define any (`from x import *`, `__getattr__`)."""


class Sources:
    """The Python files of one function's folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, _Names | Problem] = {}

    def check(self, target: str, path: FieldPath, places: Places) -> Iterator[Problem]:
        """Problems of the field at `path` that holds `target`. A syntax error of the user's is told once."""
        module, _, name = target.partition(":")
        file = self._file(module)
        if file is None:
            wanted = module.replace(".", "/") + ".py"
            hint = did_you_mean(module, self._modules(), what="modules there")
            yield places.problem(path, f'"{target}": there is no {wanted} in {self._folder}', hint)
            return
        known_before = module in self._read
        names = self._names(module, file)
        if isinstance(names, Problem):
            if not known_before:
                yield names
        elif names is not None and name.split(".")[0] not in names:
            public = [each for each in names if not each.startswith("_")]
            hint = did_you_mean(name, public, what="it defines")
            yield places.problem(path, f'"{target}": {file} defines no "{name}"', hint)

    def _file(self, module: str) -> Path | None:
        base = self._folder.joinpath(*module.split("."))
        for file in (base.with_name(base.name + ".py"), base / "__init__.py"):
            if file.is_file():
                return file
        return None

    def _modules(self) -> list[str]:
        return [file.stem for file in self._folder.glob("*.py")]

    def _names(self, module: str, file: Path) -> _Names | Problem:
        if module not in self._read:
            try:
                self._read[module] = _defined(ast.parse(file.read_bytes(), str(file)).body)
            except SyntaxError as exc:
                self._read[module] = Problem(
                    str(file), exc.lineno or 1, exc.offset or 1, "", f"not Python: {exc.msg}", "mend this line"
                )
            except (OSError, ValueError, RecursionError) as exc:
                self._read[module] = Problem(str(file), 0, 0, "", f"cannot be read as Python: {exc}", "check the file")
        return self._read[module]


def _defined(body: list[ast.stmt]) -> _Names:
    names: set[str] = set()
    for statement in _statements(body):
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update((alias.asname or alias.name).split(".")[0] for alias in aliases)
            case ast.Assign() | ast.AnnAssign() | ast.With() | ast.For():
                names.update(_stored(statement))
    return None if names & {"*", "__getattr__"} else names


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements that run when the module is imported: those within `if`, `try` and `with` too."""
    for statement in body:
        yield statement
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for part in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _stored(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
