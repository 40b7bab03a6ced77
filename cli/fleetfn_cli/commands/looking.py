"""list, describe, logs: what runs, why, and what it said."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from fleetfn_cli import describing
from fleetfn_cli.session import Session, command

Name = Annotated[str, typer.Argument(help="The function.", show_default=False)]
Level = Literal["debug", "info", "warning", "error"]


def register(app: typer.Typer) -> None:
    @command(app, "list", examples="fn list\nfn list -o json")
    def list_(session: Session) -> None:
        """What is deployed on this node."""
        functions = session.client().functions()
        if not functions:
            session.screen.say(f"No functions here yet. To deploy one: fn deploy FOLDER{session.option}")
        if functions or session.screen.output != "table":
            session.screen.result(functions, lambda: describing.table(functions, time.time(), session.screen.paint))
        for problem in dict.fromkeys(problem for each in functions for problem in each.problems):
            session.screen.warn(problem)

    @command(app, "describe", examples="fn describe battery-alert\nfn describe battery-alert -o yaml")
    def describe(session: Session, name: Name) -> None:
        """Why a function runs or does not, on one screen."""
        status = session.client().function(name)
        session.screen.result(
            status, lambda: describing.page(status, time.time(), session.screen.paint, option=session.option)
        )

    @command(
        app,
        "logs",
        examples="""
        fn logs battery-alert -f
        fn logs battery-alert --since 10m --level warning
        fn logs battery-alert --key WDB1234567 -o json
        """,
    )
    def logs(
        session: Session,
        name: Name,
        follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
        since: Annotated[str | None, typer.Option(metavar="10m", help="Only what is younger.")] = None,
        key: Annotated[
            str | None, typer.Option(help="Only events of this key (logs hold its keyed hash, the node knows it).")
        ] = None,
        level: Annotated[Level | None, typer.Option(help="This level and above.")] = None,
        revision: Annotated[str | None, typer.Option(help="Only this revision (its first digits).")] = None,
        invocation: Annotated[str | None, typer.Option(help="Only this invocation.")] = None,
    ) -> None:
        """Log lines of a function: its own, its prints, its tracebacks."""
        from fleetfn_cli import loglines
        from fleetfn_cli.durations import seconds_of

        begin = None if since is None else time.time() - seconds_of(since, "--since")
        wanted = loglines.wanted(revision=revision, invocation=invocation)
        count = 0
        with session.client().logs(name, follow=follow, since=begin, level=level, key=key) as lines:
            for line in filter(wanted, lines):
                count += 1
                loglines.show(line, session.screen)
        if not count and not follow:
            session.screen.say(
                f"No log lines{' that fit' if begin or level or key else ''}. All of them: fn logs {name}"
            )
