"""Asking before something is gone for good."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from fleetfn.errors import UsageError

from fleetfn_cli.session import Session

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Go on, or end the command with exit code 1. Raises UsageError where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is there to answer: {question}", hint="--yes answers.")
    session.screen.err.write(f"{question} [y/N] ")
    session.screen.err.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        session.screen.err.write("Nothing was changed.\n")
        raise typer.Exit(1)
