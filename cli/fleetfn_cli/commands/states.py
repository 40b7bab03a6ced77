"""state: what a function remembers, per key."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from fleetfn_spec.control import StateEntry

from fleetfn_cli import failures, times
from fleetfn_cli.commands.looking import Name
from fleetfn_cli.session import Session, command

_PAGE = 1000


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="What a function remembers: list, get.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="state")

    @command(group, "list", examples="fn state list battery-alert\nfn state list battery-alert --limit 0 -o json")
    def list_(
        session: Session,
        name: Name,
        after: Annotated[str | None, typer.Option(help="Only keys after this one.")] = None,
        limit: Annotated[int, typer.Option(min=0, help="At most so many; 0: all.")] = 100,
    ) -> None:
        """Keys that have state, in order."""
        client = session.client()
        keys: list[str] = []
        while True:
            left = limit - len(keys) if limit else _PAGE
            page = client.states(name, after=after, limit=min(_PAGE, left))
            keys += page.keys
            after = page.after
            if after is None or (limit and len(keys) >= limit):
                break
        if keys or session.screen.output != "table":
            session.screen.result({"keys": keys, "after": after}, lambda: "\n".join(keys))
        if not keys:
            session.screen.say(
                "No state here. A handler that takes `State[T]` makes some, one value per key, with each event."
            )
        elif after is not None:
            session.screen.say(f"There are more: fn state list {name}{session.option} --after {after!r}")

    @command(
        group, "get", examples="fn state get battery-alert WDB1234567\nfn state get battery-alert WDB1234567 -o json"
    )
    def get(
        session: Session, name: Name, key: Annotated[str, typer.Argument(help="The key.", show_default=False)]
    ) -> None:
        """The state of one key: its value on stdout, what else is kept on stderr. -o json, yaml: all of it."""
        with failures.hinting(f"fn state list {name}{session.option}"):
            entry = session.client().state(name, key)
        session.screen.result(entry, lambda: msgspec.json.format(msgspec.json.encode(entry.value), indent=2).decode())
        if session.screen.output == "table":
            _remarks(session, entry)


def _remarks(session: Session, entry: StateEntry) -> None:
    if not entry.exists:
        session.screen.say("The value is gone (deleted or expired); marks of what was taken stay.")
    if entry.expires is not None:
        session.screen.say(f"expires {times.clock(entry.expires)}")
    if entry.unsent:
        session.screen.say(f"{entry.unsent} emitted events are not published yet")
