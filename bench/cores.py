"""Who runs on which core: what makes the load on the first one, what is measured, with all its processes, on the last.

On a machine of one core they share it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Literal


def pinned(command: Sequence[object], role: Literal["load", "server"]) -> list[str]:
    """The command, kept on its role's core, and with it whatever it starts."""
    cores = sorted(os.sched_getaffinity(0))
    core = cores[0] if role == "load" else cores[-1]
    return ["taskset", "-c", str(core), *map(str, command)]
