"""What a plain scalar of YAML means, by the core schema of YAML 1.2: null, true, false, numbers; the rest is text.

YAML 1.1 reads some words otherwise (`yes`, `010`, `1_000`, `1:30`). Where a field's own type does not decide, they are
refused, so that nothing is read as something its writer did not mean.
"""

from __future__ import annotations

import math
import re

import msgspec
import yaml
from yaml.resolver import Resolver

Scalar = str | int | float | bool | None

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OLD_WORD = re.compile(r"y|Y|yes|Yes|YES|n|N|no|No|NO|on|On|ON|off|Off|OFF")
_OCTAL = re.compile(r"[-+]?0[0-9]+")

_OLD = Resolver()
"""YAML 1.1, as PyYAML and many others read it."""

_TAGS = {"null": type(None), "bool": bool, "int": int, "float": float}

_DIGITS = 20
_WORDS = {".inf": "inf", ".nan": "nan"}


class ScalarError(ValueError):
    """A scalar that cannot be carried: its text says why."""


def value(node: yaml.ScalarNode) -> Scalar:
    """Raises ScalarError for numbers and text that JSON cannot carry."""
    text: str = node.value
    if node.style is not None:
        return _text(text)
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return _whole(text)
    if _FLOAT.fullmatch(text):
        return _number(text)
    return _text(text)


def doubt(node: yaml.ScalarNode) -> str | None:
    """What to write instead of a plain scalar that YAML 1.1 and 1.2 read differently; None: it is clear."""
    text: str = node.value
    if node.style is not None:
        return None
    if _OLD_WORD.fullmatch(text):
        return f'write true or false, or "{text}" in quotes where text is meant'
    tag: str = _OLD.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # PyYAML's
    if _OCTAL.fullmatch(text) or type(value(node)) is not _TAGS.get(tag.rpartition(":")[2], str):
        return f'write a plain number, or "{text}" in quotes where text is meant'
    return None


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ScalarError(f"{text!a} holds half a character (a lone surrogate)") from None
    return text


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ScalarError(f"{text[:_DIGITS]}... does not fit into 64 bits")
    number = int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if not -(2**63) <= number < 2**64:
        raise ScalarError(f"{text} does not fit into 64 bits")
    return number


def _number(text: str) -> float:
    sign, word = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    number = float(sign + _WORDS.get(word.lower(), word))
    if not math.isfinite(number):
        raise ScalarError(f"{text} is no number that JSON can carry")
    return number


def shown(value: object, *, plain: bool = False, limit: int = 80) -> str:
    """A value as a message quotes it: JSON, cut short. `plain`: text without quotes, as YAML likes it."""
    text = value if plain and isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= limit else text[:limit] + "..."
