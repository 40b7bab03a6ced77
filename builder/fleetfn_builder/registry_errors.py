"""What a registry refuses, and why it gives no answer, in words: for people, and for those who may try again."""

from __future__ import annotations

import email.utils
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from fleetfn_builder.builder import BuildError
from fleetfn_builder.images import LARGEST
from fleetfn_builder.registry_auth import Credentials

CERTIFICATES = Path("/etc/docker/certs.d")
"""Where Docker looks for the authorities of registries: HOST/*.crt."""

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, TOO_LARGE = 401, 403, 404, 413

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be another soon."""

_AGAIN = "Try again in a while: what has arrived is not sent twice."


class RegistryError(BuildError):
    """`again`: it may pass, if tried soon; `away`: nobody answered, or nobody who can now; `after`: seconds that the
    registry asks us to wait; `status`: 0 where no answer came.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str,
        again: bool = False,
        away: bool = False,
        after: float | None = None,
        status: int = 0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.again = again
        self.away = away or again
        self.after = after
        self.status = status


def refused(
    host: str, response: httpx.Response, what: str, credentials: Credentials | None, *, known: bool
) -> RegistryError:
    """`what` was wanted: "push to x"; `known`: the registry took the credentials, and this is about rights."""
    status, said = response.status_code, _said(response)
    user = _user(credentials)
    login = f"`docker login {host}`, or give user and password."
    if status == UNAUTHORIZED and credentials is None:
        message, hint = f"{host} wants credentials to {what}, and none are known{said}", f"First {login}"
    elif status == UNAUTHORIZED and not known:
        message, hint = f"{host} does not accept {user}, to {what}{said}", f"Are they right? Once more {login}"
    elif status in {UNAUTHORIZED, FORBIDDEN}:
        message, hint = f"{host} does not let {user} {what}{said}", f"Ask for that right, or as another user: {login}"
    elif status == NOT_FOUND:
        message = f"{host} does not know what is wanted: {what}{said}"
        hint = "Is the name right? Some registries want its project made first."
    elif status == TOO_LARGE:
        message = f"{host} takes nothing so large, to {what}{said}"
        hint = "A proxy before a registry often limits what it lets through: raise that."
    else:
        return _unexpected(host, response, what, said)
    return RegistryError(message, hint=hint, status=status)


def _unexpected(host: str, response: httpx.Response, what: str, said: str) -> RegistryError:
    status = response.status_code
    again = status in PASSING
    after = _retry_after(response) if again else None
    hint = _AGAIN if again else "The registry's own log may say more."
    if after is not None:
        hint = f"It asks to wait for {after:.0f} s. {hint}"
    message = f"{host} answers {status} {response.reason_phrase}, to {what}{said}"
    return RegistryError(message, hint=hint, again=again, after=after, status=status)


def _user(credentials: Credentials | None) -> str:
    if credentials is None:
        return "everybody"
    return f"user {credentials.username!r}" if credentials.username else "the token of Docker's config"


def broken(host: str, error: Exception) -> RegistryError:
    """No answer, or half of one."""
    causes = list(_causes(error))
    for found in filter(None, (_cause(host, cause) for cause in causes)):
        return found
    if isinstance(error, httpx.TimeoutException):
        return _silent(f"{host} does not answer in time")
    if isinstance(error, httpx.TransportError):
        return _silent(f"the connection to {host} broke: {str(causes[-1]) or type(causes[-1]).__name__}")
    return RegistryError(f"{host} answers what makes no sense: {error}", hint="Is it a registry?")


def _cause(host: str, cause: BaseException) -> RegistryError | None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RegistryError(
            f"the certificate of {host} is not trusted: {cause.verify_message}",
            hint=f"Put its authority into {CERTIFICATES / host}/ca.crt, or name {host} insecure.",
        )
    if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
        return RegistryError(f"{host} does not speak TLS", hint=f"If plain HTTP is meant, name {host} insecure.")
    if isinstance(cause, socket.gaierror):
        message = f"the name of {host} is not known: {cause.strerror}"
        return RegistryError(message, hint="Is it written right?", away=True)
    if isinstance(cause, ConnectionRefusedError):
        return _silent(f"{host} refuses connections")
    return None


def _silent(message: str) -> RegistryError:
    return RegistryError(message, hint=f"Is the registry up, and can it be reached from here? {_AGAIN}", again=True)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def whole(response: httpx.Response) -> httpx.Response:
    """With its body read, for short ones. Raises httpx.RequestError, also for a body that does not end."""
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > LARGEST:
            raise httpx.DecodingError(f"more than {LARGEST >> 20} MiB where a few lines are due")
    heads = [each for each in response.headers.multi_items() if each[0].lower() != "content-encoding"]
    return httpx.Response(response.status_code, headers=heads, content=bytes(body), request=response.request)


def _said(response: httpx.Response) -> str:
    """A registry's own words: code and message of its first error."""
    try:
        first = whole(response).json()["errors"][0]
        words = " ".join(str(first[name]) for name in ("code", "message") if first.get(name))
    except (httpx.HTTPError, httpx.StreamError, ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f" ({words[:300]})" if words else ""


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
