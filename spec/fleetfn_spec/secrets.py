"""Secrets by reference: where references are, and what they stand for.

Resolved late, by the process that connects or runs the handler. Problems name the reference, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from fleetfn.errors import FleetError
from fleetfn_triggers.secret import FOLDER, Secret

_REFERENCE = frozenset({"env", "file", "secret"})
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_VALUE_LIMIT = 1024 * 1024
"""Bytes of a secret's file: a certificate has a few thousand."""

NO_KUBERNETES = "a Kubernetes Secret is there for the kubernetes target only"
NO_KUBERNETES_HINT = "use {env: NAME} (given to the node by `fn up --env-file`) or {file: path}"


class SecretError(FleetError):
    """A reference that leads to no value."""


class SecretText(str):
    """A secret's value. It is text for those who need it and does not show itself in a repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def resolve(reference: Secret, environ: Mapping[str, str], base: Path) -> SecretText:
    """The value. `environ`: of the node or pod; relative files start at `base`. Raises SecretError."""
    if reference.secret is not None:
        return _from_secret(reference)
    if reference.env is not None:
        if reference.env not in environ:
            hint = "set it before `fn up`, or write it into the file given by `fn up --env-file`"
            raise SecretError(f"{reference}: the environment has no {reference.env}", hint=hint)
        return SecretText(environ[reference.env])
    return _from_file(reference, base / (reference.file or ""))


def _from_secret(reference: Secret) -> SecretText:
    """A pod has the Secrets it needs as files, under their names."""
    if not Path(FOLDER).is_dir():
        raise SecretError(f"{reference}: {NO_KUBERNETES}", hint=NO_KUBERNETES_HINT)
    return _from_file(reference, Path(reference.path or ""))


def _from_file(reference: Secret, path: Path) -> SecretText:
    try:
        with path.open("rb") as stream:
            data = stream.read(_VALUE_LIMIT + 1)
    except OSError as exc:
        hint = "check the path, and that the node's user may read it"
        raise SecretError(f"{reference}: {path} cannot be read: {exc.strerror}", hint=hint) from exc
    if len(data) > _VALUE_LIMIT:
        raise SecretError(f"{reference}: {path} is longer than {_VALUE_LIMIT} bytes", hint="is it the right file?")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{reference}: {path} is not UTF-8 text", hint="is it the right file?") from None
    return SecretText(text.removesuffix("\n").removesuffix("\r"))


def reference_in(value: object) -> Secret | None:
    """The reference that a value of `config` is, if it is one: a block of just env, file or secret, naming text."""
    if isinstance(value, dict) and len(value) == 1:
        (name, where), *_ = value.items()
        if name in _REFERENCE and isinstance(where, str):
            return Secret(**{name: where})
    return None


def references(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Secret]]:
    """Every reference within a value of `config`, with its path."""
    reference = reference_in(value)
    if reference is not None:
        yield path, reference
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from references(each, (*path, name))
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from references(each, (*path, i))


def resolve_config(config: Mapping[str, Any], environ: Mapping[str, str], base: Path) -> dict[str, Any]:
    """`config` with its references replaced by plain text: from here on it is the handler's to guard.

    Raises SecretError, which names the first field that has no value.
    """

    def replaced(value: Any, at: str) -> Any:
        reference = reference_in(value)
        if reference is not None:
            try:
                return str(resolve(reference, environ, base))
            except SecretError as exc:
                raise SecretError(f"{at}: {exc.message}", hint=exc.hint) from exc
        if isinstance(value, dict):
            return {name: replaced(each, f"{at}.{name}") for name, each in value.items()}
        if isinstance(value, list):
            return [replaced(each, f"{at}[{i}]") for i, each in enumerate(value)]
        return value

    return {name: replaced(value, f"spec.config.{name}") for name, value in config.items()}


def parse_env_file(text: str, file: str = "the env file") -> dict[str, str]:
    r"""`KEY=VALUE` lines, `#` comments, optional `export`. Values may stand in quotes: '...' as they are, "..." with
    the escapes \n, \t, \" and \\. Nothing is expanded. Raises SecretError, which names the line, never the value.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        value = _unquoted(match[2]) if match else None
        if match is None or value is None:
            raise SecretError(f"{file}:{number}: not KEY=VALUE", hint="write NAME=value, quotes around spaces and #")
        if match[1] in found:
            raise SecretError(f"{file}:{number}: {match[1]} stands twice", hint="keep one")
        found[match[1]] = value
    return found


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$"}


def _unquoted(raw: str) -> str | None:
    """None: a quote that does not end, or something after it."""
    if raw[:1] not in ("'", '"'):
        return re.split(r"\s+#", raw, maxsplit=1)[0].rstrip() if not raw.startswith("#") else ""
    pattern = r"'([^']*)'\s*(#.*)?" if raw[0] == "'" else r'"((?:[^"\\]|\\.)*)"\s*(#.*)?'
    match = re.fullmatch(pattern, raw)
    if match is None:
        return None
    if raw[0] == "'":
        return match[1]
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), match[1])


def in_struct(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Secret]]:
    """Every reference within a model's value (a connection), with its path."""
    if isinstance(value, Secret):
        yield path, value
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            yield from in_struct(getattr(value, field), (*path, field))
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from in_struct(each, (*path, name))
    elif isinstance(value, list | tuple):
        for i, each in enumerate(value):
            yield from in_struct(each, (*path, i))
