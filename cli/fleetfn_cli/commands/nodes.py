"""up, down, version: the node of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from fleetfn.errors import TargetError

from fleetfn_cli import times
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_deploy.places import Place
    from fleetfn_spec.control import NodeInfo

    from fleetfn_cli.starting import Wish

EnvFile = Annotated[
    Path | None,
    typer.Option(
        envvar="FN_ENV_FILE", exists=True, dir_okay=False, help="NAME=value lines for {env: NAME} references."
    ),
]


def register(app: typer.Typer) -> None:
    @command(
        app,
        "up",
        examples="""
        fn up
        fn up --port 9000 --env-file secrets.env
        fn up --host 0.0.0.0 --key-file key.txt
        fn up --quota 2GB --dead-letters 30d
        fn up --foreground
        fn -n bench up --port 9001
        """,
        cluster=False,
    )
    def up(
        session: Session,
        port: Annotated[
            int | None,
            typer.Option(envvar="FN_PORT", min=1, max=65535, help="Port of the front door.", show_default="8080"),
        ] = None,
        host: Annotated[
            str | None, typer.Option(envvar="FN_HOST", help="Where it listens.", show_default="127.0.0.1")
        ] = None,
        env_file: EnvFile = None,
        key_file: Annotated[
            Path | None,
            typer.Option(
                envvar="FN_KEY_FILE", exists=True, dir_okay=False, help="Bearer key that HTTP callers must show."
            ),
        ] = None,
        quota: Annotated[
            str | None,
            typer.Option(
                envvar="FN_QUOTA",
                metavar="2GB",
                help="What waits and dead letters may take on disk; then sources wait.",
                show_default=False,
            ),
        ] = None,
        dead_letters: Annotated[
            str | None,
            typer.Option(
                "--dead-letters",
                envvar="FN_DEAD_LETTERS",
                metavar="30d",
                help="How long dead letters are kept.",
                show_default=False,
            ),
        ] = None,
        foreground: Annotated[
            bool, typer.Option("--foreground", help="Stay, and log to this terminal: for systemd and the like.")
        ] = False,
        data: Annotated[
            Path | None, typer.Option(envvar="FN_DATA", file_okay=False, help="Its data folder.", show_default=False)
        ] = None,
    ) -> None:
        """Start the node of this machine in the background."""
        from fleetfn_deploy import places

        from fleetfn_cli import starting

        wish = starting.Wish(port, host, env_file, key_file, quota, dead_letters)
        place = places.find(session.node or places.DEFAULT, data=data)
        if foreground:
            _become(place, wish)
        info = starting.running(place)
        if info is not None:
            _check_same(info, place.data, session)
            session.screen.say(f"Node {info.name!r} is up already, since {times.duration(time.time() - info.started)}.")
        else:
            with session.screen.steps(f"starting node {place.name}"):
                info = starting.start(place, wish)
        session.screen.result(info, lambda: told(info))
        if info.gateway:
            session.screen.warn(info.gateway)
        session.screen.next_steps(
            (f"fn deploy FOLDER{session.option}", "a function on it"), (f"fn down{session.option}", "stop it")
        )

    @command(app, "down", examples="fn down\nfn -n bench down", cluster=False, structured=False)
    def down(session: Session) -> None:
        """Stop the node: workers drain first. Functions, state and dead letters stay for the next `fn up`."""
        from fleetfn_cli import starting

        place = session.place()
        info = starting.running(place)
        if info is None:
            session.screen.say(f"Node {place.name!r} is not running.")
            return
        with session.screen.steps(f"stopping node {place.name} (pid {info.pid}): workers drain"):
            starting.stop(place, info)
        session.screen.say(f"Node {place.name!r} is down. Its data stays in {info.data}.")

    @command(app, "version", examples="fn version\nfn version -o json", cluster=False)
    def version(session: Session) -> None:
        """Versions of fn and the node, and their control API."""
        from importlib.metadata import version as installed

        from fleetfn_deploy.client import NotRunningError
        from fleetfn_spec.control import API

        node: NodeInfo | None = None
        problem = ""
        try:
            node = session.node_client().node(timeout=5)
        except NotRunningError:
            problem = "not running"
        except TargetError as error:
            problem = f"{error.message} ({error.hint})"
        mine = installed("fleetfn")
        session.screen.result(
            {"fn": {"version": mine, "api": API}, "node": node, "problem": problem or None},
            lambda: (
                f"fn    {mine}, control API {API}\n"
                + (f"node  {node.version}, control API {node.api}, {node.url}" if node else f"node  {problem}")
            ),
        )


def _become(place: Place, wish: Wish) -> NoReturn:
    """Go on as the node, so that whoever watches this process watches that. A second node of a place ends by itself."""
    from fleetfn_deploy import places

    from fleetfn_cli import failures, starting

    failures.need("uvloop", "uvicorn", "fastapi", "httpx", "confluent_kafka")
    places.prepare(place)
    command = starting.command_line(place, wish)
    os.chdir(place.data)
    os.execv(command[0], [*command])  # noqa: S606 - ourselves


def told(info: NodeInfo) -> str:
    lines = [f"node  {info.name}, pid {info.pid}", f"url   {info.url}", f"data  {info.data}", f"log   {info.log}"]
    if info.embedded_kafka:
        lines.append(f"kafka {info.embedded_kafka} (embedded: demo and development only, it keeps nothing)")
    if info.embedded_mqtt:
        lines.append(f"mqtt  {info.embedded_mqtt} (embedded: demo and development only, it keeps nothing)")
    return "\n".join(lines)


def _check_same(info: NodeInfo, data: Path, session: Session) -> None:
    if Path(info.data).resolve() != data.resolve():
        raise TargetError(
            f"a node {info.name!r} is up with another data folder, {info.data}",
            hint=f"Give this one a name of its own: fn -n NAME up, or stop that one: fn down{session.option}",
        )
