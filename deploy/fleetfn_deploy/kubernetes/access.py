"""How a cluster is reached: a kubeconfig's context, or the ServiceAccount of the pod that `fn` runs in.

Reading kubeconfigs (several files, certificates, tokens, login commands and their expiry) is the Python client's. It
takes 0.6 s to import, so only here and where ports are forwarded.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from fleetfn.errors import TargetError

if TYPE_CHECKING:
    from kubernetes.client.configuration import Configuration

_INSTALL = "pip install 'fleetfn[kubernetes]'"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and what it is shown."""

    server: str
    """`https://host:port`."""
    context: str
    """Of the kubeconfig; '' inside a cluster."""
    namespace: str
    """What the context, or the pod, says."""
    authorization: Callable[[], str | None]
    """The header's value now: tokens expire, and files with tokens change."""
    verify: ssl.SSLContext | bool = True
    server_name: str | None = None
    """Another name than the address has, in the server's certificate."""
    proxy: str | None = None
    configuration: Configuration | None = None
    """The same for the Python client's websockets."""

    def __str__(self) -> str:
        return f"context {self.context!r} ({self.server})" if self.context else f"this cluster ({self.server})"


NOWHERE = Access("https://cluster.invalid", context="", namespace="default", authorization=lambda: None)
"""Of no cluster, where there is only something to be rendered: as in a CI job without a kubeconfig."""


def find(context: str | None = None, *, kubeconfig: str | None = None) -> Access:
    """`context` None: the current one; inside a pod without a kubeconfig its own cluster. Raises TargetError."""
    try:
        from kubernetes import config  # noqa: PLC0415 - heavy, and an extra
    except ImportError as error:
        raise TargetError("the Python client of Kubernetes is not installed", hint=f"Install it: {_INSTALL}") from error
    files = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if context is None and _inside() and not _there(files):
        return _in_cluster()
    try:
        return _of_context(files, context)
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise TargetError(f"the kubeconfig ({files}) cannot be used: {error}", hint=_HINT) from error


_HINT = "KUBECONFIG names another file; `target: {kubernetes: {context: NAME}}` chooses among its contexts."


def _of_context(files: str, context: str | None) -> Access:
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415 - as above
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger  # noqa: PLC0415 - as above

    if not _there(files):
        raise TargetError(f"there is no kubeconfig: {files}", hint=_HINT)
    merged = KubeConfigMerger(files).config
    known = [each["name"] for each in (merged.safe_get("contexts") if merged is not None else None) or []]
    chosen = context or (merged.safe_get("current-context") if merged is not None else None)
    if not known or chosen not in known:
        raise _no_context(files, chosen, known)
    loader = KubeConfigLoader(config_dict=merged, active_context=chosen, config_base_path=None)
    configuration = Configuration()
    loader.load_and_set(configuration)
    found = loader.current_context["context"]
    authorization = _authorization(configuration)
    _check_login(merged, found.get("user", ""), configuration, authorization)
    return Access(
        server=configuration.host,
        context=str(chosen),
        namespace=found.get("namespace") or "default",
        authorization=authorization,
        verify=_tls(configuration),
        server_name=configuration.tls_server_name,
        proxy=getattr(loader, "proxy", None),
        configuration=configuration,
    )


def _in_cluster() -> Access:
    from kubernetes.client.configuration import Configuration  # noqa: PLC0415 - as above
    from kubernetes.config import load_incluster_config  # noqa: PLC0415 - as above

    configuration = Configuration()
    load_incluster_config(client_configuration=configuration)
    return Access(
        server=configuration.host,
        context="",
        namespace=(_SERVICE_ACCOUNT / "namespace").read_text().strip() or "default",
        authorization=_authorization(configuration),
        verify=_tls(configuration),
        configuration=configuration,
    )


def _inside() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists()


def _there(files: str) -> bool:
    return any(Path(each).expanduser().exists() for each in files.split(os.pathsep) if each)


def _no_context(files: str, chosen: str | None, known: list[str]) -> TargetError:
    message = f"the kubeconfig ({files}) has no context {chosen!r}" if chosen else f"{files} names no current context"
    those = f"It has: {', '.join(sorted(known))}." if known else "It has none at all."
    return TargetError(message, hint=f"{those} {_HINT}")


def _authorization(configuration: Configuration) -> Callable[[], str | None]:
    def ask() -> str | None:
        # "authorization" is the key that the client used before version 36, and in a cluster does still
        return configuration.get_api_key_with_prefix("BearerToken", alias="authorization")

    return ask


def _check_login(merged: Any, user: str, configuration: Configuration, authorization: Callable[[], str | None]) -> None:
    """A login command that fails is only logged by the client; the server's 401 would say nothing of it."""
    users = [each["user"] for each in merged.safe_get("users") or [] if each["name"] == user]
    command = users[0].safe_get("exec") if users else None
    if command and not configuration.cert_file and authorization() is None:
        raise TargetError(
            f"{command['command']!r}, by which the kubeconfig logs user {user!r} in, gave no credentials",
            hint="Run it by hand to see why; often a login has expired.",
        )


def _tls(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return False
    try:
        context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
    except OSError as error:
        raise TargetError(
            f"a certificate of the kubeconfig cannot be read: {error}",
            hint="Look at certificate-authority, client-certificate and client-key in it.",
        ) from error
    return context
