"""Whether a cluster enforces NetworkPolicy: many take the objects, and only those with a controller for them do."""

from __future__ import annotations

import time

from kubectl_command import Kubectl

_TRY = """
import socket
try:
    socket.create_connection(({address!r}, 8000), timeout=1).close()
    print("open")
except OSError:
    print("closed")
"""


def enforces_network_policy(kubectl: Kubectl, python_image: str, seconds: float = 60) -> bool:
    """Two pods in a namespace of the test's own speak; then a policy forbids it, and it is watched for that long."""
    server, client = (
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": python_image, "command": command}],
            },
        }
        for name, command in {"server": ["python3", "-m", "http.server"], "client": ["sleep", "3600"]}.items()
    )
    kubectl.apply(server, client)
    for name in ("server", "client"):
        kubectl.await_pod(name)
    attempt = _TRY.format(address=kubectl.read("pod", "server")["status"]["podIP"])
    if not _becomes("open", kubectl, attempt, seconds):
        raise AssertionError("pods of one namespace do not reach each other without any policy")
    closed = {"podSelector": {}, "policyTypes": ["Ingress"]}
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"}}
    kubectl.apply({**policy, "spec": closed})
    enforced = _becomes("closed", kubectl, attempt, seconds)
    kubectl("delete", "networkpolicy", "closed")
    return enforced and _becomes("open", kubectl, attempt, seconds)


def _becomes(state: str, kubectl: Kubectl, attempt: str, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while kubectl.run("client", attempt).strip() != state:
        if time.monotonic() > limit:
            return False
        time.sleep(0.2)
    return True
