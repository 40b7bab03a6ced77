"""What a base image holds: its Python, its C library, what is installed in it.

Read off the image's config and the names in its layers, without running or unpacking anything; a base is known by its
manifest's digest, so this is done once for each.
"""

from __future__ import annotations

import email.parser
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Literal

import msgspec

from fleetfn_builder.builder import BuildError, Platform
from fleetfn_builder.merged_layers import Merged

OLDEST = (3, 11)
"""FleetFn's own."""

USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a container engine looks when the image names no PATH."""

_WANTED = f"A base image brings Python {OLDEST[0]}.{OLDEST[1]} or newer, in one of the folders of its PATH."
_HEAD = 4096
"""Bytes of an interpreter: its ELF header and the name of its loader stand there."""
_WHOLE = 64 * 1024 * 1024
_LISTS = frozenset({"var/lib/dpkg/status", "lib/apk/db/installed"})
_RPM = ("usr/lib/sysimage/rpm/", "usr/share/rpm/", "var/lib/rpm/")
_LIST_FOLDER = "var/lib/dpkg/status.d/"
_INTERPRETER = re.compile(r"python(3(?:\.(\d+))?)?")


class Package(msgspec.Struct, frozen=True, order=True):
    """Installed in the base. `kind` as package URLs name it."""

    kind: Literal["apk", "deb", "pypi"]
    name: str
    version: str
    architecture: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one base image of one platform."""

    architecture: str
    python: str
    """`3.12`."""
    version: str
    """`3.12.4`; where only the minor version is known, that."""
    interpreter: str
    """Absolute path, no link."""
    libc: Literal["glibc", "musl"]
    libc_version: str = ""
    """`2.36`; of glibc. Empty: it could not be told."""
    packages: list[Package]
    unread: str = ""
    """A kind of packages that are installed and not among these: `rpm`."""


def check_architecture(name: str, found: str, asked: Platform) -> None:
    """Raises BuildError where the image `name` is of another architecture than asked."""
    if found != asked.architecture:
        raise BuildError(
            f"the base image {name} is for {found or 'an unnamed architecture'}, and {asked.architecture} is asked for",
            hint=f"Name a base that has {asked}, or build for linux/{found}." if found else "Name another base.",
        )


def scan(
    name: str, architecture: str, env: Sequence[str], layers: Iterable[tuple[str, Callable[[], IO[bytes]]]]
) -> Facts:
    """`env`: `NAME=value` of its config; `layers`: digests and how each is opened, lowest first. Raises BuildError."""
    merged = Merged()
    for digest, opening in layers:
        try:
            with opening() as layer:
                merged.add(layer, _wanted)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise BuildError(
                f"layer {digest} of the base image {name} does not read as a tar, gzipped or not: {error}",
                hint="Fetch the base anew. Layers compressed by zstd are not read: name a base with gzipped ones.",
            ) from error
    return facts(name, architecture, env, merged)


def facts(name: str, architecture: str, env: Sequence[str], merged: Merged) -> Facts:
    """Raises BuildError where the base has no Python that FleetFn runs on."""
    variables = dict(each.partition("=")[::2] for each in env)
    told = variables.get("PYTHON_VERSION", "")
    packages = sorted(set(_packages(merged)))
    found = [
        (version, path)
        for path in _interpreters(merged, variables.get("PATH") or USUAL_PATH)
        if (version := _minor(merged, path, told))
    ]
    if not found:
        raise BuildError(f"the base image {name} has no Python", hint=_WANTED)
    fit = [each for each in found if each[0] >= OLDEST]
    if not fit:
        newest = max(found)
        raise BuildError(
            f"the Python of the base image {name} is too old: {_dotted(newest[0])}, /{newest[1]}", hint=_WANTED
        )
    minor, path = fit[0]
    python = _dotted(minor)
    return Facts(
        architecture=architecture,
        python=python,
        version=_whole_version(python, told, packages),
        interpreter=f"/{path}",
        libc=(libc := _libc(merged, path)),
        libc_version=_glibc(packages) if libc == "glibc" else "",
        packages=packages,
        unread="rpm" if any(path.startswith(_RPM) for path in merged.files()) else "",
    )


def _wanted(path: str) -> int:
    folder, name = posixpath.split(path)
    if path in _LISTS or path.startswith(_LIST_FOLDER) or _is_metadata(path):
        return _WHOLE
    return _HEAD if _INTERPRETER.fullmatch(name) and folder.endswith("bin") else 0


def _is_metadata(path: str) -> bool:
    return path.endswith((".dist-info/METADATA", ".egg-info/PKG-INFO", ".egg-info"))


def _interpreters(merged: Merged, path: str) -> list[str]:
    """Files: what `python3` leads to first, then others by version, newest first."""
    folders = [each for each in path.split(":") if each.startswith("/")]
    plain = [merged.real(f"{folder}/{name}") for name in ("python3", "python") for folder in folders]
    versioned = [
        (int(match[2]), merged.real(f"{folder}/{name}"))
        for folder in folders
        for name in merged.names(folder)
        if (match := _INTERPRETER.fullmatch(name)) and match[2]
    ]
    newest = [found for _, found in sorted(versioned, key=lambda each: -each[0])]
    return list(dict.fromkeys(each for each in (*plain, *newest) if each))


def _minor(merged: Merged, path: str, told: str) -> tuple[int, int] | None:
    """By its own name, by the standard library beside it, or by what the image says of itself."""
    match = _INTERPRETER.fullmatch(posixpath.basename(path))
    if match and match[2]:
        return 3, int(match[2])
    prefix = posixpath.dirname(posixpath.dirname(path))
    beside = [each for each in merged.names(posixpath.join(prefix, "lib")) if re.fullmatch(r"python3\.\d+", each)]
    text = beside[0].removeprefix("python") if len(beside) == 1 else told
    numbers = re.match(r"(\d+)\.(\d+)", text)
    return (int(numbers[1]), int(numbers[2])) if numbers else None


def _whole_version(python: str, told: str, packages: Iterable[Package]) -> str:
    if told.startswith(f"{python}."):
        return told
    for package in packages:
        if package.kind != "pypi" and package.name in {f"python{python}", "python3", f"python{python}-minimal"}:
            match = re.match(r"\d+\.\d+\.\d+", package.version)
            if match and match[0].startswith(f"{python}."):
                return match[0]
    return python


def _libc(merged: Merged, interpreter: str) -> Literal["glibc", "musl"]:
    """By the loader that the interpreter names; for one that names none, by the loaders that are there."""
    head = merged.content(interpreter) or b""
    if b"/ld-musl-" in head:
        return "musl"
    if b"/ld-linux" in head:
        return "glibc"
    names = {posixpath.basename(path) for path in merged.files()}
    has_glibc = any(name.startswith("ld-linux") or name == "libc.so.6" for name in names)
    return "musl" if not has_glibc and any(name.startswith("ld-musl-") for name in names) else "glibc"


def _glibc(packages: Iterable[Package]) -> str:
    versions = (re.match(r"\d+\.\d+", each.version) for each in packages if (each.kind, each.name) == ("deb", "libc6"))
    return next((found[0] for found in versions if found), "")


def _packages(merged: Merged) -> Iterator[Package]:
    for path, content in merged.contents():
        text = content.decode("utf-8", "replace")
        if path == "lib/apk/db/installed":
            yield from _apk(text)
        elif path in _LISTS or (path.startswith(_LIST_FOLDER) and not path.endswith(".md5sums")):
            yield from _deb(text)
        elif _is_metadata(path):
            head = email.parser.HeaderParser().parsestr(text)
            if head["Name"] and head["Version"]:
                yield Package("pypi", re.sub(r"[-_.]+", "-", head["Name"]).lower(), head["Version"])


def _deb(text: str) -> Iterator[Package]:
    for block in re.split(r"\n{2,}", text):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        installed = fields.get("Status", "ok installed").endswith(" installed")  # distroless images write none
        if installed and "Package" in fields and "Version" in fields:
            yield Package("deb", fields["Package"], fields["Version"], fields.get("Architecture", ""))


def _apk(text: str) -> Iterator[Package]:
    for block in re.split(r"\n{2,}", text):
        fields = dict(line.split(":", 1) for line in block.splitlines() if line[1:2] == ":")
        if "P" in fields and "V" in fields:
            yield Package("apk", fields["P"], fields["V"], fields.get("A", ""))


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
