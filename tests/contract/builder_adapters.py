"""What the contract suite of Builder needs to know of each builder: how to ask it, and where its images are left."""

from contextlib import contextmanager
from pathlib import Path

import base_images
import seen_images
import tiny_wheels
from fleetfn_builder import builder_create, references
from fleetfn_builder.archives import Archive
from fleetfn_builder.builder import Access, Platform, Request, ToFile, ToRegistry
from fleetfn_builder.buildpacks import BuildpacksBuilder
from fleetfn_builder.direct import DirectBuilder
from fleetfn_builder.layouts import Layout
from fleetfn_builder.memory import MemoryBuilder
from fleetfn_builder.registry import Registry
from fleetfn_spec.load import load_function
from registry_server import fresh_repository

NO_SUCH = "no-such-package-anywhere"


class Adapter:
    """`shared`: a folder that outlives one test, for a cache; `folder`: of this test."""

    several_platforms = True
    owner = 0
    """Of the code."""
    breaks_off_at = 1
    """Ctrl-C is tried at every so many lines."""
    tags_itself = True
    """Else another does, and may be done when Ctrl-C reaches it."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.base = self.wheel = None
        self.env = {}
        self.folder = folder
        self.shared = shared

    def builder(self, *, new_cache=False):
        """Its images go where those of the others go. `new_cache`: as on another machine."""
        raise NotImplementedError

    @property
    def destination(self):
        return ToRegistry()

    def tag(self, version="1"):
        return f"registry.example/team/f:{version}"

    @contextmanager
    def store(self, reference):
        """Where the images of a tag are, and its version there."""
        raise NotImplementedError

    @property
    def leftovers(self):
        """Files that only a build that was cut off can have left."""
        return []

    def request(self, folder, *versions, env=None, platforms=("amd64",), **more):
        return Request(
            folder=folder,
            function=load_function(folder),
            tags=tuple(references.parse(self.tag(each)) for each in versions or ("1",)),
            destination=self.destination,
            platforms=tuple(map(Platform, platforms)),
            env=self.env | (env or {}),
            **{"base": self.base, "wheel": self.wheel, "access": Access()} | more,
        )

    def resolve(self, version="1"):
        with self.store(references.parse(self.tag(version))) as (store, name):
            return store.resolve(name)

    def see(self, version="1", architecture="amd64"):
        with self.store(references.parse(self.tag(version))) as (store, name):
            return seen_images.look(store, store.resolve(name), architecture)


class InMemory(Adapter):
    def __init__(self, folder, shared):
        super().__init__(folder, shared)
        self.repositories = {}

    def builder(self, *, new_cache=False):  # noqa: ARG002 - it has none
        return MemoryBuilder(broken=_asks_for_what_is_not_there, repositories=self.repositories)

    @contextmanager
    def store(self, reference):
        yield self.repositories[reference.repository], reference.version


def _asks_for_what_is_not_there(request):
    path = request.folder / "requirements.txt"
    return f"there is no {NO_SUCH}" if path.is_file() and NO_SUCH in path.read_text() else ""


class Direct(Adapter):
    """Into a layout."""

    def __init__(self, folder, shared):
        super().__init__(folder, shared)
        self.wheel = fake_fleetfn(shared)
        self.wheels = shared / "wheels"
        tiny_wheels.wheel(self.wheels, "tiny")
        self.env = {"UV_FIND_LINKS": str(self.wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
        self.base = f"oci:{shared / 'base'}"
        if not (shared / "base").exists():
            base_images.leave(Layout(shared / "base"), platforms=["amd64", "arm64"])
        self._caches = [shared / "cache"]

    def builder(self, *, new_cache=False):
        if new_cache:
            self._caches.append(self.folder / f"cache-{len(self._caches)}")
        return DirectBuilder(self._caches[-1] if new_cache else self._caches[0])

    @property
    def destination(self):
        return ToFile(self.folder / "out")

    @contextmanager
    def store(self, reference):
        yield Layout(self.folder / "out"), str(reference)

    @property
    def leftovers(self):
        hidden = [path for place in (self.folder / "out", *self._caches) for path in place.rglob(".*")]
        return hidden + [path for cache in self._caches for path in (cache / "work").glob("*")]


class DirectToTarball(Direct):
    @property
    def destination(self):
        return ToFile(self.folder / "out" / "image.tar")

    @contextmanager
    def store(self, reference):
        yield Archive(self.folder / "out" / "image.tar"), str(reference)


class DirectToRegistry(Direct):
    def __init__(self, folder, shared, registry):
        super().__init__(folder, shared)
        self._repository = f"{registry}/{fresh_repository()}"

    @property
    def destination(self):
        return ToRegistry()

    def tag(self, version="1"):
        return f"{self._repository}:{version}"

    @contextmanager
    def store(self, reference):
        with Registry(reference, Access()) as store:
            yield store, reference.version


class Buildpacks(DirectToRegistry):
    """Into a registry, by a builder image that the engine has."""

    several_platforms = False
    owner = builder_create.USER
    breaks_off_at = 8
    tags_itself = False

    def __init__(self, folder, shared, registry, image, base):
        super().__init__(folder, shared, registry)
        self.base = str(base)
        self.wheel = tiny_wheels.wheel(shared / "alone", "fleetfn", "9.9", files={"fleetfn_runtime/__init__.py": ""})
        self.env = {"UV_OFFLINE": "1"}  # folders of this machine are not the container's
        self._image = image

    def builder(self, *, new_cache=False):
        super().builder(new_cache=new_cache)
        return BuildpacksBuilder(builder_image=self._image, cache=self._caches[-1] if new_cache else self._caches[0])


def fake_fleetfn(folder):
    """A wheel that passes for FleetFn's and needs nothing but `tiny`; made once."""
    path = folder / "fleetfn-9.9-py3-none-any.whl"
    if not path.exists():
        files = {"fleetfn_runtime/__init__.py": "", "fleetfn_runtime/x.py": "X = 1\n"}
        tiny_wheels.wheel(folder, "fleetfn", "9.9", files=files, requires=["tiny"])
    return path
