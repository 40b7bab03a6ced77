"""Builds with what goes wrong around them, by both builders and with real tools: registries that refuse or die, a disk
that is full, no engine, a base for another machine; and an index whose password must not travel.
"""

import base64
import itertools
import json
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import base_images
import pytest
import seen_images
import tiny_wheels
from fleetfn_builder import lifecycle_run, references
from fleetfn_builder.archives import Archive
from fleetfn_builder.builder import Access, BuildError, Request, ToRegistry
from fleetfn_builder.buildpacks import BuildpacksBuilder
from fleetfn_builder.direct import DirectBuilder
from fleetfn_builder.registry import Registry
from fleetfn_spec.load import load_function
from registry_server import PASSWORD, USER
from threaded_server import ThreadedServer

pytestmark = [pytest.mark.docker, pytest.mark.slow]

FN = Path(sys.executable).parent / "fn"
FUNCTION = """\
apiVersion: fleetfn.dev/v1alpha1
kind: Function
metadata: {name: NAME}
spec:
  handler: handler:hello
  triggers:
  - {name: web, http: {path: /hello}}
"""
ONE = "def hello(name: str) -> str:\n    return name\n"
OTHER = "def hello(name: str) -> str:\n    return name + name\n"
HIDDEN = "hidden-6c1f9e"
_numbers = itertools.count(1)


class Place:
    """A function of a name that no other test has, wheels of a few bytes, and what builds it."""

    def __init__(self, home, builder, docker_engine, base, image):
        self.home, self.builder, self.engine, self._image = home, builder, docker_engine, image
        self.base = str(base)
        self.name = f"bad-{os.getpid()}-{next(_numbers)}"
        self.folder = home / "function"
        self.folder.mkdir()
        (self.folder / "function.yaml").write_text(FUNCTION.replace("NAME", self.name))
        self.edit(ONE)
        own = {"fleetfn_runtime/__init__.py": ""}
        self.wheel = tiny_wheels.wheel(home, "fleetfn", "9.9", files=own, requires=["tiny"])
        tiny_wheels.wheel(home / "index" / "tiny", "tiny")
        (home / "docker-config").mkdir()
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("FN_")},
            "DOCKER_CONFIG": str(home / "docker-config"),
            "DOCKER_HOST": docker_engine.address,
            "FN_CACHE": str(home / "cache"),
        }

    def edit(self, code):
        (self.folder / "handler.py").write_text(code)

    def fn(self, *words, given="", **environ):
        """`fn build` of it: exit code, standard output, standard error."""
        named = ["--builder", self.builder, *(["--builder-image", self._image] if self.builder == "buildpacks" else [])]
        line = [*(named if self.builder else []), "--fleetfn", self.wheel, "--base", self.base, *words]
        done = subprocess.run(
            [str(FN), "build", str(self.folder), *map(str, line)],
            env=self.environ | environ,
            input=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def build(self, reference, progress, env):
        cache = Path(self.environ["FN_CACHE"])
        direct = self.builder == "direct"
        builder = DirectBuilder(cache) if direct else BuildpacksBuilder(builder_image=self._image, cache=cache)
        request = Request(
            folder=self.folder,
            function=load_function(self.folder),
            tags=(reference,),
            destination=ToRegistry(),
            platforms=(self.engine.platform,),
            base=self.base,
            wheel=self.wheel,
            env=env,
        )
        return builder.build(request, progress)

    def close(self):
        self.engine.remove_volumes([lifecycle_run.volume(self.name)])


@pytest.fixture(params=["direct", "buildpacks"])
def place(request, tmp_path, docker_engine, base_tarball, builder_image):
    made = Place(tmp_path, request.param, docker_engine, base_tarball, builder_image)
    yield made
    made.close()


class Index(SimpleHTTPRequestHandler):
    """Of packages: a folder for each. Who does not know the password gets nothing."""

    @staticmethod
    def asked(path):
        """What a test wants to have done before it is answered."""

    def do_GET(self):
        self.asked(self.path)
        wanted = base64.b64encode(f"fleet:{HIDDEN}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {wanted}":
            super().do_GET()
        else:
            self.send_error(401)

    def log_message(self, *_):
        pass


@pytest.fixture
def index(place):
    """Its address, with the password."""
    server = ThreadedServer(("127.0.0.1", 0), partial(Index, directory=str(place.home / "index")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://fleet:{HIDDEN}@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_indexs_password_is_in_no_layer_no_config_no_bill_and_no_line(place, index):
    path, bill = place.home / "image.tar", place.home / "bill.json"
    line = ["--tag", "fleet/bad:1", "--to", path, "--sbom", bill, "--secret", "UV_DEFAULT_INDEX"]
    code, said, told = place.fn(*line, "--env", "A_SETTING=some-value-5b", UV_DEFAULT_INDEX=index)
    assert code == 0, told
    store = Archive(path)
    seen = seen_images.look(store, store.resolve("docker.io/fleet/bad:1"))
    contents = [each for each in seen.files().values() if isinstance(each, bytes)]
    assert b"VERSION = '1.0'\n" in contents
    everything = [*contents, *(name.encode() for name in seen.files()), seen.raw_config, bill.read_bytes()]
    everything += [said.encode(), told.encode()]
    for each_hidden in (HIDDEN, base64.b64encode(f"fleet:{HIDDEN}".encode()).decode(), "some-value-5b"):
        assert not [each for each in everything if each_hidden.encode() in each]


def test_an_index_that_refuses_is_told_without_its_password(place, index):
    line = ["--to", place.home / "image.tar", "--secret", "UV_DEFAULT_INDEX"]
    code, _, told = place.fn(*line, UV_DEFAULT_INDEX=index.replace(HIDDEN, "wrong-8d20"))
    assert code == 1
    assert "Error: the dependencies cannot be installed" in told
    assert "401" in told
    assert "wrong-8d20" not in told
    assert "Traceback" not in told
    assert not (place.home / "image.tar").exists()


@pytest.mark.registry
def test_wrong_credentials_are_told_and_the_right_ones_push(place, index, own_registry):
    own_registry.want_password()
    own_registry.start()
    line = ["--tag", f"{own_registry.address}/team/x:1", "--push", "--secret", "UV_DEFAULT_INDEX"]
    named = ["--username", USER, "--password-stdin"]
    none = place.fn(*line, UV_DEFAULT_INDEX=index)
    wrong = place.fn(*line, *named, given="wrong-8d20", UV_DEFAULT_INDEX=index)
    for code, _, told in (none, wrong):
        assert code == 1
        assert own_registry.address in told
        assert "Hint: " in told
        assert "wrong-8d20" not in told
        assert "Traceback" not in told
    assert "wants credentials" in none[2]
    assert f"does not accept user '{USER}'" in wrong[2]
    code, said, told = place.fn(*line, *named, "-o", "json", given=PASSWORD, UV_DEFAULT_INDEX=index)
    assert code == 0, told
    reference = references.parse(f"{own_registry.address}/team/x:1")
    with Registry(reference, Access(USER, PASSWORD, reference.host)) as store:
        assert store.resolve("1").digest == json.loads(said)["digest"]


@pytest.mark.registry
def test_a_registry_that_is_killed_in_the_middle_of_a_push_and_a_second_try(place, index, own_registry, monkeypatch):
    own_registry.start()
    reference = references.parse(f"{own_registry.address}/team/x:1")
    env = {"UV_DEFAULT_INDEX": index}
    first = place.build(reference, lambda _: None, env)
    place.edit(OTHER)
    (place.folder / "requirements.txt").write_text("small\n")
    tiny_wheels.wheel(place.home / "index" / "small", "small")

    def freeze(path):
        """The lifecycle pushes without waiting for us: it is not to be through before the kill."""
        if path.startswith("/small/"):
            own_registry.freeze()

    def kill(line):
        if line.startswith("leaving ") or "EXPORTING" in line:
            own_registry.kill()

    with monkeypatch.context() as meanwhile:
        if place.builder == "buildpacks":  # it asks for packages between reading from the registry and pushing
            meanwhile.setattr(Index, "asked", staticmethod(freeze))
        with pytest.raises(BuildError) as caught:
            place.build(reference, kill, env)
    assert own_registry.address in caught.value.message
    own_registry.start()
    with Registry(reference, Access()) as store:
        assert store.resolve("1").digest == first.digest
    second = place.build(reference, lambda _: None, env)
    assert second.digest != first.digest
    with Registry(reference, Access()) as store:
        assert store.resolve("1").digest == second.digest


def test_a_base_of_another_architecture_is_told_with_both(place):
    own = place.engine.platform.architecture
    other = "arm64" if own == "amd64" else "amd64"
    place.base = str(place.home / "other.tar")
    with Archive(Path(place.base)) as archive:
        base_images.leave(archive, version="other:1", architecture=other)
    code, _, told = place.fn("--to", place.home / "image.tar")
    assert code == 1
    assert f"is for linux/{other}, and linux/{own} is asked for" in told


@pytest.fixture
def direct(tmp_path, docker_engine, base_tarball):
    return Place(tmp_path, "direct", docker_engine, base_tarball, None)


@pytest.fixture
def small(direct):
    """A cache folder of 8 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = Path(direct.environ["FN_CACHE"])
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full_is_told_and_nothing_is_left(direct, small):
    code, _, told = direct.fn("--to", direct.home / "image.tar")
    assert code == 1
    assert "No space left on device" in told
    assert "Hint: " in told
    assert "Traceback" not in told
    assert not (direct.home / "image.tar").exists()
    assert not list((small / "work").glob("*"))
    assert not list((small / "blobs").rglob(".*"))


def test_without_an_engine_it_is_built_directly_and_says_so(direct):
    direct.builder = ""
    nobody = {"DOCKER_HOST": f"unix://{direct.home}/nobody.sock"}
    links = ["--env", f"UV_FIND_LINKS={direct.home}/index/tiny", "--env", "UV_OFFLINE=1"]
    path = direct.home / "image.tar"
    code, said, told = direct.fn("--to", path, *links, "-o", "json", **nobody)
    assert code == 0, told
    assert "builder direct: it needs no Docker" in told
    assert json.loads(said)["builder"] == "direct"
    code, _, told = direct.fn("--builder", "buildpacks", "--to", path, *links, **nobody)
    assert code == 1
    assert "no Docker engine answers at" in told
    assert "--builder direct" in told
