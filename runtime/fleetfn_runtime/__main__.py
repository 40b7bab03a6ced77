"""`python -m fleetfn_runtime --folder DIR`: one worker of one function, without a node. In a cluster's pod, where
FLEETFN_GATEWAY is an address, it is another kind of process: lone_pod.py.

Exit codes: 0 drained, 1 failed, 2 the command line or a setting is wrong, 75 a handler did not end: start it again.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from pathlib import Path

from fleetfn_runtime import first_process

ENVIRONMENT = "FLEETFN_ENVIRONMENT"
KEY_FILE = "FLEETFN_KEY_FILE"
GATEWAY = "FLEETFN_GATEWAY"
"""Environment variables: the same as options, for who runs an image; where a gateway runs already."""

HOST = "127.0.0.1"


def main(arguments: list[str] | None = None) -> int:
    gc.disable()  # what is imported stays; until worker.settle_memory
    from fleetfn.errors import FleetError, UsageError  # noqa: PLC0415 - importing takes long enough to be told to stop
    from fleetfn_spec.problems import SpecError  # noqa: PLC0415 - likewise

    from fleetfn_runtime import lone_parts  # noqa: PLC0415 - likewise

    given = _parser().parse_args(arguments)
    try:
        if not os.environ.get(GATEWAY, "").startswith("https://"):
            return _lone(given)
        if given.forget:
            return _forget(given)
        return _check(given) if given.check else _pod(given)
    except (UsageError, SpecError) as error:
        print(lone_parts.describe(error), file=sys.stderr)  # noqa: T201 - the command's answer
        return 1 if given.check or given.forget else 2
    except FleetError as error:
        print(lone_parts.describe(error), file=sys.stderr)  # noqa: T201 - for who started it
        return 1


def _lone(given: argparse.Namespace) -> int:
    from fleetfn.errors import UsageError  # noqa: PLC0415 - as above

    from fleetfn_runtime import lone  # noqa: PLC0415 - a pod needs none of it

    if given.check or given.forget:
        raise UsageError(
            f"--check and --forget are for a pod: {GATEWAY} names no https:// address", hint="`fn check` needs no pod"
        )
    return lone.run(
        given.folder,
        data=given.data,
        volume=given.volume,
        port=given.port,
        host=given.host,
        environment=given.environment,
        environments=given.environments,
        env_file=given.env_file,
        key_file=given.key_file,
    )


def _pod(given: argparse.Namespace) -> int:
    from fleetfn_runtime import lone_pod  # noqa: PLC0415 - as above

    return lone_pod.run(
        given.folder,
        volume=given.volume,
        port=given.port,
        host=given.host,
        environment=given.environment,
        environments=given.environments,
        key_file=given.key_file,
    )


def _check(given: argparse.Namespace) -> int:
    from fleetfn_runtime import lone_pod  # noqa: PLC0415 - as above

    return lone_pod.check(
        given.folder, environment=given.environment, environments=given.environments, key_file=given.key_file
    )


def _forget(given: argparse.Namespace) -> int:
    from fleetfn_runtime import lone_pod  # noqa: PLC0415 - as above

    return lone_pod.forget(given.folder, environment=given.environment, environments=given.environments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleetfn_runtime", description="Run one function's worker.")
    parser.add_argument("--folder", type=Path, required=True, help="the function's folder, with function.yaml")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data", type=Path, help="where state and gateway live; default: .fleetfn in the folder")
    where.add_argument("--volume", type=Path, help="likewise, of an image: something has to be mounted there")
    parser.add_argument("--port", type=int, default=8080, help="for http triggers and health; 0: any free one")
    parser.add_argument("--host", default=HOST)
    parser.add_argument(
        "--environment",
        default=os.environ.get(ENVIRONMENT) or None,
        help=f"which of the environments; default: {ENVIRONMENT}, or local",
    )
    parser.add_argument("--environments", type=Path, help="file of environments, where it exists; else the nearest one")
    parser.add_argument("--env-file", type=Path, help="KEY=VALUE lines for {env: KEY} references")
    parser.add_argument(
        "--key-file",
        type=Path,
        default=os.environ.get(KEY_FILE) or None,
        help=f"holds the bearer key that HTTP callers must present; default: {KEY_FILE}",
    )
    parser.add_argument("--check", action="store_true", help="in a pod: get ready, say so, and end")
    parser.add_argument("--forget", action="store_true", help="in a pod: remove the function's state, and end")
    return parser


def _leave(*_: object) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    # There is nothing to drain yet. Before all else, for the child of a first process has it from its first moment on.
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(first_process.kept(main))
