"""An engine that runs nothing: it notes what a container is made of, and says what it was told to."""

from __future__ import annotations

import tarfile
from contextlib import contextmanager

from fleetfn_builder.engine import ContainerSpec, EngineImage


def image(name="sha256:" + "1" * 64, labels=None, env=(), user=""):
    return EngineImage(
        id=name,
        architecture="amd64",
        user=user,
        labels=labels or {},
        env=list(env),
        diff_ids=["sha256:" + "2" * 64],
        size=9,
    )


class FakeContainer:
    def __init__(self, engine):
        self._engine = engine
        self.files: dict[str, tuple[bytes, tarfile.TarInfo]] = {}
        self.tars: list[list[str]] = []

    def put(self, tar):
        with tarfile.open(fileobj=tar) as opened:
            self.tars.append(opened.getnames())
            for member in opened:
                content = opened.extractfile(member)
                self.files["/" + member.name] = (content.read() if content else b"", member)

    def get(self, path):
        return self._engine.results.get(path)

    def run(self, line):
        for each in self._engine.says:
            line(each)
        if self._engine.raises:
            raise self._engine.raises
        return self._engine.code


class FakeEngine:
    """`images` by name; `says`, `code`, `results` (path -> content): of every container."""

    def __init__(self, images=None, *, says=(), code=0, results=None, raises=None):
        self.images = images or {}
        self.says, self.code, self.results, self.raises = says, code, results or {}, raises
        self.containers: list[tuple[ContainerSpec, FakeContainer]] = []
        self.left = 0
        self.removed: list[str] = []
        self.socket_path = "/run/docker.sock"

    def image(self, name):
        return self.images.get(name)

    @contextmanager
    def container(self, spec):
        made = FakeContainer(self)
        self.containers.append((spec, made))
        self.left += 1
        try:
            yield made
        finally:
            self.left -= 1

    def remove_volumes(self, names):
        self.removed += names
