"""`python -m fleetfn_gateway.cluster`: the gateway of a namespace of a cluster, until a signal."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop
from fleetfn.errors import FleetError
from fleetfn_spec import cluster

from fleetfn_gateway import command
from fleetfn_gateway.cluster import kube_access
from fleetfn_gateway.cluster.wiring import Namespace, Options
from fleetfn_gateway.keeping import Keeping
from fleetfn_gateway.queue import Queue

log = logging.getLogger("fleetfn.gateway")


def main(arguments: list[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    command.log_to_stderr()
    command.more_descriptors()
    try:
        with Keeping(asked.data.resolve()):
            uvloop.run(_run(asked))
    except FleetError as error:
        return command.failed(error.message, error.hint)
    except OSError as error:
        return command.failed(f"the gateway cannot run: {error}")
    return 0


async def _run(asked: argparse.Namespace) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    options = _options(asked)
    queue = await Queue.open(options.data / "inbox.db", quota=options.quota)
    namespace = Namespace(options, queue)
    try:
        await namespace.open()
        log.info("the gateway of namespace %s is up: pid %d, data %s", options.namespace, os.getpid(), options.data)
        await stopping.wait()
        log.info("the gateway ends")
    finally:
        await namespace.close()
        await queue.close()


def _options(asked: argparse.Namespace) -> Options:
    access = kube_access.in_pod() if asked.kubeconfig is None else kube_access.by_kubeconfig(asked.kubeconfig)
    return Options(
        namespace=asked.namespace,
        data=asked.data.resolve(),
        quota=asked.quota,
        retention=asked.dead_letters,
        access=access,
        tls=asked.tls,
        secrets=asked.secrets,
        address=asked.address,
        host=asked.host,
        inbox_port=asked.inbox_port,
        scaler_port=asked.scaler_port,
        control_port=asked.control_port,
        health_port=asked.health_port,
        activator_ports=asked.activator_ports,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleetfn_gateway.cluster", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of all that is kept; one gateway per folder")
    add("--namespace", required=True, help="whose functions it serves")
    add("--kubeconfig", type=Path, help="outside of pods: where the API server is, and who we are to it")
    add("--tls", type=Path, default=Path(cluster.TLS_FOLDER), help="folder with tls.crt, tls.key, ca.crt")
    add("--secrets", type=Path, default=Path(cluster.SECRETS_FOLDER), help="where Secrets that functions name go")
    add("--address", help="this pod's own; absent: the one by which the API server is reached")
    add("--host", default="", help="where to listen; absent: on all addresses")
    add("--inbox-port", type=int, default=cluster.INBOX_PORT)
    add("--scaler-port", type=int, default=cluster.SCALER_PORT)
    add("--control-port", type=int, default=cluster.CONTROL_PORT)
    add("--health-port", type=int, default=cluster.HEALTH_PORT)
    first, last = cluster.ACTIVATOR_PORTS
    add("--activator-ports", type=_ports, default=(first, last), help=f"absent: {first}-{last}")
    command.add_limits(parser)
    return parser


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isascii() and first.isdigit() and last.isascii() and last.isdigit() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range of ports: 18000-19999")
    return int(first), int(last)


if __name__ == "__main__":
    sys.exit(main())
