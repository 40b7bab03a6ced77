"""Who we are to a registry: credentials, from what was given or from Docker's config, and what is made of them.

A registry asks for a password (Basic), or sends us elsewhere for tokens (Bearer), one for each set of scopes:
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetfn_builder.builder import Access, BuildError


@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    password: str = field(default="", repr=False)
    identity: str = field(default="", repr=False)
    """A token in place of a password, as some logins leave in Docker's config."""

    @property
    def basic(self) -> str:
        both = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(both).decode()}"


def find(host: str, access: Access) -> Credentials | None:
    """What was given for this host, or what Docker's config knows of it. Raises BuildError."""
    if access.username is not None and access.host == host:
        return Credentials(access.username, access.password or "")
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path raises for a user without one
    folder = os.environ.get("DOCKER_CONFIG")
    if not any(each.exists() for each in (Path(folder or home / ".docker", "config.json"), home / ".dockercfg")):
        return None  # nothing to read: the SDK takes a while to import
    from docker import auth, errors  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a helper that is not installed: told as the error below
            entry = auth.load_config().resolve_authconfig(host)
    except (errors.DockerException, ValueError) as error:
        raise BuildError(
            f"Docker's config does not give the credentials for {host}: {error}",
            hint=f"`docker login {host}` mends it, or give user and password.",
        ) from error
    return _credentials(entry or {})


def _credentials(entry: Mapping[str, Any]) -> Credentials | None:
    known = {name.lower(): value for name, value in entry.items() if value}
    if "identitytoken" in known:
        return Credentials("", identity=known["identitytoken"])
    if "username" in known:
        return Credentials(known["username"], known.get("password", ""))
    return None


def may_be_insecure(host: str, access: Access) -> bool:
    """Named so, or on this machine. `host` may carry a port."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if host in access.insecure or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a registry wants to be asked."""

    scheme: str
    """`basic`, `bearer`, or '' where nothing is asked for."""
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(headers: Sequence[str]) -> Challenge:
    """Of WWW-Authenticate: the first that we understand."""
    for scheme, rest in re.findall(
        r"(?i)\b(bearer|basic)\b((?:\s*,?\s*\w+=(?:\"[^\"]*\"|[^\s,\"]+))*)", ", ".join(headers)
    ):
        found = {
            name.lower(): quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))', rest)
        }
        return Challenge(scheme.lower(), found.get("realm", ""), found.get("service", ""), found.get("scope", ""))
    return Challenge("")


Fetch = Callable[[Challenge, Sequence[str], Credentials | None], Mapping[str, Any]]
"""Asks for a token of these scopes: the reply, decoded."""

USUAL = 60
"""Seconds that a token holds if the reply does not tell: so says the specification."""


class Passes:
    """What goes into Authorization, by scope; tokens are kept until shortly before they end. From any thread."""

    def __init__(
        self, credentials: Credentials | None, fetch: Fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.credentials = credentials
        self._fetch = fetch
        self._clock = clock
        self._challenge = Challenge("")
        self._tokens: dict[frozenset[str], tuple[str, float]] = {}
        self._lock = threading.Lock()

    def learn(self, challenge: Challenge) -> None:
        with self._lock:
            self._challenge = challenge

    def header(self, scopes: Sequence[str]) -> str | None:
        """`scopes`: `repository:team/alert:pull,push`. Raises BuildError where no token is given."""
        with self._lock:
            if self._challenge.scheme == "basic" and self.credentials is not None:
                return self.credentials.basic
            if self._challenge.scheme != "bearer":
                return None
            return f"Bearer {self._token(scopes)}"

    def refused(self, scopes: Sequence[str]) -> None:
        """A token that should hold does not: the next will be a new one."""
        with self._lock:
            self._tokens.pop(frozenset(scopes), None)

    def _token(self, scopes: Sequence[str]) -> str:
        token, ends = self._tokens.get(frozenset(scopes), ("", 0.0))
        if self._clock() >= ends:
            told = self._fetch(self._challenge, scopes, self.credentials)
            token = str(told.get("token") or told.get("access_token") or "")
            lasts = told.get("expires_in")
            ends = self._clock() + 0.8 * (lasts if isinstance(lasts, int | float) and lasts > 0 else USUAL)
            self._tokens[frozenset(scopes)] = (token, ends)
        return token
