"""What a worker is told when it starts: one value, whether a node forks it or `python -m fleetfn_runtime` starts it."""

from __future__ import annotations

from pathlib import Path

import msgspec
from fleetfn_spec.environments import StatePlace
from fleetfn_spec.function import Function
from fleetfn_triggers.dapr_connection import DaprConnection
from fleetfn_triggers.kafka import KafkaConnection
from fleetfn_triggers.mqtt_connection import MqttConnection


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """A worker in a pod of a cluster: other pods may run the same function, and its gateway is one of them."""

    certificates: Path
    """Folder of its own, and of the authority that its gateway's are of: see fleetfn_plumbing.tls."""
    port: int
    """Where its gateway asks; 0: any free one."""
    name: str = ""
    address: str = ""
    """As the cluster has both; "" where it did not say."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    function: Function
    revision: str
    """Digest of the revision, as shown to people (first 12 hex digits)."""
    source: Path
    """The folder that holds the handler's modules; first on sys.path, and the working directory."""
    environment: str = "local"
    place: str = "default"
    """Node id or namespace: second part of Kafka group ids."""
    data: Path
    """The function's own folder: state.db, ledgers, owner.lock, log.jsonl."""
    lasting: bool = True
    """False: `data` is gone with this process, and a function that keeps state is refused."""
    gateway: str
    """The gateway's socket; of a pod https://host:port."""
    run: Path
    """Folder of sockets: deliver-<pid>.sock."""
    deliver: Path | None = None
    """Its delivery socket. None: that in `run`."""
    kafka: dict[str, KafkaConnection] = {}
    """Connections by name, addresses filled in (embedded broker included); secrets are still references."""
    mqtt: dict[str, MqttConnection] = {}
    """Likewise, for outputs."""
    dapr: dict[str, DaprConnection] = {}
    """Likewise; an output that finds none here takes the sidecar beside this process."""
    state: StatePlace | None = None
    """Where records are. None: in state.db."""
    owns_partitions: bool = True
    """True: this node has the group for itself, partitions are assigned by hand (no group join). False: subscribe."""
    slot: int = 0
    """Which of the function's workers on this node it is, from 0 to `scale.max` - 1."""
    key_file: Path | None = None
    """Bearer key that HTTP callers must present."""
    paused: tuple[str, ...] = ()
    """Names of triggers that are paused by hand."""
    proven: bool = False
    """A worker of this revision was ready before, since the node started: the state that is kept decodes."""
    log_key: bytes = b""
    """Secret of the keyed hash that logs show instead of a key."""
    log_copy: int | None = None
    """Descriptor that gets every line of the log, too: what a container says."""
    pod: Pod | None = None
    """None: on a node, or alone."""

    @property
    def shares(self) -> bool:
        """Other workers of the function may work beside it, on this node."""
        return self.owns_partitions and self.function.spec.scale.max > 1


def group_id(environment: str, place: str, function: str, trigger: str) -> str:
    """The Kafka group and client id: `environment/namespace-or-node-id/function/trigger`."""
    return f"{environment}/{place}/{function}/{trigger}"
