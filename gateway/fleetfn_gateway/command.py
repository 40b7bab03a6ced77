"""What the programs of a gateway have in common: how they log, what their flags say, how they fail."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import resource
import sys
import time

from fleetfn.errors import FleetError
from fleetfn_spec import durations

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


def log_to_stderr() -> None:
    logging.Formatter.converter = time.gmtime  # as the times in problems, and those of functions' logs
    logging.basicConfig(level=logging.INFO, format="%(asctime)s UTC %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its milestones are none of ours


def more_descriptors() -> None:
    """Each open push is a connection: as many as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))


def add_limits(parser: argparse.ArgumentParser) -> None:
    """--quota (bytes) and --dead-letters (seconds)."""
    parser.add_argument("--quota", type=_bytes, default="4GiB", help="bytes that the inbox may take on disk")
    parser.add_argument("--dead-letters", type=_seconds, default="30d", help="how long dead letters are kept")


def failed(message: str, hint: str = "", *, tell: bool = False) -> int:
    """The exit code. `tell`: on our standard output, too; who keeps us tells it to people who never see our log."""
    sys.stderr.write(f"Error: {message}\n" + (f"\nHint: {hint}\n" if hint else ""))
    if tell:
        sys.stdout.write(f"{message}; {hint}\n" if hint else f"{message}\n")
    return 1


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]+)(|KiB|MiB|GiB|TiB)", text, re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes: 4GiB, 500MiB, 1048576")
    return int(found[1]) * _UNITS[found[2]]


def _seconds(text: str) -> float:
    """A duration, or a bare number of seconds."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII):
        return float(text)
    try:
        return durations.seconds(text)
    except FleetError as error:
        raise argparse.ArgumentTypeError(error.message) from error
