"""The floor of a cold start by a broker: a bare client waits for what comes, and a warm process forks for it.

    python -P bare_woken.py kafka HOST:PORT TOPIC FOLDER MODULE
    python -P bare_woken.py mqtt HOST:PORT TOPIC FOLDER MODULE

Two processes, since a client's threads do not survive a fork: one waits, and passes on what it gets; the other has
imported what a warm parent has, and forks. The child decodes, runs MODULE's `tell` and ends: for Kafka as a consumer
that takes up where its group stands, reads the record itself and commits it. Prints a line when it is ready.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import msgspec
from fleetfn_node import parent as _warm_parent  # noqa: F401 - so that what it has imported is here
from fleetfn_runtime import warming


def main() -> None:
    kind, address, topic, folder, module = sys.argv[1:]
    waits, runs = {"kafka": (_kafka_waits, _kafka_runs), "mqtt": (_mqtt_waits, _mqtt_runs)}[kind]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        waits(address, topic, theirs)
        os._exit(0)
    theirs.close()
    warming.load()
    if kind == "kafka":
        import confluent_kafka  # noqa: F401, PLC0415 - as a warm parent has it
    gc.collect()
    gc.freeze()
    while body := ours.recv(65536):
        child = os.fork()
        if child == 0:
            sys.path.insert(0, folder)
            runs(address, topic, body, importlib.import_module(module))
            os._exit(0)
        os.waitpid(child, 0)


def _told(module: Any, body: bytes) -> None:
    module.tell(msgspec.json.decode(body, type=module.Frame))


def _kafka_runs(address: str, topic: str, _body: bytes, module: Any) -> None:
    import confluent_kafka as ck  # noqa: PLC0415

    consumer = ck.Consumer(
        {
            "bootstrap.servers": address,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
        }
    )
    consumer.assign([ck.TopicPartition(topic, 0)])  # joining the group would take seconds: it waits for others
    while (message := consumer.poll(1)) is None or message.error():
        pass
    _told(module, message.value())
    consumer.commit(message, asynchronous=False)
    consumer.close()


def _mqtt_runs(_address: str, _topic: str, body: bytes, module: Any) -> None:
    _told(module, body)


def _kafka_waits(address: str, topic: str, out: socket.socket) -> None:
    import confluent_kafka as ck  # noqa: PLC0415

    consumer = ck.Consumer({"bootstrap.servers": address, "group.id": "waits", "enable.partition.eof": "true"})
    consumer.assign([ck.TopicPartition(topic, 0, ck.OFFSET_END)])
    _until_gone(out, lambda: _pass_on(consumer, out))


def _pass_on(consumer: Any, out: socket.socket) -> None:
    message = consumer.poll(0.5)
    if message is None:
        return
    if message.error():  # the end of the partition: it reads from here on
        print("ready", flush=True)
    else:
        out.send(message.value())


def _mqtt_waits(address: str, topic: str, out: socket.socket) -> None:
    from paho.mqtt.client import CallbackAPIVersion, Client  # noqa: PLC0415

    host, port = address.split(":")
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: out.send(message.payload)
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.connect(host, int(port))
    client.subscribe(topic, qos=1)
    _until_gone(out, lambda: client.loop(0.5))


def _until_gone(out: socket.socket, work: Callable[[], object]) -> None:
    """Until the process that forks has ended."""
    parent = os.getppid()
    while os.getppid() == parent and out.fileno() >= 0:
        work()


if __name__ == "__main__":
    main()
