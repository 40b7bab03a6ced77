"""What a handler's module imports, loaded without running the module itself: its top level may open clients or threads.

Modules beside the handler are not run either; what they import is followed.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path


def load(folder: Path, module: str) -> tuple[str, ...]:
    """Import them; names of those that cannot be (the worker that needs them will say why)."""
    missing = []
    for name in outside_imports(folder, module):
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - any import may fail in any way
            missing.append(name)
    return tuple(missing)


def outside_imports(folder: Path, module: str) -> list[str]:
    """Modules from outside the folder that `module` imports at its top level, in order, each once."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file(folder, name)
        if name in seen or file is None:
            continue
        seen.add(name)
        for imported in _imports(file, name):
            if _file(folder, imported.split(".")[0]) is None:
                found[imported] = None
            else:
                waiting.append(imported)
    return list(found)


def _imports(file: Path, module: str) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return  # the worker quotes it when it imports the file itself
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1]
            if node.module or parts:
                yield ".".join([*parts, node.module] if node.module else parts)


def _file(folder: Path, module: str) -> Path | None:
    path = folder.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return path if path.is_dir() and any(path.glob("*.py")) else None
