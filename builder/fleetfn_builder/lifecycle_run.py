"""One run of the CNB lifecycle's `creator`, in a container of the builder image: a function's folder becomes an image.

Everything it needs is copied in, and nothing of it stays: not the folder, not our buildpack, not credentials.
https://github.com/buildpacks/spec/blob/main/platform.md#creator
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from fleetfn_plumbing import source as sources

from fleetfn_builder import builder_labels, buildpack_files
from fleetfn_builder.assembly import anatomy, layers, resolving
from fleetfn_builder.assembly.layers import Text, Tree
from fleetfn_builder.assembly.quoting import Scrubber
from fleetfn_builder.builder import BuildError, Progress
from fleetfn_builder.builder_labels import BuilderImage
from fleetfn_builder.buildpack import building
from fleetfn_builder.buildpack.building import Plan
from fleetfn_builder.buildpack_files import BuildpackFiles
from fleetfn_builder.engine import SOCKET, Container, ContainerSpec, Engine, Mount
from fleetfn_builder.inputs import EPOCH, Source

LABEL = "dev.fleetfn.build"
"""Of the container: the function's name."""

_LABEL_CACHE = "dev.fleetfn.build.cache"
"""Of the container: which cache's lock it was made under, since builds by other caches are not waited for."""

_PLATFORM = "/platform"
_ORDER = "/fleetfn/order.toml"
_RUN = "/fleetfn/run.toml"
_UV_CACHE = "/fleetfn/uv"
_CERTIFICATES = "/fleetfn/certificates.pem"
_REPORT = "/layers/report.toml"
_UV_VOLUME = "fleetfn-uv"

_DETECT_FAILED = 20
"""The lifecycle's exit code where no buildpack wants the folder."""

_OF_NO_USE = ("Warning: Did not find SBOM ", "Adding label ")
"""What the lifecycle says of itself and of its releases, not of this build."""

_SHOWN = 15
"""Last lines of a build that failed, where it does not say why in words of ours."""

_INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST", "UV_INDEX_STRATEGY")
_PROXY = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Of this machine's environment: whoever needs them here needs them in a container, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What to make. `names`: of the image."""

    names: Sequence[str]
    builder: BuilderImage
    buildpack: BuildpackFiles
    run_image: str
    plan: Plan
    source: Source
    to_engine: bool
    created: int
    labels: Mapping[str, str]
    """Of the container."""
    env: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
    insecure: Sequence[str] = ()
    """Registries, `host:port`."""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What goes into Authorization, by registry."""
    fresh: bool = False


def volume(function: str) -> str:
    """What is kept for a function's next build: its layers."""
    return f"fleetfn-layers-{function}"


def labels(function: str, cache: Path) -> dict[str, str]:
    """Of a build's container, by which the next one finds what was left if `fn` was killed: secrets are in it.
    `cache`: the folder whose lock lets one build of the function at a time make any.
    """
    return {LABEL: function, _LABEL_CACHE: _known_as(cache)}


def name_in_engine(function: str, cache: Path) -> str:
    """What an image is called until it is whole: builds by other caches, which no lock keeps out, have another name."""
    return f"fleetfn-build-{function}:{_known_as(cache)}"


def _known_as(cache: Path) -> str:
    return hashlib.sha256(f"{socket.gethostname()} {cache.resolve()}".encode()).hexdigest()[:16]


def inherited() -> dict[str, str]:
    """Of this process's environment, what a build is given: where packages come from."""
    return {name: os.environ[name] for name in (*_INDEX, *_PROXY) if os.environ.get(name)}


def choosing() -> dict[str, str]:
    """Of that, what decides which versions are taken."""
    return {name: value for name, value in inherited().items() if name in resolving.VARIABLES}


def run(engine: Engine, errand: Errand, progress: Progress) -> str:
    """The image's digest; of an engine, its id. Raises BuildError."""
    if errand.fresh:
        engine.remove_volumes([volume(errand.plan.function)])
    given = inherited()
    hide = Scrubber({**given, **errand.secrets, **errand.credentials})
    said: list[str] = []

    def line(text: str) -> None:
        said.append(hide(text.rstrip()))
        if said[-1].strip() and not said[-1].startswith(_OF_NO_USE):
            progress(said[-1])

    with engine.container(_spec(engine, errand, given)) as container:
        _fill(container, errand, given)
        code = container.run(line)
        if code != 0:
            raise _failure(code, said, errand)
        report = container.get(_REPORT)
    image = tomllib.loads((report or b"").decode()).get("image", {})
    digest = image.get("image-id" if errand.to_engine else "digest", "")
    if not digest:
        raise BuildError("the lifecycle does not say which image it has made", hint="Take another builder image.")
    return str(digest)


def _spec(engine: Engine, errand: Errand, given: Mapping[str, str]) -> ContainerSpec:
    mounts = [Mount(volume(errand.plan.function), "/cache")]
    mounts += [] if errand.fresh else [Mount(_UV_VOLUME, _UV_CACHE)]
    environment = {
        "CNB_PLATFORM_API": errand.builder.platform_api,
        "CNB_USER_ID": errand.builder.user,
        "CNB_GROUP_ID": errand.builder.group,
        EPOCH: str(errand.created),
        **{name: given[name] for name in _PROXY if name in given},
    }
    if os.environ.get("SSL_CERT_FILE"):
        environment["SSL_CERT_FILE"] = _CERTIFICATES
    if errand.to_engine:
        mounts += [Mount(engine.socket_path, SOCKET)]
    elif errand.credentials:
        environment["CNB_REGISTRY_AUTH"] = msgspec.json.encode(errand.credentials).decode()
    return ContainerSpec(
        image=errand.builder.image.id,
        command=_command(errand),
        environment=environment,
        mounts=mounts,
        labels=errand.labels,
    )


def _command(errand: Errand) -> list[str]:
    """An engine's image takes no layers over from the one before it (-previous-image): some lifecycles, 0.21.15 and
    later, put one of those in the place of all (buildpacks/imgutil#310). From platform API 0.14 on the cache says
    enough of them; to an older lifecycle it does not, and layers are made anew.
    """
    first, *others = errand.names
    return [
        "/cnb/lifecycle/creator",
        *("-app", anatomy.CODE, "-layers", "/layers", "-platform", _PLATFORM),
        *("-order", _ORDER, "-run", _RUN, "-run-image", errand.run_image),
        *("-report", _REPORT, "-process-type", building.PROCESS, "-cache-dir", "/cache"),
        *(["-daemon"] if errand.to_engine else []),
        *(part for host in errand.insecure for part in ("-insecure-registry", host)),
        *(part for name in others for part in ("-tag", name)),
        "-no-color",
        first,
    ]


def _fill(container: Container, errand: Errand, given: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="fleetfn-build-") as folder:
        path = Path(folder) / "files.tar.gz"
        layers.write(path, _files(errand), level=0)
        _check_source(errand.source)
        with path.open("rb") as tar:
            container.put(tar)
    container.put(_private(errand, given))


def _check_source(source: Source) -> None:
    """The labels are of what was read before; so is what was packed, or nobody gets it."""
    try:
        same = sources.digest(source.folder, source.names) == source.files
    except OSError:
        same = False
    if not same:
        raise BuildError("the source changed while it was read", hint="Build again.")


def _files(errand: Errand) -> list[Tree | Text]:
    builder = errand.builder
    plan = {name: getattr(errand.plan, name) for name in errand.plan.__dataclass_fields__}
    has_buildpack = builder.buildpack == errand.buildpack.digest
    certificates = os.environ.get("SSL_CERT_FILE", "")
    return [
        Tree(errand.source.folder, anatomy.CODE, errand.source.names),
        *([] if has_buildpack else errand.buildpack.trees),
        *([Tree(Path(certificates), _CERTIFICATES)] if certificates else []),
        Text(builder_labels.order(builder.metadata.buildpacks).encode(), _ORDER),
        Text(builder_labels.run_images(errand.plan.base.name if errand.plan.base else errand.run_image).encode(), _RUN),
        Text(msgspec.json.encode(plan), f"{_PLATFORM}/{building.PLAN}"),
    ]


def _private(errand: Errand, given: Mapping[str, str]) -> io.BytesIO:
    """Never on this machine's disk; and folders for the user by whom buildpacks run."""
    variables = {
        **{name: given[name] for name in _INDEX if name in given},
        **({} if errand.fresh else {"UV_CACHE_DIR": _UV_CACHE}),
        **({"SSL_CERT_FILE": _CERTIFICATES} if os.environ.get("SSL_CERT_FILE") else {}),
        **errand.env,
        **errand.secrets,
    }
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("layers", "cache", *([] if errand.fresh else [_UV_CACHE.lstrip("/")])):
            member = tarfile.TarInfo(folder)
            member.type = tarfile.DIRTYPE
            member.mode = 0o755
            member.uid, member.gid = int(errand.builder.user), int(errand.builder.group)
            tar.addfile(member)
        for name, value in sorted(variables.items()):
            content = value.encode()
            member = tarfile.TarInfo(f"{_PLATFORM}/env/{name}".lstrip("/"))
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))
    spool.seek(0)
    return spool


def _failure(code: int, said: Sequence[str], errand: Errand) -> BuildError:
    """By the buildpack's own words, if it has said any; else by the lifecycle's."""
    starts = [at for at, line in enumerate(said) if line.startswith("Error: ")]
    if starts:
        rest = said[starts[-1] :]
        end = next((at for at, line in enumerate(rest) if line.startswith(("Hint: ", "ERROR: "))), len(rest))
        hint = next((line.removeprefix("Hint: ") for line in rest if line.startswith("Hint: ")), "")
        return BuildError("\n".join(rest[:end]).removeprefix("Error: "), hint=hint)
    if code == _DETECT_FAILED:
        return BuildError(
            f"no buildpack of {errand.builder.name} takes the folder {errand.source.folder}",
            hint=f"The last lines say which was tried; {buildpack_files.ID} wants a function.yaml.",
        )
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    shown = errors[-2:] or [line for line in said if line.strip()][-_SHOWN:]
    return BuildError(f"the lifecycle ended with exit code {code}: " + "\n".join(shown))
