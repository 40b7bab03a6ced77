"""A gateway as a process, whose worker is a pod: both sides speak over TLS. Run as a script, it becomes the gateway."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from pathlib import Path

import uvloop
from fleetfn_gateway.gateway import Gateway
from fleetfn_gateway.owner import OneWorker
from fleetfn_gateway.queue import Queue
from fleetfn_gateway.service import Service
from fleetfn_gateway.serving import Serving, TlsServing
from fleetfn_plumbing import http_places
from fleetfn_plumbing.http_client import HttpClient
from fleetfn_plumbing.tls import TlsFolder
from gateway_process import GatewayProcess

PORTS = range(21200, 21300)


class Place(OneWorker):
    """The one worker's, by its address."""

    def __init__(self, place: str) -> None:
        self._workers = (place,)


class TlsGateway(GatewayProcess):
    """`certificates`: the gateway's folder. Its test asks it on `socket`, the pod at https://localhost:`port`."""

    def __init__(self, data, socket, *, port, certificates, worker):
        super().__init__(data, socket, worker=worker)
        self._command = [sys.executable, __file__, str(data), str(socket), str(port), str(certificates), worker]


def free_port() -> int:
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError(f"no port is free in {PORTS}")


_given: set[int] = set()


async def serve(data: Path, path: Path, port: int, certificates: TlsFolder, worker: str) -> None:
    def client_of(function: str, place: str) -> HttpClient:
        return http_places.client(place, certificates, name=function)

    queue = await Queue.open(data / "inbox.db", quota=1 << 30)
    gateway = Gateway(queue, Place(worker), data=data, retention=3600.0, client_of=client_of)
    await gateway.open()
    TlsServing(port, certificates, Service(gateway), host="localhost").open()
    Serving(path, Service(gateway)).open()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(exist_ok=True)
    uvloop.run(serve(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), TlsFolder(Path(sys.argv[4])), sys.argv[5]))
