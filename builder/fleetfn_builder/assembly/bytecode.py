"""Bytecode beside the sources, so that a worker on a read-only file system need not compile at each start.

It is taken without a look at the source (PEP 552, unchecked hashes): times do not matter. One new process compiles
all, in order and with one hash seed, since what marshal writes depends on what the process has seen; and the names in
it are those of the image, for tracebacks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.running import run
from fleetfn_builder.assembly.target import of_this_machine

_COMPILE = """
import os, py_compile, sys
source, path = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
found = []
for folder, folders, files in os.walk(source):
    found += [os.path.join(folder, name) for name in files if name.endswith(".py")]
for file in sorted(found):
    name = path + "/" + os.path.relpath(file, source)
    try:
        py_compile.compile(file, dfile=name, doraise=True, optimize=0, invalidation_mode=mode)
    except Exception:
        pass  # a template, or a test of another Python's syntax: whoever imports it learns why
"""


def interpreter(python: str, uv: Path | None = None) -> Path | None:
    """One of this minor version on this machine; None where there is none (then `why_not` says so)."""
    if of_this_machine().python == python:
        return Path(sys.executable)
    found = shutil.which(f"python{python}")
    if found and _is(found, python):
        return Path(found)
    return _known_to(uv, python) if uv is not None else None


def why_not(python: str) -> str:
    return f"no Python {python} on this machine to compile with: the image goes without bytecode, and starts slower"


def compile_tree(source: Path, path: str, python: Path) -> None:
    """Compile all modules of a folder that will lie at `path` in the image. Raises AssemblyError.

    A module of the folder in which this process works does not stand in for one of Python's (`-P`).
    """
    command = [str(python), "-P", "-s", "-S", "-B", "-c", _COMPILE, str(source.resolve()), str(PurePosixPath(path))]
    status, lines = run(command, env=_environment(), folder=None, said=lambda _: None)
    if status != 0:
        raise AssemblyError(f"{python} cannot compile {path}:\n" + "\n".join(lines[-5:]))


def _environment() -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


def _known_to(uv: Path, python: str) -> Path | None:
    found = _said([str(uv), "python", "find", "--no-python-downloads", "--no-project", "--no-config", python])
    return Path(found) if found and _is(found, python) else None


def _is(interpreter: str, python: str) -> bool:
    """A file of that name may be a shim that only says which version is not set up."""
    return _said([interpreter, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]) == python


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - Python, or uv
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
