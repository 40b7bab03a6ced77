"""What a builder image says of itself by its labels, and in which order its buildpacks are to try.

https://github.com/buildpacks/spec/blob/main/platform.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fleetfn_builder import buildpack_files
from fleetfn_builder.builder import BuildError
from fleetfn_builder.engine import Engine, EngineImage

METADATA = "io.buildpacks.builder.metadata"
ORDER = "io.buildpacks.buildpack.order"

PLATFORM_APIS = ("0.14", "0.13", "0.12")
"""Of the lifecycle, that we speak; the newest that both know is taken."""

PROVIDERS = ("paketo-buildpacks/cpython", "google.python.runtime")
"""Buildpacks that bring Python, where a builder has them."""


class Buildpack(msgspec.Struct, frozen=True):
    id: str
    version: str = ""


class Named(msgspec.Struct, frozen=True):
    image: str = ""
    mirrors: list[str] = []


class Stack(msgspec.Struct, frozen=True, rename="camel"):
    run_image: Named = Named()


class Apis(msgspec.Struct, frozen=True):
    supported: list[str] = []
    deprecated: list[str] = []


class LifecycleApis(msgspec.Struct, frozen=True):
    buildpack: Apis = Apis()
    platform: Apis = Apis()


class LifecycleOf(msgspec.Struct, frozen=True):
    version: str = ""
    apis: LifecycleApis = LifecycleApis()


class Metadata(msgspec.Struct, frozen=True):
    """As the label has it."""

    description: str = ""
    buildpacks: list[Buildpack] = []
    images: list[Named] = []
    stack: Stack = Stack()
    lifecycle: LifecycleOf = LifecycleOf()


class BuilderImage(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    image: EngineImage
    metadata: Metadata
    platform_api: str
    user: str
    group: str
    """Ids, as numbers, by which buildpacks run."""

    @property
    def run_image(self) -> str:
        """Its name, or ''."""
        named = [one.image for one in (*self.metadata.images, self.metadata.stack.run_image) if one.image]
        return named[0] if named else ""

    @property
    def brings_python(self) -> bool:
        """By a buildpack: then it goes along into the image, and the run image needs none."""
        return any(one.id in PROVIDERS for one in self.metadata.buildpacks)

    @property
    def buildpack(self) -> str:
        """Digest of our buildpack in it, or ''."""
        return self.image.labels.get(buildpack_files.LABEL, "")


def describe(name: str, engine: Engine) -> BuilderImage:
    """Raises BuildError: no such image, no builder, or too old."""
    image = engine.image(name)
    if image is None:
        raise BuildError(
            f"the Docker engine has no builder image {name!r}",
            hint="Pull it by docker pull, or make one: fn builder create.",
        )
    label = image.labels.get(METADATA)
    env = dict(each.partition("=")[::2] for each in image.env)
    missing = [what for what, found in ((METADATA, label), *((v, env.get(v)) for v in _IDS)) if not found]
    if label is None or missing:
        raise BuildError(
            f"{name!r} is no builder image: it lacks {', '.join(missing)}",
            hint="Name one for Cloud Native Buildpacks, or make one: fn builder create.",
        )
    try:
        metadata = msgspec.json.decode(label, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BuildError(f"the builder image {name!r}: its label {METADATA} cannot be read: {error}") from error
    return BuilderImage(
        name=name,
        image=image,
        metadata=metadata,
        platform_api=_platform_api(name, metadata),
        user=env[_IDS[0]],
        group=env[_IDS[1]],
    )


_IDS = ("CNB_USER_ID", "CNB_GROUP_ID")


def _platform_api(name: str, metadata: Metadata) -> str:
    known = metadata.lifecycle.apis.platform.supported
    both = [api for api in PLATFORM_APIS if api in known]
    if not both:
        raise BuildError(
            f"the lifecycle of the builder image {name!r} knows the platform APIs {', '.join(known) or 'none'}: "
            f"{PLATFORM_APIS[-1]} or later is needed",
            hint="Take a newer builder image, or make one: fn builder create.",
        )
    return both[0]


def order(builder: Sequence[Buildpack]) -> str:
    """As order.toml: after a buildpack that brings Python, where the builder has one; else ours alone."""
    ours = Buildpack(buildpack_files.ID, buildpack_files.about()["version"])
    found = [one for one in builder if one.id in PROVIDERS]
    groups = [*([one, ours] for one in found), [ours]]
    return "\n".join(_group(group) for group in groups)


def _group(buildpacks: Sequence[Buildpack]) -> str:
    return "[[order]]\n" + "".join(
        "[[order.group]]\n" + _lines({"id": one.id, "version": one.version}) for one in buildpacks
    )


def run_images(name: str) -> str:
    """As run.toml."""
    return "[[images]]\n" + _lines({"image": name})


def _lines(values: Mapping[str, str]) -> str:
    """Of TOML; JSON's strings are strings there, too."""
    return "".join(f"{name} = {msgspec.json.encode(value).decode()}\n" for name, value in values.items() if value)
