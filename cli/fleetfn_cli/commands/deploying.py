"""deploy, revisions, rollback, delete: what serves."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fleetfn.errors import TargetError, UsageError

from fleetfn_cli import asking, times
from fleetfn_cli.commands import planning
from fleetfn_cli.commands.looking import Name
from fleetfn_cli.commands.planning import Folder, ForceConflicts, Wheel
from fleetfn_cli.describing import SHOWN
from fleetfn_cli.screen import rows
from fleetfn_cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fleetfn_deploy.places import Place
    from fleetfn_spec.control import DeployLine, FunctionStatus, RevisionInfo
    from fleetfn_spec.function import Trigger

    from fleetfn_cli.checking import Checked
    from fleetfn_cli.screen import Steps


def register(app: typer.Typer) -> None:
    @command(
        app,
        "deploy",
        examples="""
        fn deploy
        fn deploy samples/battery-alert --env prod
        fn deploy --dry-run
        """,
    )
    def deploy(
        session: Session,
        folder: Folder = Path(),
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change; change nothing.")] = False,
        no_start: Annotated[
            bool, typer.Option("--no-start", help="Fail where no node runs, instead of starting it.")
        ] = False,
        wait: Annotated[
            bool, typer.Option("--wait/--no-wait", help="Wait until it serves, or leave it to the node.")
        ] = True,
        force_conflicts: ForceConflicts = False,
        fleetfn: Wheel = None,
    ) -> None:
        """Check a folder and make it the serving revision. A failure leaves the old one serving.

        On a node, which is started in the background where none runs; on a cluster, where its image is built and
        pushed first.
        """
        checked = planning.check(session, folder)
        if checked.environment.target.kubernetes is not None:
            _refuse_of_nodes(no_start=no_start, wait=wait)
            _to_cluster(session, folder, checked, dry_run=dry_run, force=force_conflicts, wheel=fleetfn)
        else:
            planning.refuse_of_clusters(force_conflicts=force_conflicts, wheel=fleetfn)
            _to_node(session, folder, checked, dry_run=dry_run, start=not (no_start or dry_run), wait=wait)

    @command(app, "revisions", examples="fn revisions battery-alert")
    def revisions(session: Session, name: Name) -> None:
        """What served and serves, newest first."""
        found = session.client().revisions(name)
        session.screen.result(found, lambda: _revisions(found, time.time()))
        if len(found) > 1:
            session.screen.next_steps((f"fn rollback {name}{session.option}", "back to the one before"))

    @command(
        app,
        "rollback",
        examples="fn rollback battery-alert\nfn rollback battery-alert 3\nfn rollback battery-alert 8c1f22",
    )
    def rollback(
        session: Session,
        name: Name,
        revision: Annotated[
            str | None, typer.Argument(help="Its number or first digits; else the one before.", show_default=False)
        ] = None,
    ) -> None:
        """Make an earlier revision serve again.

        It passes the same checks as a deploy; if it fails them, what serves goes on.
        """
        client = session.client()
        digest = _digest(client.revisions(name), revision, name) if revision is not None else None
        with client.rollback(name, digest) as lines, session.screen.steps() as step:
            now = _last(lines, step)
        session.screen.result(now, lambda: revision_text(now))

    @command(
        app,
        "delete",
        examples="""
        fn delete battery-alert
        fn delete battery-alert --keep-state --yes
        fn delete --gateway --env prod
        """,
    )
    def delete(
        session: Session,
        name: Annotated[str | None, typer.Argument(help="The function.", show_default=False)] = None,
        keep_state: Annotated[
            bool, typer.Option("--keep-state", help="A function of this name finds its state again.")
        ] = False,
        gateway: Annotated[
            bool, typer.Option("--gateway", help="A cluster's gateway, once no function is left there.")
        ] = False,
        yes: asking.Yes = False,
    ) -> None:
        """Remove a function, after asking.

        Says first what becomes of its state, dead letters and offsets.
        """
        if name is None or gateway:
            if name is not None or not gateway:
                raise UsageError("what to delete?", hint="Name a function, or give --gateway without one.")
            _delete_gateway(session, keep_data=keep_state, yes=yes)
            return
        client = session.client()
        status = client.function(name)
        in_cluster = session.environment().target.kubernetes is not None
        session.screen.say(fate(status, keep_state=keep_state, in_cluster=in_cluster))
        asking.confirm(session, f"Delete {name}?", yes=yes)
        with session.screen.steps(f"draining {name}" if status.workers else ""):
            client.delete(name, keep_state=keep_state)
        session.screen.result(
            {"deleted": name, "state": "kept" if keep_state else "deleted"}, lambda: f"deleted {name}"
        )


def _delete_gateway(session: Session, *, keep_data: bool, yes: bool) -> None:
    from fleetfn_cli import clusters

    environment = session.environment()
    inbox = "kept for the next gateway" if keep_data else "deleted with its volume (--keep-state keeps it)"
    lines = [("what waits, dead letters", inbox), ("certificates", "deleted: the next deploy makes new ones")]
    session.screen.say("Deleting the gateway:\n" + rows(["", ""], lines, indent="  "))
    asking.confirm(session, f"Delete the gateway of {environment.name}?", yes=yes)
    with session.screen.steps("the gateway ends"):
        clusters.run(environment, lambda target: target.delete_gateway(keep_data=keep_data))
    session.screen.result(
        {"deleted": "gateway", "data": "kept" if keep_data else "deleted"}, lambda: "deleted the gateway"
    )


def fate(status: FunctionStatus, *, keep_state: bool, in_cluster: bool = False) -> str:
    """What becomes of all that a function has."""
    kept = "kept for a function of this name" if keep_state else "deleted (--keep-state keeps them)"
    with_state = "kept with the state" if keep_state else "deleted with the state"
    waiting = sum(each.waiting for each in status.triggers)
    named = {kind: ", ".join(_named(status, kind)) for kind in ("kafka", "mqtt", "cron")}
    lines = [
        ("its revisions", "deleted: no rollback to them"),
        ("state, marks and unsent emits", kept),
        ("its log", "goes with its pods" if in_cluster else with_state),
        ("its counters", with_state),
        ("events that wait in the inbox", f"{waiting:,} {kept}" if waiting else "none"),
        ("dead letters", f"{status.dead_letters:,} {kept}" if status.dead_letters else "none"),
    ]
    if named["kafka"]:
        lines.append(("offsets", f"stay in Kafka ({named['kafka']}): deployed again, it goes on where it stopped"))
    if named["mqtt"]:
        lines.append(("MQTT sessions", f"end ({named['mqtt']}): what the broker keeps for them is gone"))
    if named["cron"]:
        lines.append(("clocks", f"stop ({named['cron']})"))
    return f"Deleting {status.name}:\n" + rows(["", ""], lines, indent="  ")


def _named(status: FunctionStatus, kind: str) -> list[str]:
    return [each.name for each in status.triggers if each.kind == kind]


def revision_text(revision: RevisionInfo) -> str:
    head = f"{revision.name} revision {revision.number} ({revision.digest[:SHOWN]}) serves"
    return "\n".join([head, *(f"  {url}" for url in revision.urls)])


def _refuse_of_nodes(*, no_start: bool, wait: bool) -> None:
    if no_start or not wait:
        option = "--no-start" if no_start else "--no-wait"
        raise UsageError(
            f"{option} is for a node, and the environment is a cluster",
            hint="Leave it out: a deploy on a cluster can be stopped and run again at any time.",
        )


def _to_cluster(
    session: Session, folder: Path, checked: Checked, *, dry_run: bool, force: bool, wheel: Path | None
) -> None:
    from fleetfn_cli import clusters

    if dry_run:
        planning.show_plan(session, planning.plan(session, folder, checked, force=force, wheel=wheel))
        return
    what, environment = planning.source(folder, checked), checked.environment
    with session.screen.steps() as step:
        revision = clusters.run(
            environment, lambda target: target.deploy(what, environment, progress=step), force=force, wheel=wheel
        )
    session.screen.result(revision, lambda: revision_text(revision))
    _after(session, checked, revision)


def _to_node(session: Session, folder: Path, checked: Checked, *, dry_run: bool, start: bool, wait: bool) -> None:
    place = session.place(checked.environment)
    started = _node(session, place, start=start)
    if dry_run:
        planning.show_plan(session, planning.plan(session, folder, checked))
        return
    if wait:
        revision = _deploy(session, place, folder, checked)
        session.screen.result(revision, lambda: revision_text(revision))
        _after(session, checked, revision)
    else:
        _leave(session, place, folder, checked)
    if started:
        session.screen.say(f"\nThe node goes on in the background. To stop it: fn down{session.option}")


def _node(session: Session, place: Place, *, start: bool) -> bool:
    """See that a node runs; was it started here?"""
    from fleetfn_deploy.client import NotRunningError

    from fleetfn_cli import starting
    from fleetfn_cli.commands.nodes import told

    if starting.running(place) is not None:
        return False
    if not start:
        raise NotRunningError(f"node {place.name!r} is not running", hint=f"Start it: fn up{session.option}")
    with session.screen.steps(f"starting node {place.name} in the background"):
        info = starting.start(place, starting.Wish.from_environment())
    session.screen.say(told(info))
    return True


def _deploy(session: Session, place: Place, folder: Path, checked: Checked) -> RevisionInfo:
    import asyncio

    with session.screen.steps() as step:
        what = planning.source(folder, checked)
        return asyncio.run(planning.node(place).deploy(what, checked.environment, progress=step))


def _leave(session: Session, place: Place, folder: Path, checked: Checked) -> None:
    """Hand the source over and go once the node has begun: it finishes by itself."""
    import tempfile

    from fleetfn_deploy.client import NodeClient, RefusedError
    from fleetfn_plumbing import source
    from fleetfn_spec.control import DeployRequest

    request = DeployRequest(function=checked.function, environment=checked.environment)
    with tempfile.TemporaryFile() as packed:
        source.pack(folder, packed)
        packed.seek(0)
        blocks = iter(lambda: packed.read(1 << 16), b"")
        with NodeClient(place.socket, name=place.name).deploy(request, blocks) as lines:
            first = next(lines, None)
    if first is not None and first.refusal is not None:
        raise RefusedError(first.refusal)
    name = checked.function.name
    session.screen.result({"name": name, "begun": True}, lambda: f"{name}: the node has begun")
    session.screen.next_steps((f"fn describe {name}{session.option}", "did it get there?"))


def _after(session: Session, checked: Checked, revision: RevisionInfo) -> None:
    name = f"{revision.name}{session.option}"
    triggers = checked.function.spec.triggers
    steps = [*to_try(triggers, name)[:1], (f"fn describe {name}", "why it runs or does not")]
    steps.append((f"fn logs {name} -f", "what it says"))
    shown = next((each.http for each in triggers if each.http is not None), None)
    if shown is not None and revision.urls:
        url = next((url for url in revision.urls if url.endswith(shown.path)), revision.urls[0])
        options = "" if "GET" in shown.methods else f"-X {shown.methods[0]} -d '{{...}}' "
        steps.append((f"curl {options}{_filled(url)}", "ask it"))
    session.screen.next_steps(*steps)


def to_try(triggers: Sequence[Trigger], name: str) -> list[tuple[str, str]]:
    """Commands that have the function run, without those for http triggers, and what they do. `name`: with options."""
    brokered = [each for each in triggers if each.kafka is not None or each.mqtt is not None]
    clocks = [each for each in triggers if each.cron is not None]
    found = []
    for each in brokered:
        which = f" --trigger {each.name}" if len(brokered) > 1 else ""
        key = " --key V1" if (each.key_expression or "").startswith("topic.") else ""
        found.append((f"fn send {name}{which}{key} --data '{{...}}'", "an event through its topic"))
    for each in clocks:
        which = f" {each.name}" if len(clocks) > 1 else ""
        found.append((f"fn trigger fire {name}{which}", "its clock, now"))
    return found


def _filled(url: str) -> str:
    """`/battery/{vehicle}` -> `/battery/V1`: something that a shell and curl take as it is."""
    return re.sub(r"\{(\w)\w*\}", lambda part: f"{part[1].upper()}1", url)


def _digest(known: list[RevisionInfo], wanted: str, name: str) -> str:
    """A revision's number or first digits -> its digest. Raises UsageError."""
    if wanted.isdigit() and len(wanted) < SHOWN:
        by_number = [each.digest for each in known if each.number == int(wanted)]
        if by_number:
            return by_number[0]
    found = {each.digest for each in known if each.digest.startswith(wanted)}
    if len(found) == 1:
        return found.pop()
    problem = "several revisions start with" if found else "has no revision"
    shown = ", ".join(f"{each.number} {each.digest[:SHOWN]}" for each in known)
    raise UsageError(f"{name} {problem} {wanted!r}" if not found else f"{problem} {wanted!r}", hint=f"It has: {shown}.")


def _last(lines: Iterable[DeployLine], step: Steps) -> RevisionInfo:
    from fleetfn_deploy.client import RefusedError

    for line in lines:
        if line.refusal is not None:
            raise RefusedError(line.refusal)
        if line.step is not None:
            step(line.step)
        if line.revision is not None:
            return line.revision
    raise TargetError("the node ended its answer before the revision served", hint="What serves now: fn list")


def _revisions(found: list[RevisionInfo], now: float) -> str:
    return rows(
        ["NUMBER", "DIGEST", "DEPLOYED", "ENVIRONMENT", ""],
        (
            [
                str(each.number),
                each.digest[:SHOWN],
                times.ago(each.created, now),
                each.environment,
                "serves" if each.serving else "",
            ]
            for each in found
        ),
    )
