"""diff, export, certificates: what a deploy would do, and what something else may deploy instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from fleetfn.errors import UsageError

from fleetfn_cli.describing import SHOWN
from fleetfn_cli.screen import rows
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from fleetfn_deploy.places import Place
    from fleetfn_deploy.target import Source, Target
    from fleetfn_spec.control import Plan

    from fleetfn_cli.checking import Checked

Folder = Annotated[Path, typer.Argument(help="The function's folder.", show_default="here")]
Env = Annotated[
    str | None,
    typer.Option("--env", "-E", envvar="FN_ENV", metavar="NAME", help="An environment of environments.yaml."),
]
ForceConflicts = Annotated[
    bool, typer.Option("--force-conflicts", help="On a cluster: take over fields that something else manages.")
]

Wheel = Annotated[
    Path | None,
    typer.Option(
        "--fleetfn",
        metavar="WHEEL",
        exists=True,
        dir_okay=False,
        help="On a cluster: FleetFn to put into images.",
        show_default="the one that runs here",
    ),
]


def register(app: typer.Typer) -> None:
    @command(app, "diff", examples="fn diff\nfn diff samples/battery-alert --env prod")
    def diff(
        session: Session, folder: Folder = Path(), force_conflicts: ForceConflicts = False, fleetfn: Wheel = None
    ) -> None:
        """What a deploy would change. Changes nothing that serves; for a cluster it builds and pushes the image."""
        checked = check(session, folder)
        if checked.environment.target.kubernetes is None:
            refuse_of_clusters(force_conflicts=force_conflicts, wheel=fleetfn)
        show_plan(session, plan(session, folder, checked, force=force_conflicts, wheel=fleetfn))

    @command(
        app,
        "export",
        node=False,
        structured=False,
        examples="fn export samples/battery-alert --env prod > battery-alert.yaml",
    )
    def export(session: Session, folder: Folder = Path(), env: Env = None, fleetfn: Wheel = None) -> None:
        """Write the objects of a function and its gateway as YAML, for GitOps. Builds and pushes the images.

        Certificates are not among them: make them once with `fn certificates`.
        """
        from fleetfn_deploy.kubernetes import yaml_text

        from fleetfn_cli import clusters

        checked = check(replace(session, env=env or session.env), folder)
        what, environment = source(folder, checked), checked.environment
        with session.screen.steps() as step:
            things = clusters.run(
                environment, lambda target: target.export(what, environment, progress=step), asks=False, wheel=fleetfn
            )
        session.screen.line(yaml_text.documents(things).rstrip("\n"))

    @command(app, "certificates", examples="fn certificates --env prod", structured=False)
    def certificates(session: Session) -> None:
        """Make or renew the certificates of a cluster's gateway and functions, where something else deploys them."""
        from fleetfn_cli import clusters

        with session.screen.steps("certificates"):
            clusters.run(session.environment(), lambda target: target.certify())


def check(session: Session, folder: Path) -> Checked:
    from fleetfn_cli import checking

    with session.screen.steps("checking"):
        checked = checking.check(folder, session.env)
    if checked.environments is not None:
        session.screen.say(f"environment {checked.environment.name} of {checked.environments}")
    for remark in checked.remarks:
        session.screen.warn(remark)
    return checked


def refuse_of_clusters(*, force_conflicts: bool, wheel: Path | None) -> None:
    if force_conflicts or wheel is not None:
        option = "--force-conflicts" if force_conflicts else "--fleetfn"
        raise UsageError(
            f"{option} is for a cluster, and the environment is a node", hint="Leave it out, or name another: -E NAME"
        )


def source(folder: Path, checked: Checked) -> Source:
    from fleetfn_deploy.target import Source

    return Source(folder, checked.function)


def plan(session: Session, folder: Path, checked: Checked, *, force: bool = False, wheel: Path | None = None) -> Plan:
    """What deploying it would change. On a cluster, `force`: were fields taken over that something else manages;
    `wheel`: FleetFn for its image, None: the one that runs here.
    """
    import asyncio

    from fleetfn_cli import clusters

    what, environment = source(folder, checked), checked.environment
    if environment.target.kubernetes is None:
        return asyncio.run(node(session.place(environment)).plan(what, environment))
    with session.screen.steps() as step:
        return clusters.run(
            environment, lambda target: target.plan(what, environment, progress=step), force=force, wheel=wheel
        )


def node(place: Place) -> Target:
    from fleetfn_deploy.client import NodeClient
    from fleetfn_deploy.node import NodeTarget

    return NodeTarget(NodeClient(place.socket, name=place.name))


def show_plan(session: Session, plan: Plan) -> None:
    session.screen.result(plan, lambda: plan_text(plan))


def plan_text(plan: Plan) -> str:
    if plan.serving is None:
        return f"{plan.name}: first deploy, revision {plan.digest[:SHOWN]}"
    if not plan.changes and not plan.notes:
        return f"{plan.name}: no change, {plan.digest[:SHOWN]} serves"
    changes = rows(
        ["", ""], ([each.field, f"{_value(each.old)} -> {_value(each.new)}"] for each in plan.changes), indent="  "
    )
    head = f"{plan.name}: {plan.serving[:SHOWN]} -> {plan.digest[:SHOWN]}\n{changes}"
    return "\n".join([head, *(f"  {note}" for note in plan.notes)])


def _value(value: Any) -> str:
    return "-" if value is None else msgspec.json.encode(value).decode()
