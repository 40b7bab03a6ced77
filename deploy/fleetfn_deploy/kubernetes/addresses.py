"""Hosts and ports that a function's pods connect to, read from its connections, outputs and components."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from fleetfn_plumbing import mqtt_access
from fleetfn_spec.environments import Connection
from fleetfn_triggers.dapr_component import Component

from fleetfn_deploy.kubernetes import sidecar
from fleetfn_deploy.kubernetes.values import Deployable

_WEB = {"http": 80, "https": 443}
_SERVICE = re.compile(r"([a-z0-9-]+\.){1,2}(?P<namespace>[a-z0-9-]+)\.svc(\.[a-z0-9.-]+)?")
"""A Service's name, or that of a pod behind a headless one."""
_PAIR = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:[^@/\s]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})(?:[/?].*)?"
)
"""`host:port`, perhaps in a URL."""
_HOST = re.compile(r"(?:^|\s)host=(\S+)")
_PORT = re.compile(r"(?:^|\s)port=([0-9]{1,5})(?:\s|$)")
_POSTGRESQL = 5432
_LAST_PORT = 65535
_HOST_FIELDS = {"host", "hostname", "server"}


class Address(NamedTuple):
    host: str
    port: int

    @property
    def literal(self) -> str | None:
        """As CIDR, where the host is an address."""
        try:
            found = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return f"{found}/{found.max_prefixlen}"

    def namespace(self, own: str) -> str | None:
        """Whose Service it is; None: the host is outside of the cluster. A name without dots is a neighbour's; one with
        a single dot is taken for `service.namespace`, as the cluster's DNS tries it first.
        """
        found = _SERVICE.fullmatch(self.host.lower().rstrip("."))
        if found is not None:
            return found["namespace"]
        match self.host.lower().split("."):
            case [_]:
                return own
            case [_, namespace]:
                return namespace
        return None


def of(deployable: Deployable) -> list[Address]:
    """Sorted. What stands in Secrets cannot be seen."""
    found: set[Address] = set()
    for connection in deployable.connections:
        found.update(_of_connection(connection))
    for output in deployable.function.spec.outputs:
        if output.http is not None:
            found.update(_of_url(output.http.url))
    for component in sidecar.components(deployable):
        found.update(_of_component(component))
    return sorted(each for each in found if 0 < each.port <= _LAST_PORT)


def _of_connection(connection: Connection) -> Iterator[Address]:
    if connection.kafka is not None:
        for broker in connection.kafka.brokers:
            host, _, port = broker.rpartition(":")
            yield Address(host.strip("[]"), int(port))
    elif connection.mqtt is not None:
        yield Address(*mqtt_access.address(connection.mqtt))
    elif connection.dapr is not None and connection.dapr.url is not None:
        yield from _of_url(connection.dapr.url)


def _of_url(url: str) -> Iterator[Address]:
    parts = urlsplit(url)
    if parts.hostname is not None:
        yield Address(parts.hostname, parts.port or _WEB[parts.scheme])


def _of_component(component: Component) -> Iterator[Address]:
    """Fields that hold `host:port`, URLs, lists of either, and PostgreSQL's `host=... port=...`."""
    fields = {each.name.lower(): text for each in component.metadata if (text := each.text) is not None}
    for name, value in fields.items():
        if (host := _HOST.search(value)) is not None:
            port = _PORT.search(value)
            yield Address(host[1], int(port[1]) if port else _POSTGRESQL)
        elif name in _HOST_FIELDS and fields.get("port", "").isdigit():
            yield Address(value, int(fields["port"]))
        else:
            pairs = (_PAIR.fullmatch(each.strip()) for each in value.split(","))
            yield from (Address(pair[1].strip("[]"), int(pair[2])) for pair in pairs if pair is not None)
