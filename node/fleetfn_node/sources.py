"""A function's source as it travels: a tar (gzipped or not), read into a folder, and its digest.

Left out, wherever they lie: what LEFT_OUT names, compiled Python, and links. Two trees with equal files (paths, the
owner's execute bit, contents) have equal digests, whatever their times, owners and order.
"""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from fleetfn.cloudevents import attributes
from fleetfn.errors import FleetError
from fleetfn_plumbing import source

LIMIT = 64 * 1024 * 1024
"""Bytes of all files together."""

FILES = 10_000

LEFT_OUT = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules"}
    | {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", ".idea", ".vscode", ".DS_Store"}
)


class SourceError(FleetError):
    """A source that is not taken: too large, or with members that would leave its folder."""


def unpack(packed: IO[bytes], folder: Path) -> None:
    """Write the tar's files below `folder` (which is empty). Raises SourceError."""
    try:
        with tarfile.open(fileobj=packed, mode="r|*") as tar:
            _members(tar, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SourceError(f"the source does not read as a tar: {error}") from error


def _members(tar: tarfile.TarFile, folder: Path) -> None:
    size = files = 0
    for member in tar:
        size, files = size + member.size, files + 1
        if size > LIMIT or files > FILES:  # what is left out has to be unpacked to be read over, so it counts, too
            raise SourceError(
                f"the source is larger than {LIMIT // 1024 // 1024} MiB or {FILES} files",
                hint="keep data and virtual environments out of the function's folder",
            )
        path = _inside(member.name)
        if path is None or left_out(path):
            continue
        if member.issym() or member.islnk():
            raise SourceError(f"the source has a link, {member.name!r}", hint="put the file itself into the folder")
        if not member.isfile():
            continue
        try:
            _write(tar, member, folder / path)
        except OSError as error:
            raise SourceError(f"the source's {member.name!r} cannot be written: {error.strerror}") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    content = tar.extractfile(member)
    if content is None:
        return
    with content, target.open("xb") as file:
        while block := content.read(1 << 20):
            file.write(block)
    target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def _inside(name: str) -> PurePosixPath | None:
    """The member's place below the folder; None for the folder itself. Raises SourceError when it lies elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise SourceError(f"the source has a member outside its folder, {name!r}")
    if not attributes.is_unicode(name):
        raise SourceError(f"the source has a file whose name is not UTF-8, {name!a}", hint="rename it")
    return path if path.parts else None


def left_out(path: PurePosixPath) -> bool:
    return bool(LEFT_OUT.intersection(path.parts)) or path.suffix in {".pyc", ".pyo"}


def digest(folder: Path, *more: bytes) -> str:
    """SHA-256 in hex over the files below `folder` and `more`."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return source.digest(folder, (name for name in names if not left_out(PurePosixPath(name))), *more)
