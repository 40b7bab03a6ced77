"""A port of a pod as a connected socket, through the API server: by the user's own rights, and no port opened anywhere.

Each connection is a websocket of its own, which a thread of the Python client carries over.
"""

from __future__ import annotations

import re
import socket
from typing import cast

import msgspec
from fleetfn.errors import TargetError
from fleetfn_spec.cluster import CONTROL_PORT, GATEWAY

from fleetfn_deploy.client import ControlClient, Dial, Side
from fleetfn_deploy.kubernetes import kinds, refusals
from fleetfn_deploy.kubernetes.access import Access
from fleetfn_deploy.kubernetes.kinds import Object
from fleetfn_deploy.kubernetes.refusals import Asked

_HANDSHAKE = re.compile(r"Handshake status (?P<status>\d{3})")
_STATUS = re.compile(rb"\{.*\}", re.DOTALL)


def gateway(access: Access, namespace: str) -> ControlClient:
    """The control API of a namespace's gateway."""
    pod = f"{GATEWAY}-0"
    side = Side(
        f"the gateway of namespace {namespace!r}",
        "the gateway",
        slow=f"Its log tells what it does: kubectl logs -n {namespace} {pod}",
        gone=f"Does it run? kubectl get pod -n {namespace} {pod}; its log tells more.",
    )
    dial = to(access, namespace, pod, CONTROL_PORT)

    def dial_gateway(timeout: float | None) -> socket.socket:
        try:
            return dial(timeout)
        except refusals.RefusedByClusterError as error:
            if error.status != refusals.NOT_FOUND:
                raise
            hint = "It is made with the first function: deploy one."
            raise TargetError(f"namespace {namespace!r} has no gateway now: {error.message}", hint=hint) from error

    return ControlClient(dial_gateway, side)


def to(access: Access, namespace: str, pod: str, port: int) -> Dial:
    def dial(timeout: float | None) -> socket.socket:
        return _connect(access, namespace, pod, port, timeout)

    return dial


def _connect(access: Access, namespace: str, pod: str, port: int, timeout: float | None) -> socket.socket:
    from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 - heavy, and an extra
    from kubernetes.stream import ws_client  # noqa: PLC0415 - as above

    headers = {}
    if authorization := access.authorization():
        headers["authorization"] = authorization
    url = access.server + kinds.POD.path(namespace, pod) + "/portforward"
    try:
        forward = ws_client.portforward_call(
            access.configuration, "GET", url, query_params=[("ports", str(port))], headers=headers
        )
    except ApiException as error:
        raise _refused(access, namespace, pod, str(error.reason)) from error
    connected = cast("socket.socket", forward.socket(port))  # wrapped, to the same use
    connected.settimeout(timeout)
    return connected


def _refused(access: Access, namespace: str, pod: str, reason: str) -> TargetError:
    found = _HANDSHAKE.search(reason)
    asked = Asked("create", _FORWARD, namespace, pod)
    if found is None:
        return refusals.UnreachableError(
            f"cannot reach the cluster of {access}: {reason}", hint="`kubectl version` asks the same address."
        )
    return refusals.refused(asked, int(found["status"]), _answer(reason), f"the cluster of {access}")


_FORWARD = kinds.Kind("v1", "Pod", "pods/portforward")


def _answer(reason: str) -> Object:
    """The server's Status, which the client only shows as text inside of its message."""
    _, _, body = reason.rpartition("-+-+-")
    found = _STATUS.search(body.encode())
    try:
        return msgspec.json.decode(found[0], type=Object) if found is not None else {}
    except msgspec.DecodeError:
        return {"message": body.strip()}
