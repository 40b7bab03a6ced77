"""The CNB lifecycle's programs, for a builder image: ready ones, or built from its Go module.

<cache>/lifecycle/<version>-<architecture>-<digest of lifecycle/>/lifecycle, launcher
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fleetfn_builder.assembly.errors import AssemblyError
from fleetfn_builder.assembly.running import run
from fleetfn_builder.builder import BuildError, Platform, Progress

PHASES = ("analyzer", "builder", "creator", "detector", "exporter", "extender", "rebaser", "restorer")
"""Names by which the one program is called."""

_MODULE = Path(__file__).parent / "lifecycle"
_PACKAGE = "github.com/buildpacks/lifecycle"
_PROGRAMS = ("lifecycle", "launcher")
_BUILDPACK_APIS = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12")
_PLATFORM_APIS = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15")
"""Of the version that lifecycle/go.mod names."""

_DESCRIPTION = "lifecycle.toml"
_GO = ("/usr/local/go/bin/go", "/usr/lib/go/bin/go")
"""Where it is put by its own tarball, and by others, without being on PATH."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """`folder`: its programs, the phases as links to one or as programs of their own."""

    folder: Path
    version: str
    buildpack_apis: Sequence[str]
    platform_apis: Sequence[str]


def named(path: Path, workshop: Path) -> Lifecycle:
    """A release: its tarball, unpacked into `workshop`, or the folder that it unpacks to. Raises BuildError."""
    root = path
    if path.is_file():
        root = workshop / "lifecycle-release"
        _unpack(path, root)
    try:
        told = tomllib.loads((root / _DESCRIPTION).read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise BuildError(
            f"{path} is no release of the lifecycle: its {_DESCRIPTION} cannot be read: {error}",
            hint="Name the tarball of a release (lifecycle-v0.21.17+linux.x86-64.tgz), or the folder it unpacks to.",
        ) from error
    folder = root / "lifecycle"
    missing = [name for name in ("creator", "launcher") if not (folder / name).exists()]
    if missing:
        raise BuildError(
            f"{path} is no release of the lifecycle: it lacks {', '.join(missing)}", hint="Fetch it again."
        )
    apis = told.get("apis", {})
    return Lifecycle(
        folder,
        str(told.get("lifecycle", {}).get("version", "")),
        _supported(apis, "buildpack"),
        _supported(apis, "platform"),
    )


def built(cache: Path, platform: Platform, progress: Progress) -> Lifecycle:
    """By Go, once for each version and platform. Raises BuildError."""
    version = _version()
    place = cache / "lifecycle" / f"{version}-{platform.architecture}-{_digest()[:16]}"
    if not (place / "creator").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, prefix=".making-") as folder:
            made = Path(folder) / "programs"
            made.mkdir()
            _build(Path(folder), made, version, platform, progress)
            for name in PHASES:
                (made / name).symlink_to("lifecycle")
            try:
                made.rename(place)
            except OSError:  # another was quicker
                if not (place / "creator").exists():
                    raise
    return Lifecycle(place, version, _BUILDPACK_APIS, _PLATFORM_APIS)


def _supported(apis: Mapping[str, Any], kind: str) -> list[str]:
    return [str(each) for each in apis.get(kind, {}).get("supported", [])]


def _unpack(path: Path, into: Path) -> None:
    into.mkdir()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if member.isfile() and ".." not in name.parts and not name.is_absolute():
                    content = tar.extractfile(member)
                    target = into / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read() if content is not None else b"")
                    target.chmod(0o755 if member.mode & 0o100 else 0o644)
                elif member.issym() and "/" not in member.linkname:
                    (into / name).parent.mkdir(parents=True, exist_ok=True)
                    (into / name).symlink_to(member.linkname)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BuildError(f"{path} cannot be unpacked: {error}", hint="Fetch the release again.") from error


def _version() -> str:
    found = re.search(rf"{_PACKAGE} v(\S+)", (_MODULE / "go.mod").read_text("utf-8"))
    if found is None:
        raise BuildError(f"{_MODULE / 'go.mod'} names no version of {_PACKAGE}", hint="Install FleetFn anew.")
    return found[1]


def _digest() -> str:
    total = hashlib.sha256()
    for path in sorted(each for each in _MODULE.rglob("*") if each.is_file()):
        total.update(f"{path.relative_to(_MODULE)}\0".encode() + path.read_bytes())
    return total.hexdigest()


def _build(folder: Path, into: Path, version: str, platform: Platform, progress: Progress) -> None:
    go = _go()
    shutil.copytree(_MODULE, folder / "module")
    env = {
        **{name: value for name, value in os.environ.items() if name not in {"GOFLAGS", "GOWORK"}},
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": platform.architecture,
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOWORK": "off",
    }
    progress(f"building the lifecycle {version} by {go}: minutes, the first time")
    for name in _PROGRAMS:
        command = [
            go,
            *("build", "-ldflags", f"-s -w -X {_PACKAGE}/cmd.Version={version}"),
            *("-o", str(into / name), f"{_PACKAGE}/cmd/{name}"),
        ]
        try:
            status, lines = run(command, env=env, folder=folder / "module", said=_downloads(progress))
        except AssemblyError as error:
            raise BuildError(error.message, hint=_READY) from error
        if status != 0:
            why = "\n".join([line for line in lines if not line.startswith("go: downloading")][-5:])
            raise BuildError(
                f"the lifecycle {version} cannot be built:\n{why}",
                hint="Go's module proxy must be reachable (GOPROXY names another). " + _READY,
            )


_READY = "Or name a release of the lifecycle by --lifecycle."


def _downloads(progress: Progress) -> Progress:
    """A line now and then, not a hundred."""
    count = 0

    def said(line: str) -> None:
        nonlocal count
        if line.startswith("go: downloading"):
            count += 1
            if count % 25 == 0:
                progress(f"{count} modules fetched")

    return said


def _go() -> str:
    found = shutil.which("go") or next((path for path in _GO if os.access(path, os.X_OK)), None)
    if found is None:
        raise BuildError(
            "Go is not installed here, and the lifecycle is built by it",
            hint="Install Go 1.26 or later (https://go.dev/dl). " + _READY,
        )
    return found
