"""Where the API server is and who we are to it: by the pod's service account, or by a kubeconfig outside of pods."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from fleetfn.errors import UsageError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts token and ca.crt; it renews the token about once an hour."""


@dataclass(frozen=True, slots=True)
class Access:
    """`token`: read anew for each call, since it is renewed; None: a certificate in `context` says who we are."""

    url: str
    context: ssl.SSLContext | None
    token: Callable[[], str | None]
    who: str
    """For people."""


def in_pod(environ: Mapping[str, str] = os.environ, folder: Path = ACCOUNT) -> Access:
    """Raises UsageError where this process is in no pod, or its token is not mounted."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise UsageError("this process runs in no pod of a cluster", hint="name a kubeconfig: --kubeconfig FILE")
    token = folder / "token"
    hint = "the pod needs `automountServiceAccountToken: true`"
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        token.read_text()
    except OSError as error:
        raise UsageError(f"the service account in {str(folder)!r} cannot be read: {error}", hint=hint) from error
    url = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Access(url, context, lambda: token.read_text().strip(), "its service account")


def by_kubeconfig(path: Path) -> Access:
    """The current context's cluster and user: authority, client certificate or token. Raises UsageError."""
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        return _access(path, cluster, user, context["user"])
    except (OSError, yaml.YAMLError, ssl.SSLError, binascii.Error) as error:
        raise UsageError(f"the kubeconfig {str(path)!r} cannot be used: {error}") from error
    except (KeyError, TypeError, StopIteration) as error:
        hint = "it needs a current-context with its cluster and user"
        raise UsageError(f"the kubeconfig {str(path)!r} lacks {error}", hint=hint) from error


def _named(config: Mapping[str, Any], kind: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(each for each in config[kind] if each["name"] == name)
    return found


def _access(path: Path, cluster: Mapping[str, Any], user: Mapping[str, Any], name: str) -> Access:
    if "exec" in user or "auth-provider" in user:
        hint = "use one with a client certificate or a token"
        raise UsageError(f"the kubeconfig {str(path)!r} names a program that logs in, which is not run", hint=hint)
    context = None
    if cluster["server"].startswith("https:"):
        context = ssl.create_default_context(cadata=_pem(path, cluster, "certificate-authority"))
        certificate, key = _pem(path, user, "client-certificate"), _pem(path, user, "client-key")
        if certificate and key:
            _load(context, certificate + "\n" + key)
    token = user.get("token")
    return Access(cluster["server"].rstrip("/"), context, lambda: token, f"user {name!r} of {path}")


def _pem(path: Path, of: Mapping[str, Any], field: str) -> str | None:
    if inline := of.get(f"{field}-data"):
        return base64.b64decode(inline, validate=True).decode()
    return (path.parent / of[field]).read_text() if field in of else None


def _load(context: ssl.SSLContext, pem: str) -> None:
    """OpenSSL takes a key from files alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # 0600
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
