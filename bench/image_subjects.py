"""Three ways from a function to an image in a registry, each with a copy of the folder and caches of its own."""

from __future__ import annotations

import itertools
import shutil
import time
from pathlib import Path
from typing import Protocol

from image_ground import FUNCTION, Ground
from setting import ROOT

FILES = ROOT / "bench" / "build"
BUILDER = "fleetfn-builder:bench"
LINE = "WINDOW = 60.0\n"
"""Of the handler: the line that is edited."""

_HOURS = itertools.count(3600)


class Subject(Protocol):
    reference: str
    """Of the image that was built last."""

    def forget(self) -> None:
        """Everything that earlier builds have left here and in the registry."""

    def edit(self) -> None:
        """Another value in one line, and another tag."""

    def build(self) -> float:
        """And push; seconds."""


class _Copied:
    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.name = ground, name
        self.home = ground.folder / name
        self.source = self.home / "function"
        shutil.copytree(FUNCTION, self.source, ignore=shutil.ignore_patterns("__pycache__"))
        self._numbers = itertools.count(1)
        self.renamed()

    def renamed(self) -> None:
        """A repository in which nothing is."""
        self.reference = f"{self.ground.registry}/{self.name}-{next(self._numbers)}:1"

    def edit(self) -> None:
        handler = self.source / "handler.py"
        before, _, after = (FUNCTION / "handler.py").read_text().partition(LINE)
        if not after:
            raise SystemExit(f"{FUNCTION / 'handler.py'} has no line {LINE.strip()!r} any more")
        handler.write_text(f"{before}WINDOW = {next(_HOURS)}.0\n{after}")
        self.reference = f"{self.reference.rpartition(':')[0]}:{next(self._numbers)}"


class ByFn(_Copied):
    """`fn build --push`."""

    def __init__(self, ground: Ground, builder: str, *words: str) -> None:
        super().__init__(ground, builder)
        self._words = [*words, "--builder", builder, "--base", ground.base, "--fleetfn", str(ground.wheel), "--push"]

    def forget(self) -> None:
        for name in ("fn-cache", "uv-cache"):
            shutil.rmtree(self.home / name, ignore_errors=True)
        self.renamed()

    def build(self) -> float:
        environ = {
            "FN_CACHE": str(self.home / "fn-cache"),
            "UV_CACHE_DIR": str(self.home / "uv-cache"),
            "UV_DEFAULT_INDEX": self.ground.packages,
            "DOCKER_HOST": self.ground.buildpacks,
        }
        begun = time.perf_counter()
        self.ground.fn(["build", str(self.source), "--tag", self.reference, *self._words], **environ)
        return time.perf_counter() - begun


class ByDirect(ByFn):
    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, "direct")


class ByBuildpacks(ByFn):
    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, "buildpacks", "--builder-image", BUILDER)

    def forget(self) -> None:
        super().forget()
        names = self.ground.docker(self.ground.buildpacks, "volume", "ls", "--quiet").split()
        if names:
            self.ground.docker(self.ground.buildpacks, "volume", "rm", *names)


class ByDocker(_Copied):
    """`docker build` and `docker push`, of build/Dockerfile."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, "docker")
        for file in FILES.iterdir():
            shutil.copy(file, self.home)
        (self.home / "requirements.txt").write_text(ground.requirements)
        (self.home / "wheels").mkdir()
        shutil.copy(ground.wheel, self.home / "wheels")

    def forget(self) -> None:
        if images := self._docker("image", "ls", "--quiet").split():
            self._docker("image", "rm", "--force", *set(images))
        self._docker("builder", "prune", "--all", "--force")
        self.renamed()

    def build(self) -> float:
        given = {"BASE": self.ground.base, "UV": self.ground.uv, "UV_DEFAULT_INDEX": self.ground.packages}
        words = [part for name, value in given.items() for part in ("--build-arg", f"{name}={value}")]
        begun = time.perf_counter()
        self._docker("build", "--quiet", "--network", "host", *words, "--tag", self.reference, str(self.home))
        self._docker("push", "--quiet", self.reference)
        return time.perf_counter() - begun

    def check(self) -> None:
        """That what is compared with is an image that works: its worker says what it lacks."""
        said = self._docker(
            *("run", "--rm", "--network", "none", "--entrypoint", "/opt/function/bin/python", self.reference),
            *("-c", "import fleetfn_runtime.lone, confluent_kafka, os; print(os.getuid())"),
        )
        if said.strip() != "65532":
            raise SystemExit(f"the image of {Path('bench/build/Dockerfile')} runs as {said.strip()}")

    def _docker(self, *words: str) -> str:
        return self.ground.docker(self.ground.dockers, *words)
