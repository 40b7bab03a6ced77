"""The wheel of the FleetFn that runs here, so that an image gets the very FleetFn that builds it.

    <cache>/<digest>/fleetfn-0.1.0-py3-none-any.whl

From an editable install it is built, from any other put together again from the installed files. The digest is over
what goes in, so a wheel is made once.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from fleetfn_builder.assembly import quoting
from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.running import run
from fleetfn_builder.builder import BuildError, Progress

NAME = "fleetfn"

_NOTES = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_build.json", "uv_cache.json"})
"""In a dist-info, made by installers."""

_THEN = (1980, 1, 1, 0, 0, 0)
"""The first time a zip file knows."""

_EPOCH = "315532800"
"""The same in seconds since 1970."""

_KEPT = 8
"""Wheels."""

_GIVE_ONE = "`uv build --wheel` in FleetFn's checkout makes one where the index can be reached: name its file"


def uv_path() -> Path:
    """Where uv is: beside this Python or on PATH. Raises BuildError."""
    found = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise BuildError("uv is not there to install dependencies", hint="pip install 'fleetfn[build]'")
    return Path(found)


def to_put_in(named: Path | None, folder: Path, progress: Progress) -> Path:
    """The wheel that a build names, or this FleetFn's, kept in a builder's cache `folder`. Raises BuildError."""
    return named or of_this_fleetfn(folder / "wheels", progress)


def of_this_fleetfn(cache: Path, progress: Progress = lambda _: None) -> Path:
    """Path of the wheel below `cache`, made where it is missing. Raises BuildError."""
    try:
        distribution = importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError as error:
        raise BuildError("FleetFn is not installed here, so it has no wheel", hint="pip install fleetfn") from error
    checkout = _checkout(distribution)
    key = _of_checkout(checkout) if checkout is not None else _of_installed(distribution)
    place = cache / key[:32]
    found = next(iter(place.glob("*.whl")), None)
    if found is not None:
        return found
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as folder:
            if checkout is not None:
                progress(f"building FleetFn's wheel from {checkout}")
                _build(checkout, Path(folder))
            else:
                _repack(distribution, Path(folder))
            return _keep(Path(folder), place)
    except OSError as error:
        raise BuildError(
            f"FleetFn's wheel cannot be written to {cache}: {error.strerror or error}", hint=quoting.space(error)
        ) from error


def _keep(folder: Path, place: Path) -> Path:
    """A folder with the wheel in it, there at once or not at all; who comes second takes the first one's."""
    wheel = next(iter(folder.glob("*.whl")))
    whole = folder / "whole"
    whole.mkdir()
    wheel.rename(whole / wheel.name)
    try:
        whole.rename(place)
    except OSError:
        if not (place / wheel.name).is_file():
            raise
    _forget_old(place.parent)
    return place / wheel.name


def _forget_old(cache: Path) -> None:
    """Each change of a checkout leaves a wheel behind; another build may be reading one of the last."""
    kept = sorted(cache.glob("*/*.whl"), key=lambda wheel: wheel.stat().st_mtime, reverse=True)
    for wheel in kept[_KEPT:]:
        shutil.rmtree(wheel.parent, ignore_errors=True)


def _checkout(distribution: importlib.metadata.Distribution) -> Path | None:
    """Of an editable install (PEP 610)."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _of_checkout(checkout: Path) -> str:
    """By size and time of change, as make does: reading all would take longer than `fn build` of what has not changed.
    An upgrade of the build backend is not seen, and needs not be: the wheel's modules would be the same.
    """
    total = hashlib.sha256(str(checkout).encode())
    for path, status in _files(checkout):
        total.update(f"\n{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return total.hexdigest()


def _files(checkout: Path) -> Iterator[tuple[str, os.stat_result]]:
    """All that can change the wheel."""
    try:
        project = (checkout / "pyproject.toml").read_text("utf-8")
        packages = tomllib.loads(project)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise BuildError(
            f"{checkout} is no checkout of FleetFn any more: {error}", hint="install FleetFn anew"
        ) from error
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (checkout / name).is_file():
            yield name, (checkout / name).stat()
    for package in sorted(packages):
        yield from sorted(_below(str(checkout / package)))


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _below(entry.path)
            elif not entry.name.endswith(".pyc"):
                yield entry.path, entry.stat()


def _build(checkout: Path, into: Path) -> None:
    command = [str(uv_path()), "build", "--wheel", "--no-progress", "--color", "never"]
    command += ["--out-dir", str(into), "--python", sys.executable, "--no-python-downloads", str(checkout)]
    env = {**os.environ, "SOURCE_DATE_EPOCH": _EPOCH, "NO_COLOR": "1"}
    try:
        status, lines = run(command, env=env, folder=checkout, said=lambda _: None)
    except AssemblyError as error:
        raise BuildError(error.message, hint=error.hint) from error
    if status != 0 or not any(into.glob("*.whl")):
        indexes = {name: value for name, value in env.items() if name.startswith("UV_") and "INDEX" in name}
        why = quoting.Scrubber(indexes)("\n".join(quoting.reason(lines)))
        raise BuildError(f"FleetFn's wheel cannot be built from {checkout}:\n{why}", hint=_GIVE_ONE)


def _of_installed(distribution: importlib.metadata.Distribution) -> str:
    """RECORD has the digests of all."""
    return hashlib.sha256((distribution.read_text("RECORD") or "").encode()).hexdigest()


def _repack(distribution: importlib.metadata.Distribution, into: Path) -> None:
    """Stored, not packed: zip libraries differ in what they make of the same bytes."""
    version = distribution.version
    record = f"{NAME}-{version}.dist-info/RECORD"
    rows = []
    with zipfile.ZipFile(into / f"{NAME}-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in _installed(distribution):
            wheel.writestr(zipfile.ZipInfo(name, _THEN), content)
            rows.append((name, f"sha256={_base64(content)}", str(len(content))))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([*rows, (record, "", "")])
        wheel.writestr(zipfile.ZipInfo(record, _THEN), text.getvalue())


def _installed(distribution: importlib.metadata.Distribution) -> Iterable[tuple[str, bytes]]:
    names = sorted(str(file) for file in distribution.files or () if _is_of_the_wheel(PurePosixPath(str(file))))
    if not names:
        raise BuildError("the FleetFn that is installed here has no list of its files", hint="name a wheel of it")
    for name in names:
        try:
            yield name, Path(str(distribution.locate_file(name))).read_bytes()
        except OSError as error:
            raise BuildError(
                f"the FleetFn that is installed here is not whole: {name}: {error.strerror}",
                hint="install FleetFn anew, or name a wheel",
            ) from error


def _is_of_the_wheel(name: PurePosixPath) -> bool:
    """Not the scripts beside it, bytecode, or an installer's notes."""
    if name.parts[0] == ".." or "__pycache__" in name.parts:
        return False
    return not (name.parent.name.endswith(".dist-info") and name.name in _NOTES)


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
