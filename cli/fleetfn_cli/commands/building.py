"""build: a function's folder becomes an image."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from fleetfn.errors import UsageError

from fleetfn_cli.describing import SHOWN
from fleetfn_cli.screen import rows
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fleetfn_builder.builder import Built, Destination, Progress, Request
    from fleetfn_builder.inputs import Source
    from fleetfn_builder.references import Reference
    from fleetfn_spec.function import Function

    from fleetfn_cli.screen import Steps

BuilderName = Literal["direct", "buildpacks"]

Folder = Annotated[Path, typer.Argument(help="The function's folder.", show_default="here")]
Tags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag",
        "-t",
        metavar="REF",
        help="Name of the image: registry.example/team/NAME:1.4. Several: repeat it.",
        show_default="NAME:REVISION and NAME:latest",
    ),
]
With = Annotated[
    BuilderName | None,
    typer.Option(
        "--builder",
        envvar="FN_BUILD_BUILDER",
        help="Who builds; buildpacks need a Docker engine.",
        show_default="direct",
    ),
]
BuilderImage = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        envvar="FN_BUILD_BUILDER_IMAGE",
        help="Builder image, for buildpacks.",
        show_default="what fn builder create makes",
    ),
]
Base = Annotated[
    str | None,
    typer.Option(
        metavar="IMAGE",
        help="Image with Python to build on: a reference, oci:FOLDER, or a tarball.",
        show_default="the slim image of the Python that runs here",
    ),
]
Env = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Variable for uv, which installs requirements; never in the image.",
        show_default=False,
    ),
]
Secret = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[=@FILE]",
        help="Likewise, and its value is never shown: the variable of that name, or what a file holds.",
        show_default=False,
    ),
]
Insecure = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST:PORT", help="Registry without TLS, or with a certificate nobody signed.", show_default=False
    ),
]
Mirror = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST=HOST/PATH", help="Where images of a registry are asked for first.", show_default=False),
]
Username = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="User at the registry.", show_default="what `docker login` left"),
]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the user's password from standard input.")]
Wheel = Annotated[
    Path | None,
    typer.Option(
        "--fleetfn",
        metavar="WHEEL",
        exists=True,
        dir_okay=False,
        help="FleetFn to put in.",
        show_default="the one that runs here",
    ),
]

LAYOUT = "oci"
TARBALL = ".tar"

WARNING = "warning: "
"""Begins a line of progress that is one."""


def register(app: typer.Typer) -> None:
    @command(
        app,
        "build",
        examples="""
        fn build
        fn build samples/battery-alert -t registry.example/fleet/battery-alert:1.4 --push
        fn build --to ../battery-alert.tar --platform linux/arm64
        fn build --secret UV_INDEX_URL --sbom bill.cdx.json
        """,
        node=False,
    )
    def build(
        session: Session,
        folder: Folder = Path(),
        tag: Tags = None,
        push: Annotated[bool, typer.Option("--push", help="Leave it in the registry that its tag names.")] = False,
        to: Annotated[
            Path | None,
            typer.Option(
                metavar="PATH",
                help="Leave it in a file: an OCI layout (a folder), or a tarball where the name ends with .tar.",
                show_default="the Docker engine, or NAME.oci where there is none",
            ),
        ] = None,
        builder: With = None,
        platform: Annotated[
            str | None,
            typer.Option(
                metavar="linux/amd64,linux/arm64", help="What it is to run on.", show_default="this machine's"
            ),
        ] = None,
        base: Base = None,
        builder_image: BuilderImage = None,
        env: Env = None,
        secret: Secret = None,
        sbom: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE",
                dir_okay=False,
                help="Write the bill of materials (CycloneDX) there.",
                show_default=False,
            ),
        ] = None,
        insecure: Insecure = None,
        mirror: Mirror = None,
        username: Username = None,
        password_stdin: PasswordStdin = False,
        fleetfn: Wheel = None,
        fresh: Annotated[bool, typer.Option("--fresh", help="Use nothing that was kept of earlier builds.")] = False,
    ) -> None:
        """Make an image of a function: its code, its dependencies, FleetFn.

        An image that is there already is not built again.
        """
        from fleetfn_builder.builder import Request

        from fleetfn_cli import build_options

        if push and to is not None:
            raise UsageError("--push and --to name two places", hint="Give one; build again for the other.")
        function, source = checked_source(session, folder)
        destination = _destination(folder, function, push=push, to=to)
        request = Request(
            folder=folder,
            function=function,
            tags=build_options.pushed(tag or ()) if push else tags(tag or (), function, source),
            destination=destination,
            platforms=build_options.platforms(platform),
            base=base,
            env=build_options.variables(env or ()),
            secrets=build_options.secrets(secret or ()),
            wheel=fleetfn,
            access=build_options.access(
                username=username, password_stdin=password_stdin, insecure=insecure or (), mirrors=mirror or ()
            ),
            fresh=fresh,
        )
        built = build_image(session, request, builder, builder_image)
        if sbom is not None:
            _write_bill(sbom, built.sbom)
        _show(session, built, destination)


def _write_bill(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(
            f"the bill of materials cannot be written to {path}: {error.strerror}",
            hint="The image is made. Name another file: nothing is built twice.",
        ) from error


def checked_source(session: Session, folder: Path) -> tuple[Function, Source]:
    """The function and its source, checked as before a deploy, once for each source. Raises FleetError."""
    from fleetfn_builder import inputs, keeping
    from fleetfn_spec.load import load_function

    from fleetfn_cli.build_notes import Notes

    function = load_function(folder)
    source = inputs.read_source(folder, function, lambda _: None)
    notes = Notes(keeping.default_folder())
    if not notes.passed(source.revision):
        from fleetfn_cli import checking

        with session.screen.steps("checking"):
            remarks = checking.check_handlers(function, folder, meanwhile=_fetch_modules)
        for remark in remarks:
            session.screen.warn(remark)
        if not remarks:
            notes.passes(source.revision)
    return function, source


def _fetch_modules() -> None:
    """Those that a build most likely needs."""
    with contextlib.suppress(ImportError):  # who needs what is not installed says so better
        from fleetfn_builder import direct, opening  # noqa: F401

        opening.registry_class()


def tags(given: Sequence[str], function: Function, source: Source) -> tuple[Reference, ...]:
    from fleetfn_builder import references

    usual = (f"{function.name}:{source.revision[:SHOWN]}", f"{function.name}:latest")
    return tuple(map(references.parse, given or usual))


def _destination(folder: Path, function: Function, *, push: bool, to: Path | None) -> Destination:
    """Raises UsageError."""
    from fleetfn_builder.builder import ToEngine, ToFile, ToRegistry

    if push:
        return ToRegistry()
    if to is not None:
        _check_outside(folder, to)
        return ToFile(to)
    from fleetfn_builder import choosing

    return ToEngine() if choosing.has_engine() else ToFile(_beside(folder) / f"{function.name}.{LAYOUT}")


def _beside(folder: Path) -> Path:
    """Here, unless that is in the function's folder: what lies there becomes source."""
    here, inside = Path.cwd(), folder.resolve()
    return inside.parent if here.is_relative_to(inside) else Path()


def _check_outside(folder: Path, to: Path) -> None:
    from fleetfn_plumbing import source

    inside, place = folder.resolve(), to.resolve()
    if not place.is_relative_to(inside):
        return
    name = place.relative_to(inside)
    patterns = source.patterns(folder)
    parts = [*name.parents][-2::-1]  # from the top one down, without the folder itself
    is_folder = not to.name.endswith(TARBALL)
    if any(source.ignored(each, patterns, is_folder=True) for each in parts) or source.ignored(
        name, patterns, is_folder=is_folder
    ):
        return
    raise UsageError(
        f"{to} lies in the function's folder: the image would become a part of the source",
        hint=f"Name a place outside, or name it in {source.IGNORE_FILE}.",
    )


def build_image(session: Session, request: Request, named: BuilderName | None, builder_image: str | None) -> Built:
    """Raises FleetError."""
    from fleetfn_builder import choosing

    with session.screen.steps() as step:
        builder, why = choosing.choose(named, builder_image=builder_image)
        step(f"builder {builder.name}: {why}")
        return builder.build(request, _telling(session, step))


def _telling(session: Session, step: Steps) -> Progress:
    def tell(line: str) -> None:
        if line.startswith(WARNING):
            session.screen.warn(line.removeprefix(WARNING))
        else:
            step(line)

    return tell


def _show(session: Session, built: Built, destination: Destination) -> None:
    from fleetfn_builder import keeping

    from fleetfn_cli.build_notes import Notes

    notes = Notes(keeping.default_folder())
    image = f"{built.function} {built.builder} {built.platforms[0]}"
    before = notes.layers(image)
    notes.has_layers(image, [each.digest for each in built.layers])
    layers = [{**msgspec.to_builtins(each), "new": each.digest not in before} for each in built.layers]
    told = {name: getattr(built, name) for name in _TOLD}
    session.screen.result({**told, "layers": layers}, lambda: built_text(built, before))
    session.screen.next_steps(*_next(built, destination))


_TOLD = ("reference", "digest", "builder", "function", "revision", "platforms", "size", "unchanged")


def built_text(built: Built, before: Collection[str]) -> str:
    """`before`: digests of the layers that the image had which was built before."""
    from fleetfn_builder.inputs import in_words

    head = f"{built.function} revision {built.revision[:SHOWN]} " + (
        "is there already" if built.unchanged else f"built by {built.builder}"
    )
    about = [
        ("image", built.reference),
        ("digest", built.digest),
        ("for", ", ".join(built.platforms)),
        ("size", in_words(built.size)),
    ]
    layers = rows(
        ["LAYER", "SIZE", "", "DIGEST"],
        (
            [each.name, in_words(each.size), "kept" if each.digest in before else "new", each.digest[7 : 7 + SHOWN]]
            for each in built.layers
        ),
        indent="  ",
    )
    return f"{head}\n{rows(['', ''], about, indent='  ')}\n{layers}"


def _next(built: Built, destination: Destination) -> list[tuple[str, str]]:
    from fleetfn_builder.builder import ToEngine, ToFile

    match destination:
        case ToEngine():
            return [(f"fn run {built.reference}", "try it here")]
        case ToFile(path) if path.name.endswith(TARBALL):
            return [(f"docker load -i {path}", "give it to a Docker engine")]
        case ToFile(path):
            return [(f"skopeo copy oci:{path}:latest docker://...", "take it to a registry")]
        case _:
            return [(f"fn run {built.reference}", "try it here")]
