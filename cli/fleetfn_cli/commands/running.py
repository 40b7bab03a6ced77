"""run: a function's image in a container on this machine, with connections that are given."""

from __future__ import annotations

import queue
import signal
import threading
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer
from fleetfn.errors import TargetError, UsageError

from fleetfn_cli.commands.building import BuilderImage, BuilderName, With
from fleetfn_cli.commands.nodes import EnvFile
from fleetfn_cli.commands.planning import Env
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_builder.containers import Running
    from fleetfn_spec.environments import Environment
    from fleetfn_spec.function import Function

REPLACE = 75
"""Exit code of a worker whose handler does not end."""

_AGAIN = "A handler did not end in time: run it again."
_ABOVE = "Its own words are above; connections are given by --connection NAME=HOST:PORT, or by --env."


class _Stop:
    """Somebody asked for the end."""


_Lines = queue.SimpleQueue["bytes | Exception | _Stop | None"]


def register(app: typer.Typer) -> None:
    @command(
        app,
        "run",
        examples="""
        fn run
        fn run battery-alert:latest --connection kafka=10.0.0.7:9092
        fn run registry.example/fleet/battery-alert:1.4 --env bench --env-file secrets.env
        fn run samples/tyre-pressure --network host --connection mqtt=localhost:1883
        """,
        node=False,
    )
    def run(
        session: Session,
        what: Annotated[
            str,
            typer.Argument(
                metavar="IMAGE|FOLDER", help="An image, or a function's folder: built first.", show_default="here"
            ),
        ] = ".",
        env: Env = None,
        env_file: EnvFile = None,
        connection: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME=HOST:PORT",
                help="Where a connection is: kafka=broker:9092. Several: repeat it.",
                show_default=False,
            ),
        ] = None,
        port: Annotated[
            int, typer.Option(min=0, max=65535, help="For HTTP, on this machine's loopback; 0: any free one.")
        ] = 8080,
        volume: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Volume that keeps its state.", show_default="fleetfn-FUNCTION"),
        ] = None,
        network: Annotated[
            str, typer.Option(metavar="NAME", help="`host` reaches brokers on this machine's loopback.")
        ] = "bridge",
        builder: With = None,
        builder_image: BuilderImage = None,
        base: Annotated[
            str | None,
            typer.Option(
                envvar="FN_BUILD_BASE",
                metavar="IMAGE",
                help="What a folder's image is built on.",
                show_default="as for fn build",
            ),
        ] = None,
    ) -> None:
        """Run an image here, in a Docker engine, until Ctrl-C: read-only, without privileges, its log in this terminal.

        Its state stays in the volume for the next run.
        """
        from fleetfn_builder import containers
        from fleetfn_builder import engine as engines
        from fleetfn_builder.assembly import anatomy

        from fleetfn_cli import checking, connecting

        folder = Path(what) if Path(what).is_dir() else None
        environment, file = checking.choose(folder or Path(), env)
        environment = connecting.with_addresses(environment, connection or ())
        if network != containers.HOST:
            _check_loopback(environment)
        variables = connecting.variables(env_file)
        engine = engines.connect()
        try:
            image, function = what, None
            if folder is not None:
                image, function = _built(session, folder, builder, builder_image, base)
            with session.screen.steps() as step:
                image, name = containers.find(engine, image, step)
            beside = PurePosixPath(anatomy.ENVIRONMENTS).parent
            met = connecting.meet(environment, beside, given=variables, function=function)
            asked = containers.Run(
                image=image,
                name=f"fleetfn-{name}",
                volume=volume or f"fleetfn-{name}",
                port=port or (_free_port() if network == containers.HOST else 0),
                network=network,
                environment=met.variables,
                files=met.files,
            )
            if file is not None:
                session.screen.say(f"environment {environment.name} of {file}")
            with containers.started(engine, asked) as one:
                where = one.url or "no port, since the engine has no such network (--network host has one)"
                session.screen.say(f"{image}: {where}, state in the volume {asked.volume}; Ctrl-C drains and ends it")
                code = _follow(session, one)
        finally:
            engine.close()
        if code:
            raise TargetError(f"{name} ended with exit code {code}", hint=_AGAIN if code == REPLACE else _ABOVE)


def _check_loopback(environment: Environment) -> None:
    """Raises UsageError: what is at loopback is not to be found from within."""
    from fleetfn_builder.containers import GATEWAY

    from fleetfn_cli import connecting

    for name, address in connecting.at_loopback(environment):
        raise UsageError(
            f"the connection {name} is at {address}, which in a container is the container itself",
            hint=f"--network host shares this machine's network; or name the machine: {GATEWAY}, or its own address.",
        )


def _built(
    session: Session, folder: Path, named: BuilderName | None, builder_image: str | None, base: str | None
) -> tuple[str, Function]:
    """In the engine: its name, and the function."""
    from fleetfn_builder.builder import Request, ToEngine

    from fleetfn_cli import build_options
    from fleetfn_cli.commands import building

    function, source = building.checked_source(session, folder)
    request = Request(
        folder=folder,
        function=function,
        tags=building.tags((), function, source),
        destination=ToEngine(),
        platforms=build_options.platforms(None),
        base=base,
    )
    return building.build_image(session, request, named, builder_image).reference, function


def _follow(session: Session, one: Running) -> int:
    """Show what it says until it ends; its exit code. Ctrl-C drains it, and once more hurries it."""
    from fleetfn_cli import loglines

    lines: _Lines = queue.SimpleQueue()
    threading.Thread(target=_read, args=(one, lines), daemon=True).start()
    # As one more line: an exception could come while a line is shown, and end this before the container has drained.
    before = {each: signal.signal(each, lambda *_: lines.put(_Stop())) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        while (line := lines.get()) is not None:
            if isinstance(line, Exception):
                raise line
            if isinstance(line, _Stop):
                session.screen.say("draining; Ctrl-C again hurries it")
                one.stop()
            elif line.startswith(b"{"):
                loglines.show(line, session.screen)
            else:
                session.screen.say(line.decode("utf-8", "replace"))
        return one.exit_code()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _read(one: Running, lines: _Lines) -> None:
    try:
        for line in one.lines():
            lines.put(line)
    except Exception as error:  # noqa: BLE001 - who shows the lines raises it
        lines.put(error)
    lines.put(None)


def _free_port() -> int:
    import socket

    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])
