"""A child process that tells what it does, and is killed while it does more."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Callable, Sequence


def lines_until_killed(command: Sequence[object], seconds: float, enough: Callable[[bytes], bool]) -> list[str]:
    """Kill -9 it `seconds` after what it has printed is `enough`; its whole lines."""
    told = b""
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        while not enough(told):
            assert select.select([child.stdout], [], [], 60)[0]
            block = os.read(child.stdout.fileno(), 65536)  # nothing of it in a buffer that communicate passes by
            assert block, "it ended by itself"
            told += block
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=seconds)
        child.kill()
        rest, _ = child.communicate()
    return [line.strip() for line in (told + rest).decode().splitlines(keepends=True) if line.endswith("\n")]
