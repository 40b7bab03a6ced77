"""ConfigMaps: a revision, which never changes, and a function's head, which says what serves."""

from __future__ import annotations

import msgspec
from fleetfn_spec.cluster import ENVIRONMENTS_FILE, HEAD_FILE
from fleetfn_spec.environments import Environments

from fleetfn_deploy.kubernetes import metadata, sidecar
from fleetfn_deploy.kubernetes.metadata import Object
from fleetfn_deploy.kubernetes.values import Deployable

USERNAME = "username-{}"
"""Of a revision's ConfigMap: a connection's user name, where it is no Secret, for KEDA."""


def revision(deployable: Deployable) -> Object:
    """All that it takes to make the revision serve again: HEAD_FILE (nothing paused) and ENVIRONMENTS_FILE."""
    head = msgspec.structs.replace(deployable.head, paused=())
    data = {HEAD_FILE: _json(head), ENVIRONMENTS_FILE: environments(deployable)}
    data |= sidecar.documents(deployable) | _usernames(deployable)
    name = deployable.revision_name
    return metadata.of_function(
        deployable, "v1", "ConfigMap", name, part="revision", revision=True, immutable=True, data=data
    )


def head(deployable: Deployable) -> Object:
    data = {HEAD_FILE: _json(deployable.head)}
    return metadata.of_function(deployable, "v1", "ConfigMap", part="head", revision=True, data=data)


def environments(deployable: Deployable) -> str:
    """The file that workers read: one environment, as far as they need it. JSON is YAML."""
    return _json(Environments(apiVersion="fleetfn.dev/v1alpha1", kind="Environments", environments=[deployable.needed]))


def _usernames(deployable: Deployable) -> dict[str, str]:
    return {
        USERNAME.format(each.name): each.kafka.sasl.username
        for each in deployable.connections
        if each.kafka is not None and each.kafka.sasl is not None and isinstance(each.kafka.sasl.username, str)
    }


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()
