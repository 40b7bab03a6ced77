"""What is read of Kubernetes' objects: the few fields that a gateway needs, and nothing else is kept of them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class _Read(msgspec.Struct, frozen=True, rename="camel"):
    """Unknown fields are passed over."""


class Owner(_Read, frozen=True):
    kind: str = ""
    name: str = ""


class Meta(_Read, frozen=True):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None


class ConfigMap(_Read, frozen=True):
    metadata: Meta
    data: dict[str, str] = {}


class Secret(_Read, frozen=True):
    metadata: Meta
    data: dict[str, bytes] = {}
    """Decoded from base64 by msgspec."""


class Condition(_Read, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class Reason(_Read, frozen=True):
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class State(_Read, frozen=True):
    waiting: Reason | None = None
    terminated: Reason | None = None


class Container(_Read, frozen=True):
    name: str = ""
    state: State = State()
    last_state: State = State()


class PodStatus(_Read, frozen=True):
    phase: str = ""
    pod_ip: str = msgspec.field(default="", name="podIP")
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    init_container_statuses: list[Container] = []
    container_statuses: list[Container] = []


class Pod(_Read, frozen=True):
    metadata: Meta
    status: PodStatus = PodStatus()

    def condition(self, kind: str) -> Condition | None:
        return next((each for each in self.status.conditions if each.type == kind), None)


class Problem(_Read, frozen=True):
    """The API server's Status: why a call failed."""

    message: str = ""
    reason: str = ""
    code: int = 0


class Resource(NamedTuple):
    """A kind of object, as in the API server's paths and in a Role."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str, name: str = "") -> str:
        start = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{start}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


CONFIG_MAPS = Resource("", "v1", "configmaps")
PODS = Resource("", "v1", "pods")
SECRETS = Resource("", "v1", "secrets")
SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
