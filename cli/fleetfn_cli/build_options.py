"""What stands on the line of a build, as values: variables, secrets, platforms, tags, how registries are reached."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fleetfn.errors import UsageError

if TYPE_CHECKING:
    from fleetfn_builder.builder import Access, Platform
    from fleetfn_builder.references import Reference

ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables(given: Iterable[str]) -> dict[str, str]:
    """`NAME=value`, or `NAME` for that of fn's own environment. Raises UsageError."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        found[_named(name, "--env")] = value if equals else _own(name, "--env")
    return found


def secrets(given: Iterable[str]) -> dict[str, str]:
    """`NAME` of fn's own environment, or `NAME=@file`. Raises UsageError, which never shows a value."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        _named(name, "--secret")
        if equals and not value.startswith("@"):
            raise UsageError(
                f"the value of the secret {name} stands on the command line, where every user of this machine reads it",
                hint=f"Set the variable and give its name, --secret {name}, or a file: --secret {name}=@FILE.",
            )
        found[name] = _from_file(name, Path(value[1:])) if equals else _own(name, "--secret")
    return found


def platforms(given: str | None) -> tuple[Platform, ...]:
    """`linux/amd64,linux/arm64`; None: this machine's. Raises UsageError."""
    from fleetfn_builder.builder import Platform

    named = given.split(",") if given else [f"linux/{ARCHITECTURES.get(os.uname().machine, 'amd64')}"]
    found: dict[str, Platform] = {}
    for each in named:
        match each.strip():
            case "linux/amd64":
                found[each] = Platform("amd64")
            case "linux/arm64" | "linux/arm64/v8":
                found[each] = Platform("arm64")
            case other:
                raise UsageError(f"images cannot be built for {other!r}", hint="There are linux/amd64 and linux/arm64.")
    return tuple(found.values())


def pushed(given: Iterable[str]) -> tuple[Reference, ...]:
    """Tags that say where they lie. Raises UsageError."""
    from fleetfn_builder import references

    tags = [(each, references.parse(each)) for each in given]
    if not tags:
        raise UsageError("--push needs the name to push to", hint="Give it: -t registry.example/team/NAME:1.4")
    for text, reference in tags:
        if reference.host == references.HUB and not text.startswith(f"{references.HUB}/"):
            raise UsageError(
                f"{text!r} names no registry to push to",
                hint=f"Begin with its host: registry.example/{text}; Docker Hub's is {references.HUB}/.",
            )
    return tuple(reference for _, reference in tags)


def access(
    *,
    username: str | None,
    password_stdin: bool,
    insecure: Iterable[str],
    mirrors: Iterable[str],
    host: str | None = None,
) -> Access:
    """`host`: whom the password is for; None: that of a request's first tag. Raises UsageError."""
    from fleetfn_builder.builder import Access

    if password_stdin != (username is not None):
        raise UsageError(
            "--username and --password-stdin belong together",
            hint='printf %s "$TOKEN" | fn build --username NAME --password-stdin ...; '
            "without both, what `docker login` left is taken.",
        )
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    if password_stdin and not password:
        raise UsageError("--password-stdin found nothing on standard input", hint='printf %s "$TOKEN" | fn build ...')
    return Access(username, password, host=host, insecure=frozenset(insecure), mirrors=_mirrors(mirrors))


def _mirrors(given: Iterable[str]) -> Mapping[str, str]:
    found = {}
    for each in given:
        host, equals, mirror = each.partition("=")
        if not (host and equals and mirror):
            raise UsageError(f"{each!r} is no mirror", hint="--mirror docker.io=harbor.example/docker-hub is one.")
        found[host] = mirror
    return found


def _named(name: str, option: str) -> str:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a variable", hint=f"{option} NAME takes letters, digits and '_'.")
    return name


def _own(name: str, option: str) -> str:
    if name not in os.environ:
        raise UsageError(f"{option} {name}: the environment has no {name}", hint=f"Set it: export {name}=...")
    return os.environ[name]


def _from_file(name: str, path: Path) -> str:
    try:
        return path.read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"the secret {name}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the secret {name}: {path} is not UTF-8 text", hint="Is it the right file?") from None
