"""The tree of commands, as far as it is asked for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence

import typer

from fleetfn_cli import session

FAMILIES: Mapping[str, Sequence[str]] = {
    "projects": ["new", "check"],
    "nodes": ["up", "down", "version"],
    "developing": ["dev"],
    "deploying": ["deploy", "revisions", "rollback", "delete"],
    "planning": ["diff", "export", "certificates"],
    "building": ["build"],
    "running": ["run"],
    "builders": ["builder"],
    "looking": ["list", "describe", "logs"],
    "calling": ["invoke"],
    "sending": ["send"],
    "clocks": ["trigger"],
    "pausing": ["pause", "resume"],
    "letters": ["dlq"],
    "states": ["state"],
}
"""Modules of `commands`, in the order of the help, and the words that each registers."""


@functools.cache
def tree(word: str = "") -> typer.Typer:
    """All commands; for a word that is one of them its family alone, which spares the time to import the others."""
    app = typer.Typer(
        name="fn",
        rich_markup_mode=None,  # plain help: rich would cost a third of the time that fn may take
        pretty_exceptions_enable=False,
        add_completion=True,
        context_settings={"auto_envvar_prefix": "FN", "help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog="\b\nFirst steps:\n  fn new my-alert && cd my-alert\n  fn deploy\n  fn describe my-alert",
    )
    app.callback()(root)
    for family in [name for name, words in FAMILIES.items() if word in words] or FAMILIES:
        importlib.import_module(f"fleetfn_cli.commands.{family}").register(app)
    return app


def root(
    context: typer.Context,
    node: session.NodeOption = None,
    env: session.EnvironmentOption = None,
    output: session.OutputOption = None,
    quiet: session.QuietOption = False,
    debug: session.DebugOption = False,
) -> None:
    """Functions for vehicle events: from a Python file to a running function.

    Results go to stdout, the rest to stderr. Exit code: 0 done, 1 failed, 2 wrong usage.
    Every option has a variable: FN_NODE, FN_OUTPUT, FN_SEND_RATE ...
    """
    context.obj = {"node": node, "env": env, "output": output, "quiet": quiet, "debug": debug}
