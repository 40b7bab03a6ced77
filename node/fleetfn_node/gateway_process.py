"""The gateway's process. Imports nothing heavy: it is started first of all, and gets ready while the node is imported.

    python -m fleetfn_gateway --data <data>/gateway --socket <run>/gateway.sock --owner <run>/control.sock

It ends when its standard input does: with the node. Its standard output has but one thing to say: why it cannot run.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from fleetfn_node.folders import Folders


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How the gateway is to run; `quota` and `dead_letters` None: as it does by itself."""

    folders: Folders
    quota: int | None = None
    """Bytes that the inbox may take on disk."""
    dead_letters: float | None = None
    """Seconds that a dead letter is kept."""

    def arguments(self) -> list[str]:
        given: list[tuple[str, object]] = [
            ("--data", self.folders.gateway),
            ("--socket", self.folders.gateway_socket),
            ("--owner", self.folders.control),
            ("--quota", self.quota),
            ("--dead-letters", self.dead_letters),
        ]
        return [str(part) for name, value in given if value is not None for part in (name, value)]


def spawn(options: GatewayOptions) -> subprocess.Popen[bytes]:
    """Its log lines go where the node's do. Raises OSError."""
    return subprocess.Popen(  # noqa: S603 - ourselves
        [sys.executable, "-P", "-m", "fleetfn_gateway", *options.arguments()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is the node's to hear: workers need the gateway while they drain
    )


def last_words(ended: subprocess.Popen[bytes]) -> str:
    """Why it could not run, and the next step; '' where it said nothing."""
    if ended.stdout is None or ended.stdout.closed:
        return ""
    with ended.stdout as said:
        return said.read().decode("utf-8", "replace").strip()
