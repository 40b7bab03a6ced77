"""dev: a function on a private node of its own, in the foreground, deployed again on each save."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetfn_cli.commands.nodes import EnvFile
from fleetfn_cli.commands.planning import Env, Folder
from fleetfn_cli.session import Session, command


def register(app: typer.Typer) -> None:
    @command(app, "dev", node=False, structured=False, examples="fn dev\nfn dev samples/battery-alert --port 9000")
    def dev(
        session: Session,
        folder: Folder = Path(),
        env: Env = None,
        port: Annotated[
            int | None, typer.Option(min=1, max=65535, help="Port of its front door.", show_default="a free one")
        ] = None,
        env_file: EnvFile = None,
    ) -> None:
        """Run a function while you write it: Ctrl-C ends everything.

        Each save deploys again; a broken one leaves the last good one running. Logs and what is emitted are shown.
        State starts empty each time. The node is private; the command shown at the start sends it events.
        """
        from fleetfn_cli.dev_loop import DevLoop

        DevLoop(session.screen, folder, env, port=port, env_file=env_file).run()
