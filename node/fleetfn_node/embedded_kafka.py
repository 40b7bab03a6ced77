"""The embedded Kafka, for demo and development only: librdkafka's mock cluster, in a process of its own.

It speaks the real protocol and needs no install, keeps everything in memory and little of it, and forgets all when it
ends. Per partition it keeps about the last 5 MB; what is older is gone, whether it was read or not. Topics have four
partitions and come to be when somebody asks for them.

    python -m fleetfn_node.embedded_kafka

prints {"bootstrap": "127.0.0.1:port"} and ends when its standard input does: with whoever started it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from fleetfn_node.embedded_process import START, EmbeddedProcess, tell


class EmbeddedKafka(EmbeddedProcess):
    def __init__(self, moved: Callable[[], None] = lambda: None) -> None:
        super().__init__(__spec__.name, "bootstrap", "the embedded Kafka", moved=moved, keeps_port=False)


def main() -> None:
    try:
        from confluent_kafka import Producer  # noqa: PLC0415 - only the child needs it
    except ImportError:
        sys.exit("Error: the embedded Kafka needs the client library.\n\nHint: pip install 'fleetfn[kafka]'")

    cluster = Producer(
        {
            "bootstrap.servers": "127.0.0.1",
            "test.mock.num.brokers": 1,
            "log_level": 3,
        }
    )
    broker = next(iter(cluster.list_topics(timeout=START).brokers.values()))
    tell("bootstrap", f"{broker.host}:{broker.port}")
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
