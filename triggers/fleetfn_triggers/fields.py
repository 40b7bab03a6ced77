"""What the models of function.yaml and environments.yaml share.

Every field carries `Meta(description, examples)`: JSON Schemas and reference pages are generated from them. `extra` of
a Meta speaks to the loader: `form` says in words what a pattern wants, `not_built` names values that are planned.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A block of YAML: unknown keys are refused. A class may set two class variables:

    `NOT_BUILT` maps keys that are planned but not there yet to what is said about them; `UNQUOTED` is true where values
    must never be quoted in a message, since they may be secrets.
    """


NAME = r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"

NAME_FORM = "lower-case letters, digits and '-', beginning with a letter, at most 63"

CALLABLE = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"

CALLABLE_FORM = "module:callable, e.g. handler:watch"

KafkaTopic = Annotated[
    str,
    Meta(
        pattern=r"^(?!\.\.?$)[a-zA-Z0-9._-]{1,249}$",
        extra={"form": "letters, digits, '.', '_' and '-', at most 249"},
    ),
]
