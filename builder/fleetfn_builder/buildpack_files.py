"""Our buildpack as files: its scripts, the assembly that they use, uv, and the wheel of FleetFn.

It goes along with every build, so that any builder image can make functions; one of `fn builder create` has it inside.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from fleetfn_builder.assembly.layers import Tree
from fleetfn_builder.wheel import uv_path

ID = "fleetfn/python"
LABEL = "dev.fleetfn.buildpack"
"""Of a builder image that has the buildpack inside: its digest."""

_HERE = Path(__file__).parent
_OWN = _HERE / "buildpack"


@dataclass(frozen=True, slots=True)
class BuildpackFiles:
    """`trees`: where each file goes. `digest`: over all of them, sha256 in hex."""

    trees: list[Tree]
    digest: str


@cache
def about() -> dict[str, str]:
    """`id`, `version`, `api` ..., as buildpack.toml says."""
    written = tomllib.loads((_OWN / "buildpack.toml").read_text("utf-8"))
    return {**written["buildpack"], "api": written["api"]}


def folder() -> str:
    """Where a builder image has it."""
    return f"/cnb/buildpacks/{ID.replace('/', '_')}/{about()['version']}"


def collect(wheel: Path) -> BuildpackFiles:
    """`wheel`: FleetFn's. Raises BuildError where uv is not installed."""
    lib = PurePosixPath("lib/fleetfn_builder")
    files = {
        PurePosixPath("buildpack.toml"): _OWN / "buildpack.toml",
        PurePosixPath("bin/detect"): _OWN / "bin" / "detect",
        PurePosixPath("bin/build"): _OWN / "bin" / "build",
        PurePosixPath("bin/uv"): uv_path(),
        PurePosixPath("wheels") / wheel.name: wheel,
        lib / "__init__.py": _HERE / "__init__.py",
        **{lib / "assembly" / each.name: each for each in sorted((_HERE / "assembly").glob("*.py"))},
        **{lib / "buildpack" / each.name: each for each in sorted(_OWN.glob("*.py"))},
    }
    total = hashlib.sha256()
    for name, path in files.items():
        total.update(f"{name}\0{_digest(path)}\n".encode())
    return BuildpackFiles([Tree(path, f"{folder()}/{name}") for name, path in files.items()], total.hexdigest())


@cache
def _known(path: Path, _time: int, _size: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _digest(path: Path) -> str:
    status = path.stat()
    return _known(path, status.st_mtime_ns, status.st_size)
