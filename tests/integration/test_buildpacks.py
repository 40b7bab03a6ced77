"""The whole road through buildpacks: a builder image out of a tarball, a real engine, lifecycle and registry."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shutil
import socket
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import docker
import httpx
import msgspec
import pytest
import tiny_wheels
from docker_engine import CACHE
from fleetfn_builder import builder_labels, engine, lifecycle_run, opening, references
from fleetfn_builder.assembly import anatomy
from fleetfn_builder.builder import Access, BuildError, Platform, Request, ToEngine, ToFile, ToRegistry
from fleetfn_builder.buildpacks import BuildpacksBuilder
from fleetfn_plumbing import source
from fleetfn_spec.load import load_function
from registry_server import PASSWORD, USER, fresh_repository
from running_node import free_port

pytestmark = pytest.mark.docker

ROOT = Path(__file__).parent.parent.parent
FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: NAME}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""
ONE = "def hello(name: str) -> str:\n    return f'hello {name}'\n"
OTHER = "def hello(name: str) -> str:\n    return f'good day {name}'\n"
_numbers = itertools.count(1)


def quiet(_line: str) -> None: ...


@pytest.fixture
def builder(builder_image):
    return BuildpacksBuilder(builder_image=builder_image, cache=CACHE)


@pytest.fixture
def road(builder, docker_engine, tmp_path):
    made = Road(builder, docker_engine, tmp_path)
    with made.stack:
        yield made


class Road:
    """A function of a name that no other test has. Its FleetFn needs nothing, so that builds are quick."""

    def __init__(self, builder, docker_engine, folder):
        self.builder, self.engine, self._tmp = builder, docker_engine, folder
        self.name = f"hello-{os.getpid()}-{next(_numbers)}"
        self.reference = references.parse(f"fleetfn-tests/{self.name}:1")
        self.folder = self.folder_of(ONE)
        self._wheel = tiny_wheels.wheel(folder / "wheel", "fleetfn", "9.9", files={"fleetfn_runtime/__init__.py": ""})
        self.stack = ExitStack()
        self.stack.callback(docker_engine.remove_volumes, [lifecycle_run.volume(self.name)])
        self.stack.callback(self._remove)

    def folder_of(self, code, **files):
        folder = self._tmp / f"source-{next(_numbers)}"
        folder.mkdir()
        contents = {"function.yaml": FUNCTION.replace("NAME", self.name), "handler.py": code} | files
        for name, text in contents.items():
            (folder / name).write_text(text)
        return folder

    def build(self, folder=None, *, destination=None, reference=None, progress=quiet, builder=None, **more):
        folder = folder or self.folder
        request = Request(
            folder=folder,
            function=load_function(folder),
            tags=(reference or self.reference,),
            destination=destination or ToEngine(),
            platforms=(self.engine.platform,),
            **{"wheel": self._wheel} | more,
        )
        return (builder or self.builder).build(request, progress)

    def leftovers(self):
        client = docker.DockerClient(self.engine.address)
        try:
            found = client.containers.list(all=True, filters={"label": f"{lifecycle_run.LABEL}={self.name}"})
            return [one.id for one in found]
        finally:
            client.close()

    def _remove(self):
        name = engine.familiar(self.reference)
        if self.engine.image(name) is not None:
            self.engine.remove_image(name)


def test_a_sample_becomes_an_image_that_runs_as_nobody(builder, docker_engine):
    folder = ROOT / "samples" / "battery-alert"
    request = Request(
        folder=folder,
        function=load_function(folder),
        tags=(references.parse("fleetfn-tests/battery-alert:1"),),
        destination=ToEngine(),
        platforms=(docker_engine.platform,),
    )
    built = builder.build(request, quiet)
    image = docker_engine.image("fleetfn-tests/battery-alert:1")
    assert image is not None
    assert built.digest == image.id
    assert image.user == f"{anatomy.USER}:{anatomy.USER}"
    assert image.labels[anatomy.LABEL_FUNCTION] == "battery-alert"
    assert image.labels[anatomy.LABEL_REVISION] == built.revision
    assert image.labels[anatomy.LABEL_BUILDER] == "buildpacks"
    words = [layer.name for layer in built.layers if layer.name not in {"base", "launch"}]
    assert sorted(words) == ["code", "dependencies", "runtime", "sbom"]
    bill = json.loads(built.sbom)
    installed = {each["name"] for each in bill["components"]}
    assert {"fleetfn", "msgspec", "confluent-kafka", "uvloop"} <= installed
    assert not {"typer", "docker", "httpcore"} & installed


def test_it_answers_with_a_root_that_cannot_be_written_to(road):
    road.build(wheel=None)
    client = docker.DockerClient(road.engine.address)
    road.stack.callback(client.close)
    port = free_port()
    container = client.containers.run(
        engine.familiar(road.reference),
        ["--port", str(port)],
        detach=True,
        read_only=True,
        cap_drop=["ALL"],
        network_mode="host",
        tmpfs={anatomy.DATA: f"uid={anatomy.USER},mode=700"},
        labels={lifecycle_run.LABEL: road.name},
    )
    try:
        limit = time.monotonic() + 60
        while (answer := _asked(f"http://127.0.0.1:{port}/hello")) is None:
            container.reload()
            assert container.status != "exited", container.logs().decode()
            assert time.monotonic() < limit, container.logs().decode()
            time.sleep(0.05)
        assert answer == "hello you"
        container.stop(timeout=60)
        assert container.wait()["StatusCode"] == 0
    finally:
        container.remove(force=True)


def _asked(url):
    """None until it has started."""
    try:
        reply = httpx.post(url, content="you", timeout=5)
    except httpx.TransportError:
        return None
    return reply.text if reply.status_code != httpx.codes.SERVICE_UNAVAILABLE else None


def test_equal_sources_are_one_image_wherever_and_whenever(road):
    first = road.build(fresh=True)
    again = road.folder_of(ONE)
    for path in again.iterdir():
        os.utime(path, (1, 1))
    second = road.build(again, fresh=True)
    assert (first.digest, first.unchanged) == (second.digest, second.unchanged)
    assert first.sbom == second.sbom


def test_what_is_there_is_not_built_again_and_an_edit_changes_the_code_alone(road):
    first = road.build()
    lines = []
    again = road.build(progress=lines.append)
    assert (again.unchanged, again.digest, again.sbom) == (True, first.digest, first.sbom)
    assert not any("BUILDING" in line for line in lines)
    (road.folder / "handler.py").write_text(OTHER)
    edited = road.build(progress=lines.append)
    assert not edited.unchanged
    assert "dependencies: as they were" in lines
    assert changed(first, edited) == ["code"]


def test_another_inherited_way_to_choose_versions_is_another_image(road, monkeypatch):
    monkeypatch.delenv("UV_INDEX_STRATEGY", raising=False)
    road.build()
    assert road.build().unchanged
    monkeypatch.setenv("UV_INDEX_STRATEGY", "unsafe-best-match")
    assert not road.build().unchanged


def test_secrets_are_in_no_layer_no_config_and_no_line(road):
    hidden = "nobody-may-see-this"
    lines = []
    road.build(
        progress=lines.append,
        env={"FN_COLOUR": "a-colour-for-the-build-alone"},
        secrets={"FN_TOKEN": hidden},
    )
    saved = b"".join(road.engine.save(engine.familiar(road.reference)))
    assert b"def hello" in saved
    assert hidden.encode() not in saved
    assert b"a-colour-for-the-build-alone" not in saved
    assert not any(hidden in line for line in lines)


def test_ctrl_c_leaves_no_container_and_what_was_kept_is_whole(road):
    first = road.build()
    (road.folder / "handler.py").write_text(OTHER)

    def press(line):
        if "BUILDING" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        road.build(progress=press)
    assert road.leftovers() == []
    image = road.engine.image(engine.familiar(road.reference))
    assert image is not None
    assert image.id == first.digest
    lines = []
    assert not road.build(progress=lines.append).unchanged
    assert "dependencies: as they were" in lines
    assert road.leftovers() == []


def test_what_a_build_that_was_killed_has_left_goes_with_the_next(road, builder_image):
    left = lifecycle_run.labels(road.name, CACHE)
    client = docker.DockerClient(road.engine.address)
    road.stack.callback(client.close)
    asleep = {"entrypoint": ["sleep", "600"], "network_mode": "none", "user": "0", "stop_signal": "SIGKILL"}
    client.containers.run(builder_image, detach=True, labels=left, **asleep)
    client.containers.create(builder_image, labels=left, **asleep)
    other = client.containers.create(builder_image, labels=left | lifecycle_run.labels("other", CACHE), **asleep)
    road.stack.callback(other.remove, force=True)
    assert len(road.leftovers()) == 2
    road.build()
    assert road.leftovers() == []
    other.reload()


def test_a_requirement_that_cannot_be_had_is_named_and_the_image_stays(road):
    first = road.build()
    (road.folder / "requirements.txt").write_text("no-such-package-at-all==99\n")
    with pytest.raises(BuildError, match="no-such-package-at-all"):
        road.build()
    image = road.engine.image(engine.familiar(road.reference))
    assert image is not None
    assert image.id == first.digest
    assert road.leftovers() == []


def test_other_platforms_are_for_the_direct_builder(road):
    other = Platform("arm64" if road.engine.platform.architecture == "amd64" else "amd64")
    with pytest.raises(BuildError, match="engine's own platform") as caught:
        road.builder.build(
            Request(
                folder=road.folder,
                function=load_function(road.folder),
                tags=(road.reference,),
                destination=ToEngine(),
                platforms=(other,),
            ),
            quiet,
        )
    assert "--builder direct" in caught.value.hint


def test_into_a_file(road, tmp_path):
    path = tmp_path / "image.tar"
    built = road.build(destination=ToFile(path))
    assert not built.unchanged
    assert road.build(destination=ToFile(path)).unchanged
    with opening.open_image(str(path), Access(), road.engine.platform) as image:
        assert image.descriptor.digest == built.digest
        assert image.config.config.user == f"{anatomy.USER}:{anatomy.USER}"
    copied = tmp_path / "again"
    shutil.copytree(road.folder, copied)
    assert road.build(copied, destination=ToFile(tmp_path / "other.tar")).digest == built.digest
    assert road.engine.image(lifecycle_run.name_in_engine(road.name, CACHE)) is None


@pytest.mark.registry
def test_into_a_registry_and_back(road, registry):
    reference = references.parse(f"{registry}/{fresh_repository()}:1")
    built = road.build(destination=ToRegistry(), reference=reference)
    assert built.reference == f"{reference}@{built.digest}"
    again = road.build(destination=ToRegistry(), reference=reference)
    assert (again.unchanged, again.digest, again.sbom) == (True, built.digest, built.sbom)
    (road.folder / "handler.py").write_text(OTHER)
    edited = road.build(destination=ToRegistry(), reference=reference)
    assert changed(built, edited) == ["code"]
    with opening.open_image(str(reference), Access(), road.engine.platform) as image:
        assert image.descriptor.digest == edited.digest
        assert image.config.config.user == f"{anatomy.USER}:{anatomy.USER}"


def test_what_is_kept_of_layers_may_go_while_the_image_stays(road):
    """As by `docker volume prune`, or where the image was pulled."""
    first = road.build()
    road.engine.remove_volumes([lifecycle_run.volume(road.name)])
    (road.folder / "handler.py").write_text(OTHER)
    assert changed(first, road.build()) == ["code"]


@pytest.mark.registry
def test_builds_into_engine_and_registry_by_turns(road, registry):
    """Their caches are one, and what lies at each place is another image."""
    reference = references.parse(f"{registry}/{fresh_repository()}:1")
    first = road.build()
    pushed = road.build(destination=ToRegistry(), reference=reference)
    (road.folder / "handler.py").write_text(OTHER)
    lines = []
    edited = road.build(destination=ToRegistry(), reference=reference, progress=lines.append)
    assert changed(pushed, edited) == ["code"]
    assert changed(first, road.build(progress=lines.append)) == ["code"]
    road.engine.remove_image(engine.familiar(road.reference))
    assert not road.build(progress=lines.append).unchanged
    assert lines.count("dependencies: as they were") == 3


def test_builds_of_one_function_by_two_caches_at_once(road, builder_image, base_tarball, tmp_path):
    """No lock keeps them apart, as where two clones share an engine."""
    caches = [CACHE, tmp_path / "cache"]
    makers = [BuildpacksBuilder(builder_image=builder_image, cache=cache) for cache in caches]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda builder: road.build(builder=builder, base=str(base_tarball)), makers)
    assert first.digest == second.digest
    assert road.leftovers() == []
    assert road.engine.image(lifecycle_run.name_in_engine(road.name, CACHE)) is None


def test_a_build_whose_base_another_one_takes_away_loads_it_again(road, monkeypatch):
    """As a build by another cache may, which ends before this one's container is there to be seen."""
    run, bases = lifecycle_run.run, []

    def robbed(engine, errand, progress):
        if not bases:
            engine.remove_image(errand.run_image)
        bases.append(errand.run_image)
        return run(engine, errand, progress)

    monkeypatch.setattr(lifecycle_run, "run", robbed)
    built = road.build()
    assert len(bases) == 2
    assert road.engine.image(str(built.reference)).labels
    assert road.leftovers() == []


def changed(before, after):
    """Names of the layers that are others."""
    pairs = zip(before.layers, after.layers, strict=True)
    return [new.name for old, new in pairs if old.digest != new.digest]


@pytest.mark.registry
def test_a_registry_that_is_gone_fails_in_words_and_leaves_no_container(road):
    with socket.socket() as nobody:  # bound, so that no other has the port, and not listening
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(BuildError, match=re.escape(address)):
            road.build(destination=ToRegistry(), reference=references.parse(f"{address}/fleet/hello:1"))
    assert road.leftovers() == []


@pytest.mark.registry
def test_a_registry_that_wants_a_password_gets_it_and_no_line_tells_it(road, own_registry):
    own_registry.want_password()
    own_registry.start()
    reference = references.parse(f"{own_registry.address}/fleet/hello:1")
    lines = []
    access = Access(USER, PASSWORD, host=own_registry.address)
    built = road.build(destination=ToRegistry(), reference=reference, access=access, progress=lines.append)
    assert not any(PASSWORD in line for line in lines)
    with opening.open_image(f"{reference}", access, road.engine.platform) as image:
        assert image.descriptor.digest == built.digest
    (road.folder / "handler.py").write_text(OTHER)
    with pytest.raises(BuildError, match=own_registry.address):
        road.build(
            destination=ToRegistry(), reference=reference, access=Access(USER, "wrong", host=own_registry.address)
        )
    assert road.leftovers() == []


def test_the_builder_image_works_without_us(road, builder_image):
    """As `pack` runs it: nothing but the folder is given, and the image's own order and buildpack."""
    name = engine.familiar(road.reference)
    alone(road, builder_image)
    image = road.engine.image(name)
    assert image is not None
    function = msgspec.json.encode(load_function(road.folder), order="deterministic")
    revision = source.digest(road.folder, source.files(road.folder), function)
    assert image.labels[anatomy.LABEL_FUNCTION] == road.name
    assert image.labels[anatomy.LABEL_REVISION] == revision
    assert image.labels[anatomy.LABEL_BUILDER] == "buildpacks"
    (road.folder / "handler.py").write_text(OTHER)
    said = alone(road, builder_image)  # the launch cache is gone: what is taken over, the engine alone has
    assert any(line.startswith("Reusing layer") for line in said)
    saved = b"".join(road.engine.save(name))
    assert b"good day" in saved


def alone(road, builder_image):
    """What the lifecycle says."""
    files = io.BytesIO()
    with tarfile.open(fileobj=files, mode="w") as tar:
        tar.add(road.folder, "workspace")
        if trusted := os.environ.get(
            "SSL_CERT_FILE"
        ):  # whom the package index is signed by, as `pack build --env` tells it
            tar.add(trusted, "trusted.pem")
            variable = tarfile.TarInfo("platform/env/SSL_CERT_FILE")
            variable.size = len(b"/trusted.pem")
            tar.addfile(variable, io.BytesIO(b"/trusted.pem"))
        cache = tarfile.TarInfo("launch-cache")
        cache.type, cache.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(cache)
    files.seek(0)
    options = ["-daemon", "-cache-dir", "/cache", "-launch-cache", "/launch-cache", "-app", "/workspace"]
    spec = engine.ContainerSpec(
        image=builder_image,
        command=["/cnb/lifecycle/creator", *options, engine.familiar(road.reference)],
        environment={"CNB_PLATFORM_API": builder_labels.describe(builder_image, road.engine).platform_api},
        mounts=[
            engine.Mount(road.engine.socket_path, engine.SOCKET),
            engine.Mount(lifecycle_run.volume(road.name), "/cache"),
        ],
    )
    said = []
    with road.engine.container(spec) as container:
        container.put(files)
        assert container.run(said.append) == 0, "\n".join(said)
    return said
