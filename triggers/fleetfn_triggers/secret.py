"""Secrets by reference. Only the process that connects learns the value (fleetfn_spec.secrets)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

from msgspec import Meta

from fleetfn_triggers.fields import Strict

FOLDER = "/var/run/fleetfn/secrets"
"""In pods of a cluster: {secret: NAME/KEY} is the file NAME/KEY below it."""


class Secret(Strict, frozen=True):
    """Exactly one of `env`, `file` and `secret` names where the value is. The value itself is never written in YAML."""

    UNQUOTED: ClassVar[bool] = True
    NOT_A_BLOCK: ClassVar[tuple[str, str]] = (
        "a secret is never written here, only where it is",
        "write {env: NAME}, {file: path}, or in a cluster {secret: name/key}",
    )

    env: (
        Annotated[
            str,
            Meta(
                description="Name of an environment variable of the process that connects "
                "(a node gets its environment by `fn up --env-file`).",
                examples=["KAFKA_PASSWORD"],
                pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
                extra={"form": "the name of an environment variable: letters, digits and '_'"},
            ),
        ]
        | None
    ) = None
    file: (
        Annotated[
            str,
            Meta(
                description="Path of a file that holds the value; a line end at its end is not part of it. Relative "
                "paths start at the folder of the YAML file.",
                examples=["/run/secrets/kafka-password"],
                min_length=1,
            ),
        ]
        | None
    ) = None
    secret: (
        Annotated[
            str,
            Meta(
                description="Name and key of a Kubernetes Secret in the function's namespace. Refused on nodes.",
                examples=["kafka/password"],
                pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._a-zA-Z0-9]+$",
                extra={"form": "name/key of a Kubernetes Secret"},
            ),
        ]
        | None
    ) = None

    def __post_init__(self) -> None:
        if sum(where is not None for where in (self.env, self.file, self.secret)) != 1:
            raise ValueError("a secret has exactly one of env, file, secret")

    @property
    def path(self) -> str | None:
        """The file that holds the value; None: no file does."""
        return self.file if self.secret is None else f"{FOLDER}/{self.secret}"

    def __str__(self) -> str:
        """The reference as people write it: `{env: KAFKA_PASSWORD}`."""
        name, where = next((n, w) for n in ("env", "file", "secret") if (w := getattr(self, n)) is not None)
        return f"{{{name}: {where}}}"


Resolve = Callable[[Secret], str]
"""Finds a secret's value, in the process that connects. Raises FleetError."""
