"""new, check: a function's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fleetfn_cli.commands.planning import Env, Folder
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_cli.checking import Checked


def register(app: typer.Typer) -> None:
    @command(
        app,
        "new",
        node=False,
        structured=False,
        examples="""
        fn new tyre-alert
        fn new last-seen --template http --folder functions/last-seen
        """,
    )
    def new(
        session: Session,
        name: Annotated[
            str, typer.Argument(help="The function: lower-case letters, digits and dashes.", show_default=False)
        ],
        template: Annotated[
            Literal["alert", "mqtt", "http", "cron"],
            typer.Option(
                "--template",
                help="alert: Kafka in and out. mqtt: MQTT in and out. http: store and show. cron: a daily report.",
            ),
        ] = "alert",
        folder: Annotated[Path | None, typer.Option(help="Where to.", show_default="NAME")] = None,
    ) -> None:
        """Write a small working function with its own tests."""
        from fleetfn_cli import templates

        target = folder or Path(name)
        for file in templates.write(template, name, target):
            session.screen.line(str(file))
        session.screen.next_steps(
            (f"cd {target}", ""),
            ("pytest", "its own tests"),
            ("fn dev", "run it here, and again on each save"),
            ("fn deploy", "onto the node of this machine"),
        )

    @command(app, "check", node=False, examples="fn check\nfn check samples/battery-alert --env bench")
    def check(session: Session, folder: Folder = Path(), env: Env = None) -> None:
        """Find all that a deploy would refuse.

        function.yaml, its environment, and the handlers' signatures; all problems at once, with their places.
        """
        from fleetfn_cli import checking

        with session.screen.steps("checking" if session.screen.is_terminal else ""):
            checked = checking.check(folder, env)
        for remark in checked.remarks:
            session.screen.warn(remark)
        session.screen.result(_value(checked), lambda: _said(checked))


def _said(checked: Checked) -> str:
    spec = checked.function.spec
    where = f" ({checked.environments})" if checked.environments is not None else ""
    triggers = ", ".join(f"{each.name} ({each.kind.name})" for each in spec.triggers)
    return f"{checked.function.name} is fine for environment {checked.environment.name}{where}: triggers {triggers}"


def _value(checked: Checked) -> dict[str, object]:
    return {
        "name": checked.function.name,
        "environment": checked.environment.name,
        "environments": str(checked.environments) if checked.environments else None,
        "triggers": [each.name for each in checked.function.spec.triggers],
        "remarks": list(checked.remarks),
    }
