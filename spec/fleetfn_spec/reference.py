"""Reference pages of function.yaml and environments.yaml, generated from the models:
`python -m fleetfn_spec.reference [folder]` writes into `docs/reference` of the working directory.
"""

from __future__ import annotations

import inspect as python_inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from fleetfn_spec.environments import Environments
from fleetfn_spec.function import Function
from fleetfn_spec.walk import members

PAGES: dict[str, type[msgspec.Struct]] = {"function.yaml": Function, "environments.yaml": Environments}

_OPENING = {
    "function.yaml": """What a function is: one file beside its handlers.

Unknown keys, duplicate keys and bad values are errors: all at once, each with file, line and next step. Scalars are
those of YAML 1.2 (`true`, `false`, numbers, text); anchors, aliases and tags are not taken.

For checks while you type, begin the file with `# yaml-language-server: $schema=` and the path of the
installed `fleetfn_spec/schemas/function.schema.json`.
""",
    "environments.yaml": """Where functions live and what they reach from there. `fn deploy` takes the nearest one, in
the folder itself or above it, and `--env NAME` picks an environment of it. Without a file there is `local`: the node of
this machine, with embedded Kafka and MQTT brokers.

Secrets are references, never values: `{env: NAME}` and `{file: path}` are resolved by the process that connects.
Relative paths start at the folder of this file.

For checks while you type, begin the file with `# yaml-language-server: $schema=` and the path of the
installed `fleetfn_spec/schemas/environments.schema.json`.
""",
}

_TYPES: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "whole number",
    inspect.FloatType: "number",
    inspect.BoolType: "true or false",
    inspect.AnyType: "anything",
    inspect.NoneType: "null",
}


@dataclass(frozen=True, slots=True)
class Block:
    """One block of keys: where it stands (`spec.triggers[].kafka`), and its model."""

    path: str
    type: inspect.StructType


def blocks(model: type[msgspec.Struct]) -> list[Block]:
    """Every block of a model, outer ones first; one that stands in several places comes several times."""
    return list(_blocks(inspect.type_info(model), ""))


def _blocks(type_: inspect.Type, path: str) -> Iterator[Block]:
    for each, _ in members(type_):
        match each:
            case inspect.StructType():
                yield Block(path, each)
                for field in each.fields:
                    yield from _blocks(field.type, f"{path}.{field.encode_name}".lstrip("."))
            case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
                yield from _blocks(item, f"{path}[]")
            case inspect.DictType(value_type=value):
                yield from _blocks(value, f"{path}.<name>")


def page(name: str) -> str:
    """One page of Markdown."""
    parts = [f"# {name}\n", _OPENING[name]]
    places: dict[type, list[Block]] = {}
    for block in blocks(PAGES[name]):
        places.setdefault(block.type.cls, []).append(block)
    parts += [_section(same) for same in places.values()]
    return "\n".join(parts)


def _section(same: list[Block]) -> str:
    block, *others = sorted(same, key=lambda each: len(each.path))
    about = " ".join((python_inspect.getdoc(block.type.cls) or "").split())
    if others:
        about += " Also at " + ", ".join(f"`{each.path}`" for each in others) + "."
    lines = [f"## `{block.path}`\n" if block.path else "## The file\n", about + "\n"]
    lines += ["| key | type | default | |", "|---|---|---|---|"]
    lines += [_row(field) for field in block.type.fields]
    not_built: dict[str, str] = getattr(block.type.cls, "NOT_BUILT", {})
    if not_built:
        lines.append("\nNot built yet: " + "; ".join(f"`{name}`" for name in not_built) + ".")
    return "\n".join(lines) + "\n"


def _row(field: inspect.Field) -> str:
    json = json_schema(field.type)
    text = json.get("description", "")
    text += "".join(f" {limit}" for limit in _limits(field.type))
    text += "".join(f" E.g. `{_yaml(example)}`." for example in json.get("examples", []))
    type_ = _type(field.type)
    if field.default is None:  # null is as good as leaving the key out
        type_ = type_.removesuffix(" or null")
    cells = [f"`{field.encode_name}`", type_, _default(field), text]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def json_schema(type_: inspect.Type) -> dict[str, Any]:
    """What the Metas around a field's type say: description and examples."""
    if isinstance(type_, inspect.Metadata):
        return {**json_schema(type_.type), **(type_.extra_json_schema or {})}
    if isinstance(type_, inspect.UnionType):
        return {key: value for each in type_.types for key, value in json_schema(each).items()}
    return {}


def _type(type_: inspect.Type) -> str:
    words = []
    for each, extra in members(type_):
        match each:
            case inspect.StructType():
                words.append("block")
            case inspect.LiteralType(values=values):
                words.append(" / ".join(f"`{value}`" for value in values))
            case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
                words.append(f"list of {_plural(_type(item))}")
            case inspect.DictType(value_type=value):
                words.append(f"block of names and {_plural(_type(value))}")
            case inspect.StrType(pattern=pattern) if pattern and str(extra.get("form", "")).startswith("a duration"):
                words.append("duration")
            case _:
                words.append(_TYPES[type(each)])
    return " or ".join(dict.fromkeys(words))


def _plural(word: str) -> str:
    return {"block": "blocks", "whole number": "whole numbers"}.get(word, word)


def _limits(type_: inspect.Type) -> Iterator[str]:
    for each, extra in members(type_):
        match each:
            case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high) if low is not None:
                yield f"{low} to {high}." if high != low else f"Only {low} for now."
            case inspect.StrType() if "range" in extra:
                yield f"{extra['range']}."
            case inspect.StrType(pattern=pattern) if pattern and not extra.get("form", "").startswith("a duration"):
                yield f"Form: {extra['form']}."
            case _:
                pass
        for value in extra.get("not_built", {}):
            yield f"`{value}` is not built yet."


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default in (None, msgspec.NODEFAULT) or isinstance(field.default, msgspec.Struct):
        return ""
    return f"`{_yaml(field.default)}`"


def _yaml(value: Any) -> str:
    """A value in the flow style of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str):
        return f'"{value}"' if re.search(r"[{}\[\],:#&*]\s|[{}\[\]]", value) else value
    return msgspec.json.encode(value).decode()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        (folder / f"{name}.md").write_text(page(name))


if __name__ == "__main__":
    main()
