"""builder create: a builder image for buildpacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fleetfn.errors import UsageError

from fleetfn_cli.commands.building import Base, Insecure, Mirror, PasswordStdin, Username, Wheel
from fleetfn_cli.screen import rows
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_builder.builder_create import CreatedBuilder


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Builder images for buildpacks: create.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="builder")

    @command(
        group,
        "create",
        examples="""
        fn builder create
        fn builder create --base debian-python.tar
        fn builder create registry.example/fleet/builder:1 --base oci:base --lifecycle lifecycle.tgz --push
        """,
        node=False,
    )
    def create(
        session: Session,
        name: Annotated[
            str | None, typer.Argument(help="What to call it.", show_default="what fn build looks for")
        ] = None,
        base: Base = None,
        lifecycle: Annotated[
            Path | None,
            typer.Option(
                metavar="PATH",
                exists=True,
                help="A release of the lifecycle: its tarball, or a folder.",
                show_default="built from its Go module",
            ),
        ] = None,
        run_image: Annotated[
            str | None,
            typer.Option(metavar="IMAGE", help="What functions are laid upon.", show_default="the base"),
        ] = None,
        push: Annotated[bool, typer.Option("--push", help="Leave it in the registry that its name says.")] = False,
        platform: Annotated[
            str | None, typer.Option(metavar="linux/amd64", help="What it runs on.", show_default="the engine's")
        ] = None,
        insecure: Insecure = None,
        mirror: Mirror = None,
        username: Username = None,
        password_stdin: PasswordStdin = False,
        fleetfn: Wheel = None,
    ) -> None:
        """Make a builder image for Cloud Native Buildpacks: a base with Python, their lifecycle, FleetFn's buildpack.

        With a base from a file no image registry is needed.
        """
        from fleetfn_builder import builder_create, references
        from fleetfn_builder.buildpacks import default_builder

        from fleetfn_cli import build_options

        platforms = build_options.platforms(platform) if platform or push else ()
        if len(platforms) > 1:
            raise UsageError("a builder image is for one platform", hint="Create one for each, by names of their own.")
        reference = (
            build_options.pushed([name] if name else [])[0] if push else references.parse(name or default_builder())
        )
        wanted = builder_create.Wanted(
            name=reference,
            base=base,
            lifecycle=lifecycle,
            run_image=run_image,
            push=push,
            platform=platforms[0] if platforms else None,
            wheel=fleetfn,
            access=build_options.access(
                username=username,
                password_stdin=password_stdin,
                insecure=insecure or (),
                mirrors=mirror or (),
                host=reference.host,
            ),
        )
        with session.screen.steps() as step:
            made = builder_create.create(wanted, step)
        session.screen.result(made, lambda: _text(made))
        option = f" --builder-image {made.reference}" if name else ""
        session.screen.next_steps((f"fn build --builder buildpacks{option}", "build with it"))


def _text(made: CreatedBuilder) -> str:
    from fleetfn_builder.inputs import in_words

    return rows(
        ["", ""],
        [
            ("builder", made.reference),
            ("digest", made.digest),
            ("base", made.base),
            ("run image", made.run_image),
            ("lifecycle", made.lifecycle),
            ("size", in_words(made.size)),
        ],
    )
