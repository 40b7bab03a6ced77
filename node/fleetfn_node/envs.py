"""Dependency sets: a virtual environment per requirements.txt, resolved together with the runtime's own dependencies.

    envs/<hash>/bin/python    its site-packages hold what requirements.txt asks for, and a .pth to the node's own

The hash covers the requirements, the Python version and the versions the runtime has. Constraints hold the runtime's
dependencies at the versions it runs with, so a function cannot pull another msgspec under the worker's feet: such a
conflict is a deploy error that quotes the resolver.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

from fleetfn.errors import FleetError
from fleetfn_plumbing import own_versions

from fleetfn_node import durable

Progress = Callable[[str], None]

REQUIREMENTS = "requirements.txt"

_QUOTED = 20
"""Last lines of the resolver that a failure quotes."""

_NOT_OURS = frozenset({"typer", "rich", "cronsim", "tzdata"})
"""Dependencies that nothing in a worker imports: those of the command line and of clocks, and data."""


class DependencyError(FleetError):
    """The requirements cannot be installed; the message ends with the resolver's own lines."""


class Envs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._making: dict[str, asyncio.Lock] = {}
        self._known: dict[Path, Path] = {}
        self._versions: list[str] | None = None

    async def python(self, source: Path, progress: Progress = lambda _: None) -> Path:
        """The interpreter for a revision's source, its dependency set made where it is missing."""
        if source not in self._known:
            self._known[source] = await self._find(source, progress)
        return self._known[source]

    def is_there(self, source: Path) -> bool:
        """Its interpreter needs no installing first."""
        place = self._place(source)
        return place is None or (place / "complete").exists()

    async def forget_others(self, sources: Sequence[Path]) -> None:
        """Remove the dependency sets that none of these needs, with the Python and FleetFn of today."""
        await asyncio.to_thread(self._forget_others, sources)

    def _forget_others(self, sources: Sequence[Path]) -> None:
        needed = {self._place(source) for source in sources}
        for place in self._folder.iterdir():
            if place not in needed:
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, source: Path) -> Path | None:
        """None: it has no requirements."""
        requirements = normalised(source / REQUIREMENTS)
        return self._folder / env_name(requirements, self._constraints()) if requirements else None

    def _constraints(self) -> list[str]:
        if self._versions is None:
            self._versions = runtime_versions()
        return self._versions

    async def _find(self, source: Path, progress: Progress) -> Path:
        place = await asyncio.to_thread(self._place, source)
        if place is None:
            return Path(sys.executable)
        async with self._making.setdefault(place.name, asyncio.Lock()):
            if not (place / "complete").exists():
                progress(f"installing dependencies of {REQUIREMENTS}")
                await self._make(place, source, self._constraints(), progress)
        return place / "bin" / "python"

    async def _make(self, place: Path, source: Path, constraints: list[str], progress: Progress) -> None:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        try:
            await asyncio.to_thread(_bare, place)
            with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=self._folder) as pinned:
                pinned.write("\n".join(constraints))
                pinned.flush()
                await _install(place, source, Path(pinned.name), progress)
            await asyncio.to_thread(_finish, place)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
            raise


def normalised(requirements: Path, within: tuple[Path, ...] = ()) -> list[str]:
    """Lines without comments and blanks, those of included files and the digests of local ones among them; empty
    where there is no such file. `within`: the files that include this one. Raises DependencyError.
    """
    try:
        text = requirements.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DependencyError(f"{requirements.name} cannot be read: {error}", hint="it is UTF-8 text") from error
    if requirements.resolve() in within:
        raise DependencyError(f"{requirements.name} includes itself", hint="take the line out that closes the circle")
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.splitlines())
    around = (*within, requirements.resolve())
    return [each for line in lines if line for each in (line, *_behind(line, requirements.parent, around))]


def _behind(line: str, folder: Path, within: tuple[Path, ...]) -> list[str]:
    """What a line stands for beyond its own words: an included file's lines, a local file's content."""
    included = re.match(r"(?:-r|-c|--requirement|--constraint)[ =]*(\S+)$", line)
    if included:
        return normalised(folder / included[1], within)
    local = folder / line
    return [hashlib.sha256(local.read_bytes()).hexdigest()] if local.is_file() else []


def env_name(requirements: list[str], constraints: list[str]) -> str:
    parts = [platform.python_version(), sys.executable, *requirements, "", *constraints]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def runtime_versions() -> list[str]:
    """`name==version` of what is in a worker's process, as installed here."""
    return own_versions.pins({"worker", "kafka", "http"}, _NOT_OURS)


def _bare(place: Path) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(place)
    # addsitedir, unlike a plain line, also reads the .pth files there (an editable install is one)
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    _site_packages(place).joinpath("fleetfn-node.pth").write_text(line)


def _site_packages(place: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(place), "platbase": str(place)}))


def _finish(place: Path) -> None:
    durable.write(place / "complete", b"")


async def _install(place: Path, source: Path, constraints: Path, progress: Progress) -> None:
    command = [*_installer(place), "-r", str(source / REQUIREMENTS), "-c", str(constraints)]
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=source,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"},
    )
    output = process.stdout
    if output is None:
        raise TypeError("the installer's output is not piped")
    lines: list[str] = []
    try:
        while raw := await output.readline():
            line = raw.decode(errors="replace").rstrip()
            if line:
                lines.append(line)
                progress(line)
        status = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if status != 0:
        raise DependencyError(
            f"{REQUIREMENTS} cannot be installed:\n" + "\n".join(lines[-_QUOTED:]),
            hint="FleetFn's own dependencies are held at the versions it runs with; check the names, versions and "
            "that a package index can be reached",
        )


def _installer(place: Path) -> list[str]:
    python = str(place / "bin" / "python")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv:
        return [uv, "pip", "install", "--python", python]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "--python", python, "install", "--no-input", "--progress-bar", "off"]
    raise DependencyError("neither uv nor pip is there to install dependencies", hint="install uv beside FleetFn")
