"""The file system that an image's layers make together: names, links, and the contents of the few files asked for.

Nothing is unpacked: layers are streamed once, lowest first. What a layer takes away of those below it, names tell:
https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_LINKS = 40
"""As many links as Linux follows in one path."""
_LARGEST = 64 << 30
"""Bytes of one file: tarfile would look for ages for the end of one that is said to be larger."""


@dataclass(frozen=True, slots=True)
class _Entry:
    link: str | None = None
    """Where a symbolic link leads, as written."""
    folder: bool = False
    content: bytes | None = None


class Merged:
    """Paths have no leading slash."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def add(self, layer: IO[bytes], wanted: Callable[[str], int]) -> None:
        """Lay a tar (gzipped or not) over what is there. `wanted`: how many bytes of a file to keep, 0: none.

        Reads to the end of the tar. Raises tarfile.TarError, EOFError and what reading raises.
        """
        upper: dict[str, _Entry] = {}
        gone: set[str] = set()
        emptied: set[str] = set()
        with tarfile.open(fileobj=layer, mode="r|*") as tar:
            for member in tar:
                if not 0 <= member.size <= _LARGEST:
                    raise tarfile.ReadError(f"{member.name!r} has {member.size} bytes")
                path = _clean(member.name)
                folder, name = posixpath.split(path)
                if name == _OPAQUE:
                    emptied.add(folder)
                elif name.startswith(_WHITEOUT):
                    gone.add(posixpath.join(folder, name.removeprefix(_WHITEOUT)))
                elif path and (entry := self._entry(tar, member, upper, wanted(path))):
                    upper[path] = entry
        gone.update(path for path, entry in upper.items() if not entry.folder and path in self._entries)
        self._hide(gone, emptied)
        self._entries.update(upper)
        for path in upper:
            for above in _ancestors(path):
                self._entries.setdefault(above, _Entry(folder=True))

    def _entry(
        self, tar: tarfile.TarFile, member: tarfile.TarInfo, upper: dict[str, _Entry], size: int
    ) -> _Entry | None:
        if member.isdir():
            return _Entry(folder=True)
        if member.issym():
            return _Entry(link=member.linkname)
        if member.islnk():
            same = _clean(member.linkname)
            return upper.get(same) or self._entries.get(same)
        if not member.isfile():
            return None
        content = tar.extractfile(member) if size else None
        return _Entry(content=content.read(size) if content else None)

    def _hide(self, gone: set[str], emptied: set[str]) -> None:
        if not gone and not emptied:
            return
        for path in list(self._entries):
            above = set(_ancestors(path))
            if path in gone or above & gone or above & emptied:
                del self._entries[path]

    def real(self, path: str) -> str | None:
        """The file or folder that a path leads to, every link followed; None: there is none."""
        done: list[str] = []
        rest = _clean(path).split("/")
        links = 0
        while rest:
            part = rest.pop(0)
            if part in {"", "."}:
                continue
            if part == "..":
                done = done[:-1]
                continue
            entry = self._entries.get("/".join([*done, part]))
            if entry is None or entry.link is None:
                done.append(part)
                continue
            links += 1
            if links > _LINKS:
                return None
            done = [] if entry.link.startswith("/") else done
            rest = [*entry.link.split("/"), *rest]
        found = "/".join(done)
        return found if found in self._entries or not found else None

    def content(self, path: str) -> bytes | None:
        """What was kept of a file, links followed; None: no such file, or nothing was wanted of it."""
        real = self.real(path)
        return self._entries[real].content if real else None

    def contents(self) -> Iterable[tuple[str, bytes]]:
        """All that was kept."""
        return ((path, entry.content) for path, entry in self._entries.items() if entry.content is not None)

    def names(self, folder: str) -> list[str]:
        """What a folder holds, links followed, sorted."""
        real = self.real(folder)
        if real is None:
            return []
        start = f"{real}/" if real else ""
        inside = (path.removeprefix(start) for path in self._entries if path.startswith(start))
        return sorted({rest.partition("/")[0] for rest in inside} - {""})

    def files(self) -> Iterable[str]:
        return (path for path, entry in self._entries.items() if not entry.folder)


def _clean(name: str) -> str:
    path = posixpath.normpath("/" + name).lstrip("/")
    return "" if path == "." else path


def _ancestors(path: str) -> Iterable[str]:
    yield ""
    for at, letter in enumerate(path):
        if letter == "/":
            yield path[:at]
