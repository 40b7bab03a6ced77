"""Changes a module of the product as it is imported, for a process whose Python path has a folder beside this file. The
interpreter runs that folder's sitecustomize.py at its start.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

SLOW = 0.1
"""Seconds that a save takes longer in a mutant, so that a kill is likely to fall before it."""


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as everybody else would, and changes it once it has run."""

    def __init__(self, name: str, change: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._change = change

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            raise ImportError(f"{fullname}, which is to be changed, is not there")
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            self._change(module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]  # of this one loader
        return spec


def when_imported(name: str, change: Callable[[ModuleType], None]) -> None:
    sys.meta_path.insert(0, _Finder(name, change))
