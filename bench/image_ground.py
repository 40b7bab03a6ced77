"""What builds of images share: a registry, Docker engines, a base image, FleetFn's wheel, an index of packages.

All of it is this run's own and ends with it, but for what takes minutes to make: the base image, the lifecycle's
programs and the packages stay in .cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import Request, urlopen

from setting import ROOT, Setting
from turns import say

REGISTRY_PORT = 19710
FUNCTION = ROOT / "samples" / "battery-alert"
KEPT = ROOT / ".cache" / "bench-build"
LIMIT = 900.0
"""Seconds that anything may take before the benchmark gives up: Go builds the lifecycle in minutes."""

_MANIFEST = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


class Ground:
    """Runs within its block. Needs root, as engines do."""

    def __init__(self, setting: Setting) -> None:
        self.folder = setting.folder / "build"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._prepare()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _prepare(self) -> None:
        self.folder.mkdir()
        (self.folder / "docker-config").mkdir()
        say("build: a registry, and an engine for each subject that needs one")
        self.registry = self._script(
            "registry.sh", FN_REGISTRY_DIR=str(self.folder / "registry"), FN_REGISTRY_PORT=str(REGISTRY_PORT)
        )
        self.dockers = self._script("docker.sh", FN_DOCKER_DIR=str(self.folder / "docker"))
        self.buildpacks = self._script("docker.sh", FN_DOCKER_DIR=str(self.folder / "buildpacks"))
        self._packages()
        self._base()

    def _packages(self) -> None:
        """FleetFn's wheel, what the function needs beside it, and a server of those packages on loopback."""
        say("build: packages")
        first = self.fn(
            ["build", str(FUNCTION), "--to", str(self.folder / "first.oci"), "--builder", "direct"],
            ["--base", run([ROOT / "scripts" / "base_image.sh"]).strip(), "--sbom", str(self.folder / "bill.json")],
            FN_CACHE=str(KEPT),
        )
        assert first["function"] == FUNCTION.name
        wheels = (KEPT / "wheels").glob("*/*.whl")
        made = max(wheels, key=lambda path: path.stat().st_mtime)
        self.wheel = Path(shutil.copy(made, self.folder))
        bill = json.loads((self.folder / "bill.json").read_bytes())
        named = [each for each in bill["components"] if each.get("purl", "").startswith("pkg:pypi/")]
        self.requirements = "".join(
            f"{each['name']}=={each['version']}\n" for each in named if each["name"] != "fleetfn"
        )
        self.packages = self._serve(self._downloaded())

    def _downloaded(self) -> Path:
        """As an index has them: a folder for each project."""
        (self.folder / "requirements.txt").write_text(self.requirements)
        wheels, index = KEPT / "packages", self.folder / "index"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--dest", str(wheels)]
        run([*command, "--find-links", str(wheels), "--requirement", str(self.folder / "requirements.txt")])
        for wheel in wheels.glob("*.whl"):
            project = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
            (index / project).mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, index / project)
        return index

    def _serve(self, folder: Path) -> str:
        """Its address. A listing of a folder is what a package index answers."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self._stack.callback(thread.join)
        self._stack.callback(server.shutdown)
        return f"http://127.0.0.1:{server.server_address[1]}"

    def _base(self) -> None:
        """In the registry; and an image of uv, as its makers publish one. In no engine, but in the builder image."""
        say("build: the base image and the builder image")
        self.base, self.uv = f"{self.registry}/base:bookworm", f"{self.registry}/uv:1"
        loaded = self.docker(self.dockers, "load", "--input", run([ROOT / "scripts" / "base_image.sh"]).strip())
        name = loaded.strip().rpartition(": ")[2]
        packed = self.folder / "uv.tar"
        run(["tar", "-C", str(Path(sys.executable).parent), "-cf", str(packed), "uv"])
        self.docker(self.dockers, "import", str(packed), self.uv)
        self.docker(self.dockers, "tag", name, self.base)
        for each in (self.base, self.uv):
            self.docker(self.dockers, "push", "--quiet", each)
        self.docker(self.dockers, "image", "rm", name, self.base)
        self.fn(
            ["builder", "create", "fleetfn-builder:bench", "--base", self.base, "--fleetfn", str(self.wheel)],
            FN_CACHE=str(KEPT),
            DOCKER_HOST=self.buildpacks,
        )

    def fn(self, *words: Sequence[str], **environ: str) -> Any:
        """As a user types it, a process of its own; what it answers."""
        command = [
            str(Path(sys.executable).parent / "fn"),
            *(word for part in words for word in part),
            "--output",
            "json",
        ]
        return json.loads(run(command, {**self.environ, **environ}))

    def docker(self, engine: str, *words: str) -> str:
        """By the client that belongs to the engine: it has BuildKit without anything beside it."""
        found = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        return run([found, *words], {**self.environ, "DOCKER_HOST": engine, "DOCKER_BUILDKIT": "1"})

    @property
    def environ(self) -> dict[str, str]:
        """Without what may say otherwise here: how `fn` builds, whether Python keeps bytecode, who the user is."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("FN_", "UV_", "PYTHON"))}
        return {**others, "DOCKER_CONFIG": str(self.folder / "docker-config")}

    def layers(self, reference: str) -> list[int]:
        """Compressed sizes in bytes, those of the base left out."""
        known = {each["digest"] for each in self._manifest(self.base)["layers"]}
        return [each["size"] for each in self._manifest(reference)["layers"] if each["digest"] not in known]

    def size(self, reference: str) -> int:
        """Of all layers, compressed, in bytes."""
        return sum(each["size"] for each in self._manifest(reference)["layers"])

    def _manifest(self, reference: str) -> Any:
        host, _, rest = reference.partition("/")
        name, _, tag = rest.partition(":")
        with urlopen(Request(f"http://{host}/v2/{name}/manifests/{tag}", headers={"Accept": _MANIFEST})) as reply:
            return json.load(reply)

    def _script(self, name: str, **settings: str) -> str:
        """Started, to be stopped in the end; its address."""
        command, environ = [ROOT / "scripts" / name], {**os.environ, **settings}
        run([*command, "start"], environ)
        self._stack.callback(run, [*command, "stop"], environ)
        run([*command, "wait"], environ)
        return run([*command, "address"], environ).strip()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def run(command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> str:
    """Its standard output; a command that fails ends the benchmark with what it said."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def seconds(command: Sequence[str | Path], environ: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    run(command, environ)
    return time.perf_counter() - begun
