"""dlq redrive, dlq discard: what becomes of dead letters."""

from __future__ import annotations

from typing import Annotated

import typer

from fleetfn_cli import asking, choosing, times
from fleetfn_cli.choosing import All, Function, Key, Newer, Numbers, Older, Reason, Trigger
from fleetfn_cli.durations import per_second
from fleetfn_cli.screen import counted
from fleetfn_cli.session import Session, command


def add(group: typer.Typer) -> None:
    """To the family of `fn dlq`."""

    @command(
        group,
        "redrive",
        examples="""
        fn dlq redrive 12 13
        fn dlq redrive --function battery-alert --reason attempts --dry-run
        fn dlq redrive --all --rate 50/s
        """,
    )
    def redrive(
        session: Session,
        sequences: Numbers = None,
        function: Function = None,
        trigger: Trigger = None,
        key: Key = None,
        reason: Reason = None,
        older_than: Older = None,
        newer_than: Newer = None,
        everything: All = False,
        rate: Annotated[str | None, typer.Option(metavar="N/s", help="So many a second; else all at once.")] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    ) -> None:
        """Have dead letters run again: those numbered, those that fit the options, or all.

        Events of a key keep their order. One whose key is parked goes first, others behind all that waits. Those of a
        function that is not deployed, or of a trigger that it has no more, are refused.
        """
        from fleetfn_spec.gateway import Redrive

        per = per_second(rate, "--rate") if rate is not None else None
        client = session.client()
        common = choosing.choice(function, trigger, key, reason, older_than, newer_than)
        which = choosing.which(client, sequences or [], common, everything=everything)
        count = 0
        if which is not None:
            count = client.redrive(Redrive(which=which, rate=per, dry_run=dry_run))
        said = "would redrive" if dry_run else "redriven"
        session.screen.result({said.replace(" ", "_"): count}, lambda: f"{said} {counted(count, 'dead letter')}")
        _tell_missing(session, sequences or [], count)
        if count and not dry_run:
            _tell_pace(session, count, per)

    @command(
        group,
        "discard",
        examples="""
        fn dlq discard 12 13
        fn dlq discard --function battery-alert --reason unreadable --yes
        fn dlq discard --all --older-than 30d
        """,
    )
    def discard(
        session: Session,
        sequences: Numbers = None,
        function: Function = None,
        trigger: Trigger = None,
        key: Key = None,
        reason: Reason = None,
        older_than: Older = None,
        newer_than: Newer = None,
        everything: All = False,
        yes: asking.Yes = False,
    ) -> None:
        """Drop dead letters for good: those numbered, those that fit the options, or all.

        A key that is parked behind one goes on with its next event.
        """
        from fleetfn_spec.gateway import Redrive

        client = session.client()
        common = choosing.choice(function, trigger, key, reason, older_than, newer_than)
        which = choosing.which(client, sequences or [], common, everything=everything)
        count = 0
        if which is not None:
            count = len(which.sequences) or client.redrive(Redrive(which=which, dry_run=True))
        gone = 0
        if which is not None and count:
            asking.confirm(session, f"Discard {counted(count, 'dead letter')}? The events are gone then.", yes=yes)
            gone = client.discard(which)
        session.screen.result({"discarded": gone}, lambda: f"discarded {counted(gone, 'dead letter')}")
        _tell_missing(session, sequences or [], gone)


def _tell_pace(session: Session, count: int, rate: float | None) -> None:
    if rate is not None and count > rate:
        session.screen.say(f"They go one after the other for {times.duration(count / rate)}, while the node is up.")
    session.screen.next_steps((f"fn dlq list{session.option}", "those that are left, or came back"))


def _tell_missing(session: Session, asked: list[int], found: int) -> None:
    missing = len(set(asked)) - found
    if asked and missing > 0:
        session.screen.warn(
            f"{counted(missing, 'number')} of those {'is' if missing == 1 else 'are'} no dead letter; "
            f"see: fn dlq list{session.option}"
        )
    elif not found:
        session.screen.say("No dead letter fits.")
