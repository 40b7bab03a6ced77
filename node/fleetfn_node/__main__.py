"""`python -m fleetfn_node`: one node in this process, until a signal or the control API stops it."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from fleetfn.errors import FleetError, UsageError
from fleetfn_spec import durations, secrets, sizes
from fleetfn_spec.control import TAKEN

from fleetfn_node import gateway_process
from fleetfn_node.folders import Folders, Lock, TakenError
from fleetfn_node.gateway_process import GatewayOptions


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    logging.Formatter.converter = time.gmtime  # as the times in problems, and those of functions' logs
    logging.basicConfig(level=logging.INFO, format="%(asctime)s UTC %(levelname)s %(message)s", stream=sys.stderr)
    for name in ("uvicorn", "httpx"):  # servers and clients of the control API: their milestones are none of ours
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        if asked.env_file is not None:
            os.environ.update(_variables(asked.env_file))
        folders = Folders(asked.data.resolve(), asked.run.resolve())
        lock = Lock(folders.data)
        folders.prepare()
        gateway = _gateway(asked, folders)
        with lock:
            started = gateway_process.spawn(gateway)
            from fleetfn_node import node, running  # noqa: PLC0415 - most of a start; the gateway gets ready meanwhile

            running.run(node.Options(asked.name, folders, asked.host, asked.port, gateway, asked.key_file, started))
    except TakenError as error:
        return _failed(error.message, error.hint, TAKEN)
    except FleetError as error:
        return _failed(error.message, error.hint)
    except OSError as error:
        return _failed(f"the node cannot run: {error}")
    return 0


def _gateway(asked: argparse.Namespace, folders: Folders) -> GatewayOptions:
    """Raises FleetError for what does not read."""
    return GatewayOptions(
        folders,
        sizes.size(asked.quota) if asked.quota is not None else None,
        durations.seconds(asked.dead_letters) if asked.dead_letters is not None else None,
    )


def _failed(message: str, hint: str = "", code: int = 1) -> int:
    sys.stderr.write(f"Error: {message}\n" + (f"\nHint: {hint}\n" if hint else ""))
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleetfn_node", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of all that is remembered; one node per folder"
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of sockets, short enough for their paths")
    parser.add_argument("--name", default="default")
    parser.add_argument("--host", default="127.0.0.1", help="where the front door listens")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--env-file", type=Path, help="NAME=value lines for {env: NAME} references")
    parser.add_argument("--key-file", type=Path, help="bearer key that HTTP callers must present")
    parser.add_argument("--quota", help="how much the inbox may take on disk, e.g. 2GB")
    parser.add_argument("--dead-letters", help="how long a dead letter is kept, e.g. 30d")
    return parser


def _variables(path: Path) -> dict[str, str]:
    """For the node, and so for its workers: they resolve {env: NAME} when they connect."""
    try:
        return secrets.parse_env_file(path.read_text(), str(path))
    except OSError as error:
        raise UsageError(f"the env file {str(path)!r} cannot be read: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
