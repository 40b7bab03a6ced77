"""The layers that a function's image has above its base, each made once for what it depends on.

    dependencies   target, FleetFn's needs, requirements.txt    minutes to seconds; the same for many functions
    runtime        FleetFn's wheel, Python's version
    sbom           the two above, the base, the function's name
    code           the source's files

Requirements that are not pinned stay as they were resolved for as long as their layer is kept (until the cache needs
its room for others); a fresh build resolves them anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import msgspec
from fleetfn_plumbing import source as sources

from fleetfn_builder import bills, images, inputs, needs, requirements
from fleetfn_builder.assembly import anatomy, bytecode, layers, resolving, runtime
from fleetfn_builder.assembly.target import Target
from fleetfn_builder.bases import Found
from fleetfn_builder.builder import BuildError, Progress, Request
from fleetfn_builder.composing import Piece
from fleetfn_builder.images import Descriptor
from fleetfn_builder.keeping import Keeping


class _Kept(msgspec.Struct):
    piece: Piece
    at: float


@dataclass(frozen=True)
class Wheel:
    """FleetFn's own."""

    path: Path

    @cached_property
    def digest(self) -> str:
        try:
            with self.path.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise BuildError(f"the wheel {str(self.path)!r} cannot be read: {error.strerror}") from error

    @cached_property
    def version(self) -> str:
        return runtime.version(self.path)


def target(found: Found) -> Target:
    facts = found.facts
    return Target(facts.python, facts.architecture, facts.libc, facts.interpreter, facts.libc_version)


class Layering:
    """For one build. Raises BuildError and AssemblyError."""

    def __init__(
        self, request: Request, source: inputs.Source, wheel: Wheel, keeping: Keeping, progress: Progress
    ) -> None:
        self._request = request
        self._source = source
        self._wheel = wheel
        self._keeping = keeping
        self._progress = progress
        self._interpreters: dict[str, Path | None] = {}
        self._versions: dict[str, list[str]] = {}

    @cached_property
    def _requirements(self) -> list[str]:
        return requirements.normalised(self._asked) if self._asked else []

    @property
    def _asked(self) -> Path | None:
        """None: the source has no such file, or leaves it out."""
        return self._source.folder / requirements.FILE if Path(requirements.FILE) in self._source.names else None

    @cached_property
    def _extras(self) -> list[str]:
        return needs.extras(self._request.function, self._request.extras)

    @cached_property
    def _needs(self) -> list[str]:
        return runtime.needs(self._wheel.path, self._extras)

    def depends_on(self, target: Target) -> list[object]:
        """All that decides what these layers hold, but the base."""
        compiled = self._interpreter(target.python) is not None
        return [self._dependencies_key(target), self._wheel.digest, compiled, self._source.files]

    def pieces(self, target: Target, found: Found) -> tuple[list[Piece], Descriptor]:
        """From the lowest upwards; and the bill of materials, which is kept by itself, too."""
        dependencies = self._dependencies(target)
        own = self._runtime(target)
        sbom = self._sbom(found, [dependencies, own])
        return [dependencies, own, sbom, self._code(target)], self._bill(sbom)

    def _dependencies_key(self, target: Target) -> str:
        env, secrets = self._request.env, self._request.secrets
        return inputs.digest(
            [inputs.shape(), str(target), target.interpreter, target.libc_version],
            [self._needs, self._constraints(target.python), self._requirements],
            [dict(env), sorted(secrets), self._interpreter(target.python) is not None],
            resolving.settings(self._source.folder, {**os.environ, **env}),
        )

    def _constraints(self, python: str) -> list[str]:
        """Looked up anew when something was installed or removed here: that reads each distribution's own file."""
        if python not in self._versions:
            key = f"versions {inputs.digest(python, self._extras, _installed())}"
            known = self._keeping.read("facts", key, list[str])
            self._versions[python] = needs.constraints(python, self._extras) if known is None else known
            if known is None:
                self._keeping.write("facts", key, self._versions[python])
        return self._versions[python]

    def _dependencies(self, target: Target) -> Piece:
        def make(folder: Path) -> Iterable[layers.Part]:
            from fleetfn_builder.assembly import install  # noqa: PLC0415 - when there is something to install
            from fleetfn_builder.wheel import uv_path  # noqa: PLC0415

            wanted = install.Wanted(
                needs=self._needs,
                requirements=self._asked,
                constraints=self._constraints(target.python),
                env=self._request.env,
                secrets=self._request.secrets,
            )
            install.install(folder / "tree", target, wanted, uv=uv_path(), progress=self._progress)
            self._compile(folder / "tree", anatomy.DEPENDENCIES, target)
            return [layers.Tree(folder / "tree", anatomy.DEPENDENCIES)]

        kept = self._layer("dependencies", self._dependencies_key(target), make)
        pinned = requirements.are_pinned(self._requirements) and self._constraints(target.python)
        if kept.was_there and not pinned:
            day = time.strftime("%Y-%m-%d", time.localtime(kept.at))
            self._progress(f"dependencies: as resolved on {day}; a fresh build resolves those that are not pinned anew")
        return kept.piece

    def _runtime(self, target: Target) -> Piece:
        def make(folder: Path) -> Iterable[layers.Part]:
            runtime.unpack(self._wheel.path, folder / "tree")
            self._compile(folder / "tree", anatomy.RUNTIME, target)
            return [layers.Tree(folder / "tree", anatomy.RUNTIME), layers.Folder(anatomy.DATA, anatomy.USER)]

        compiled = target.python if self._interpreter(target.python) else ""
        return self._layer("runtime", inputs.digest(inputs.shape(), self._wheel.digest, compiled), make).piece

    def _sbom(self, found: Found, below: Sequence[Piece]) -> Piece:
        """Read off the finished layers."""
        name = self._request.function.name

        def make(folder: Path) -> Iterable[layers.Part]:
            from fleetfn_builder.assembly import sbom  # noqa: PLC0415 - when there is one to write

            if found.facts.unread:
                self._progress(f"warning: the bill of materials lacks the base's {found.facts.unread} packages")
            sites = [self._metadata(piece, folder / piece.name) for piece in below]
            bill = sbom.bill(
                name,
                installed=sites,
                base=sbom.Base(found.base.reference or "base", found.base.digest),
                packages=[
                    sbom.package(each.kind, each.name, each.version, each.architecture) for each in found.facts.packages
                ],
            )
            return [layers.Text(bill, anatomy.SBOM)]

        key = inputs.digest(
            inputs.shape(), name, found.base.reference, found.base.digest, [each.diff_id for each in below]
        )
        return self._layer("sbom", key, make).piece

    def _bill(self, sbom: Piece) -> Descriptor:
        """By itself, as a result has it."""
        with self._keeping.blobs.open(sbom.descriptor) as content:
            return self._keeping.keep(bills.inside(content), bills.MEDIA_TYPE)

    def _metadata(self, piece: Piece, into: Path) -> Path:
        """What is installed there: its METADATA files, each in its dist-info."""
        into.mkdir()
        with self._keeping.blobs.open(piece.descriptor) as blob, tarfile.open(fileobj=blob, mode="r|gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                content = tar.extractfile(member) if path.name == "METADATA" else None
                if content is not None and path.parent.name.endswith(".dist-info"):
                    (into / path.parent.name).mkdir(exist_ok=True)
                    (into / path.parent.name / "METADATA").write_bytes(content.read())
        return into

    def _code(self, target: Target) -> Piece:
        def make(folder: Path) -> Iterable[layers.Part]:
            tree = folder / "tree"
            tree.mkdir()
            for name in self._source.names:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self._source.folder / name, tree / name)
            if sources.digest(tree, self._source.names) != self._source.files:
                raise BuildError("the source changed while it was read", hint="Build again.")
            self._compile(tree, anatomy.CODE, target)
            return [layers.Tree(tree, anatomy.CODE)]

        compiled = target.python if self._interpreter(target.python) else ""
        return self._layer("code", inputs.digest(inputs.shape(), self._source.files, compiled), make).piece

    def _compile(self, tree: Path, path: str, target: Target) -> None:
        python = self._interpreter(target.python)
        if python is not None:
            bytecode.compile_tree(tree, path, python)

    def _interpreter(self, python: str) -> Path | None:
        if python not in self._interpreters:
            self._interpreters[python] = bytecode.interpreter(python)
            if self._interpreters[python] is None:
                self._progress(f"warning: {bytecode.why_not(python)}")
        return self._interpreters[python]

    def _layer(self, name: str, key: str, make: _Make) -> _Layer:
        """`make` lays out what it holds in a folder of its own."""
        key = f"{name} {key}"
        with self._keeping.making(key):
            kept = self._keeping.read("layers", key, _Kept)
            if kept and not self._request.fresh and self._keeping.has(kept.piece.descriptor):
                return _Layer(kept.piece, kept.at, was_there=True)
            with self._keeping.workshop() as folder:
                made = layers.write(folder / "layer.tar.gz", make(folder))
                piece = Piece(name, Descriptor(images.LAYER, made.digest, made.size), made.diff_id)
                self._keeping.blobs.put(piece.descriptor, lambda: made.path.open("rb"))
            self._keeping.write("layers", key, _Kept(piece, time.time()))
            self._progress(f"{name}: {inputs.in_words(piece.descriptor.size)}")
            return _Layer(piece, time.time(), was_there=False)


def _installed() -> list[tuple[str, int]]:
    """Where Python looks for distributions, and when something came or went there last."""
    folders = [Path(each) for each in sys.path if each]
    return [(str(each), each.stat().st_mtime_ns) for each in folders if each.is_dir()]


_Make = Callable[[Path], Iterable[layers.Part]]


@dataclass(frozen=True, slots=True)
class _Layer:
    piece: Piece
    at: float
    was_there: bool
