"""What of a function's folder is its source: its files, their digest, and a gzipped tar of them.

Equal folders give equal bytes, whoever packs them and when. What never belongs to a source is left out: version
control, caches, virtual environments, `.env` and `.envrc` files, a node's own files. `.fnignore` names more, one
pattern a line: `data/` a folder, `*.csv` a name anywhere, `docs/*.md` a path.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from fleetfn.errors import TargetError

IGNORE_FILE = ".fnignore"

NEVER = (
    ".git/",
    ".hg/",
    ".svn/",
    "__pycache__/",
    "*.pyc",
    "*.pyo",
    "*.egg-info/",
    ".env",
    ".env.*",
    ".envrc",
    ".venv/",
    "venv/",
    "node_modules/",
    ".tox/",
    ".nox/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
    ".hypothesis/",
    ".idea/",
    ".vscode/",
    ".DS_Store",
    ".fleetfn/",
)
"""Patterns as in .fnignore."""


def files(folder: Path) -> list[Path]:
    """The files of a source, relative and sorted. Raises TargetError for links that lead out of the folder."""
    return sorted(_walk(folder, Path(), patterns(folder)))


def pack(folder: Path, into: IO[bytes]) -> int:
    """Write the tar; how many files it holds."""
    names = files(folder)
    with (
        gzip.GzipFile(fileobj=into, mode="wb", compresslevel=6, mtime=0, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in names:
            content = (folder / name).read_bytes()
            member = tarfile.TarInfo(name.as_posix())
            member.size = len(content)
            member.mode = 0o755 if (folder / name).stat().st_mode & stat.S_IXUSR else 0o644
            tar.addfile(member, io.BytesIO(content))
    return len(names)


def digest(folder: Path, names: Iterable[Path], *more: bytes) -> str:
    """SHA-256 in hex over these files (relative path, the owner's execute bit, content), sorted, and `more`."""
    total = hashlib.sha256()
    for name in sorted(names):
        path = folder / name
        mode = b"x" if path.stat().st_mode & stat.S_IXUSR else b"-"
        with path.open("rb") as content:
            _add(total, name.as_posix().encode(), mode, hashlib.file_digest(content, "sha256").digest())
    for each in more:
        _add(total, each)
    return total.hexdigest()


def _add(total: hashlib._Hash, *parts: bytes) -> None:
    """With lengths, so that two neighbours cannot pass for other two."""
    for part in parts:
        total.update(len(part).to_bytes(8, "big"))
        total.update(part)


def patterns(folder: Path) -> tuple[str, ...]:
    """What is left out of a folder. Raises TargetError for a pattern that takes files back in, and for what
    is no text.
    """
    path = folder / IGNORE_FILE
    if not path.is_file():
        return NEVER
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]  # some editors begin with a mark
    except UnicodeDecodeError as error:
        raise TargetError(f"{path} is no UTF-8 text: {error}", hint="Save it as UTF-8.") from error
    for number, line in enumerate(lines, 1):
        if line.startswith("!"):
            raise TargetError(
                f"{path}:{number}: {line!r}: a pattern cannot take files back in",
                hint="Name only what to leave out.",
            )
    return (*NEVER, *(line for line in lines if line and not line.startswith("#")))


def _walk(folder: Path, inside: Path, patterns: Sequence[str]) -> Iterator[Path]:
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            name = inside / entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if ignored(name, patterns, is_folder=is_folder):
                continue
            if is_folder:
                yield from _walk(folder, name, patterns)
            elif _is_file_inside(folder, entry):
                yield name


def ignored(name: Path, patterns: Sequence[str], *, is_folder: bool) -> bool:
    """Does a pattern name this file or folder? `name` is relative to the source."""
    path = name.as_posix()
    for pattern in patterns:
        if pattern.endswith("/") and not is_folder:
            continue
        bare = pattern.strip("/")
        subject = path if "/" in pattern.rstrip("/") else name.name
        if fnmatchcase(subject, bare):
            return True
    return False


def _is_file_inside(folder: Path, entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)  # sockets and pipes are no source
    target = Path(entry.path).resolve()
    if target.is_file() and target.is_relative_to(folder.resolve()):
        return True
    raise TargetError(
        f"{entry.path} is a link to {target}, which is not a file of this folder",
        hint=f"Copy what it points to, or name the link in {IGNORE_FILE}.",
    )
