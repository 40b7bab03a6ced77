"""Runs a program to its end, line by line, and takes it along when it is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from fleetfn_builder.assembly.errors import AssemblyError


def run(
    command: Sequence[str], *, env: Mapping[str, str], folder: Path | None, said: Callable[[str], None]
) -> tuple[int, list[str]]:
    """Exit status and all it wrote, stdout and stderr as they came. Raises AssemblyError where it cannot be started.
    An exception on the way, Ctrl-C for one, ends it and what it started first.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - its callers' own program
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own: a build backend's compilers are in it, too
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise AssemblyError(
            f"{command[0]} cannot be started: {error.strerror}", hint="uv comes with `pip install 'fleetfn[build]'`"
        ) from error
    lines = []
    with process:
        try:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                said(lines[-1])
            return process.wait(), lines
        except BaseException:
            _end(process)
            raise


def _end(process: subprocess.Popen[str]) -> None:
    """At once: uv has no last words, and its cache bears it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
