"""YAML nodes to the values of a model (msgspec Structs), by the model's types alone; every problem is collected.

A value that cannot be read becomes BROKEN, so that the rules across fields can still look at the rest: whoever
touches it gets TouchedBrokenError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn, TypeVar

import msgspec
import yaml
from msgspec import inspect

from fleetfn_spec import scalars
from fleetfn_spec.nearest import did_you_mean, nearest
from fleetfn_spec.places import Path, Places
from fleetfn_spec.problems import Problem
from fleetfn_spec.yaml_nodes import REFUSED

T = TypeVar("T", bound=msgspec.Struct)


class TouchedBrokenError(Exception):
    """A rule has met a value that could not be read; its problem is known already."""


class _Broken:
    def _touched(self, *_: object) -> NoReturn:
        raise TouchedBrokenError

    __eq__ = __iter__ = __len__ = __contains__ = __getitem__ = __bool__ = __str__ = __format__ = _touched
    __lt__ = __le__ = __gt__ = __ge__ = __getattr__ = _touched

    def __hash__(self) -> int:
        raise TouchedBrokenError


BROKEN: Any = _Broken()


def there(value: object) -> bool:
    """Is an optional block given? For rules, which `is not None` would lead past BROKEN."""
    if value is BROKEN:
        raise TouchedBrokenError
    return value is not None


_WORDS: dict[type[inspect.Type], str] = {
    inspect.StrType: "text",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.BoolType: "true or false",
    inspect.ListType: "a list",
    inspect.VarTupleType: "a list",
    inspect.DictType: "a block of keys",
    inspect.StructType: "a block of keys",
    inspect.NoneType: "null",
}

Extra = dict[str, Any]
Choice = list[tuple[inspect.Type, Extra]]


def walk(root: yaml.Node, model: type[T], file: str) -> tuple[T, Places, list[Problem]]:
    """The value (with BROKEN parts where there are problems), the places of its parts, and the problems."""
    walker = _Walker(file, inspect.type_info(model))
    return walker.value(root, walker.root, ()), walker.places, walker.problems


def members(type_: inspect.Type, extra: Extra | None = None) -> Iterator[tuple[inspect.Type, Extra]]:
    """The types a value may have, each with the `extra` of its Metas; UNSET is none of them."""
    extra = extra or {}
    if isinstance(type_, inspect.Metadata):
        yield from members(type_.type, {**extra, **(type_.extra or {})})
    elif isinstance(type_, inspect.UnionType):
        for each in type_.types:
            yield from members(each, extra)
    else:
        yield type_, extra


class _Walker:
    def __init__(self, file: str, root: inspect.Type) -> None:
        self.places = Places(file)
        self.problems: list[Problem] = []
        self.root = root

    def complain(self, node: yaml.Node, path: Path, message: str, hint: str = "") -> Any:
        mark = node.start_mark
        self.places.spots.setdefault(path, (mark.line + 1, mark.column + 1))
        where = Places(self.places.file, {path: (mark.line + 1, mark.column + 1)})
        self.problems.append(where.problem(path, message, hint))
        return BROKEN

    def value(self, node: yaml.Node, type_: inspect.Type, path: Path, *, quoted: bool = True) -> Any:
        self.places.spots[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if node.tag == REFUSED:
            return BROKEN
        choice = list(members(type_))
        if any(isinstance(each, inspect.AnyType) for each, _ in choice):
            return self._any(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, choice, path, quoted=quoted)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, choice, path, quoted=quoted)
        if not isinstance(node, yaml.ScalarNode):
            raise TypeError(node)
        return self._scalar(node, choice, path, quoted=quoted)

    # blocks

    def _mapping(self, node: yaml.MappingNode, choice: Choice, path: Path, *, quoted: bool) -> Any:
        for type_, _ in choice:
            if isinstance(type_, inspect.StructType):
                return self._struct(node, type_, path)
            if isinstance(type_, inspect.DictType):
                return self._dict(node, type_, path, quoted=quoted)
        return self.complain(node, path, f"a block of keys where {_wanted(choice)} is expected")

    def _struct(self, node: yaml.MappingNode, type_: inspect.StructType, path: Path) -> Any:
        cls = type_.cls
        fields = {field.encode_name: field for field in type_.fields}
        quoted = not getattr(cls, "UNQUOTED", False)
        values: dict[str, Any] = {}
        strange = False
        for key_node, key, child in self._entries(node, path):
            if key in fields:
                values[fields[key].name] = self.value(child, fields[key].type, (*path, key), quoted=quoted)
            else:
                self._unknown(key_node, key, type_, path)
                strange = True
        for name, field in fields.items():
            if field.required and field.name not in values:
                self.complain(node, (*path, name), "is missing", _example(name, field.type))
                values[field.name] = BROKEN
        blocks = [field.name for field in type_.fields if _is_optional_block(field.type)]
        if strange and not any(name in values for name in blocks):
            # The unknown key may be meant for one of them: rules about which blocks are there would only echo it.
            values.update(dict.fromkeys(blocks, BROKEN))
        try:
            return cls(**values)
        except TouchedBrokenError:
            return BROKEN
        except ValueError as exc:
            return self.complain(node, path, str(exc))

    def _entries(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[yaml.Node, str, yaml.Node]]:
        """The keys of a block that are text, each once."""
        seen: dict[str, yaml.Node] = {}
        for key_node, child in node.value:
            if key_node.tag == REFUSED:
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.complain(key_node, path, "a key must be plain text", "write `key: value`")
                continue
            key: str = key_node.value
            if key == "<<" and key_node.style is None:
                self.complain(key_node, path, 'the merge key "<<" is not taken', "write the keys out")
            elif key in seen:
                first = seen[key].start_mark.line + 1
                self.complain(
                    key_node, (*path, key), f'the key "{key}" stands twice, first in line {first}', "keep one"
                )
            else:
                seen[key] = key_node
                yield key_node, key, child

    def _unknown(self, node: yaml.Node, key: str, type_: inspect.StructType, path: Path) -> None:
        not_built: dict[str, str] = getattr(type_.cls, "NOT_BUILT", {})
        if key in not_built:
            self.complain(node, (*path, key), not_built[key])
            return
        known = [field.encode_name for field in type_.fields]
        hint = did_you_mean(key, known)
        if nearest(key, known) is None and (homes := list(_homes(key, type_)) or list(_homes(key, self.root))):
            hint = f'"{key}" belongs into {" or ".join(homes)}; {hint}'
        self.complain(node, (*path, key), f'unknown key "{key}"', hint)

    def _dict(self, node: yaml.MappingNode, type_: inspect.DictType, path: Path, *, quoted: bool) -> Any:
        entries = self._entries(node, path)
        return {key: self.value(child, type_.value_type, (*path, key), quoted=quoted) for _, key, child in entries}

    def _sequence(self, node: yaml.SequenceNode, choice: Choice, path: Path, *, quoted: bool) -> Any:
        for type_, _ in choice:
            if isinstance(type_, inspect.ListType | inspect.VarTupleType):
                item = type_.item_type
                found = [self.value(each, item, (*path, i), quoted=quoted) for i, each in enumerate(node.value)]
                if len(found) < (type_.min_length or 0):
                    return self.complain(node, path, "is empty", "give at least one")
                return tuple(found) if isinstance(type_, inspect.VarTupleType) else found
        return self.complain(node, path, f"a list where {_wanted(choice)} is expected")

    def _any(self, node: yaml.Node, path: Path) -> Any:
        self.places.spots[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
        if node.tag == REFUSED:
            return BROKEN
        if isinstance(node, yaml.MappingNode):
            return {key: self._any(child, (*path, key)) for _, key, child in self._entries(node, path)}
        if isinstance(node, yaml.SequenceNode):
            return [self._any(each, (*path, i)) for i, each in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode):
            raise TypeError(node)
        try:
            doubt = scalars.doubt(node)
            if doubt is None:
                return scalars.value(node)
            return self.complain(node, path, f"{node.value} means different things to different YAML readers", doubt)
        except scalars.ScalarError as exc:
            return self.complain(node, path, str(exc))

    # scalars

    def _scalar(self, node: yaml.ScalarNode, choice: Choice, path: Path, *, quoted: bool) -> Any:
        try:
            value = scalars.value(node)
        except scalars.ScalarError as exc:
            return self.complain(node, path, str(exc))
        block = next((type_ for type_, _ in choice if isinstance(type_, inspect.StructType)), None)
        if value is None:
            return self._null(node, choice, block, path)
        for type_, extra in choice:
            if _fits(value, type_):
                wrong = _wrong(value, type_, extra, quoted=quoted)
                if wrong is not None:
                    return self.complain(node, path, *wrong)
                return float(value) if isinstance(type_, inspect.FloatType) else value
        if block is not None and (said := getattr(block.cls, "NOT_A_BLOCK", None)):
            return self.complain(node, path, *said)
        shown = node.value if node.style is None and not isinstance(value, str) else scalars.shown(value)
        said = f"{_kind(value)} {shown}" if quoted else _kind(value)
        return self.complain(node, path, f"{said} where {_wanted(choice)} is expected", _mend(node, choice))

    def _null(self, node: yaml.ScalarNode, choice: Choice, block: inspect.StructType | None, path: Path) -> Any:
        if node.value and any(extra.get("off") for _, extra in choice):  # written out: a bare `key:` may be unfinished
            return None
        if block is not None:
            needed = [field.encode_name for field in block.fields if field.required]
            hint = f"give it {', '.join(needed)}" if needed else "write {} for the defaults, or leave the key out"
            return self.complain(node, path, "is empty", hint)
        if any(isinstance(type_, inspect.NoneType) for type_, _ in choice):
            return None
        return self.complain(
            node, path, f"is empty where {_wanted(choice)} is expected", "give it, or leave the key out"
        )


def _fits(value: object, type_: inspect.Type) -> bool:
    match type_:
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case inspect.LiteralType():
            return type(value) is type(type_.values[0])
        case _:
            return False


def _wrong(value: Any, type_: inspect.Type, extra: Extra, *, quoted: bool) -> tuple[str, str] | None:
    """(message, hint) where a value of the right type breaks its field's own rule."""
    said = scalars.shown(value) if quoted else "the value"
    refused = extra.get("refused")
    match type_:
        case inspect.LiteralType(values) if value not in values:
            return _not_among(str(value), said, [str(each) for each in values], extra.get("not_built", {}))
        case inspect.StrType(min_length=low, pattern=pattern):
            if not value and (pattern or low):
                return "is empty text", extra.get("form", "give it, or leave the key out")
            if pattern and not re.fullmatch(pattern, value, re.ASCII):
                return f"{said} is not allowed here", f"write {extra.get('form', pattern)}"
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            if low is not None and value < low:
                return refused or f"{said} is too small: at least {low:g}", ""
            if high is not None and value > high:
                return refused or f"{said} is too large: at most {high:g}", ""
    check = extra.get("check")
    message = check(value) if check else None
    return (message, "") if message else None


def _not_among(value: str, said: str, allowed: list[str], not_built: dict[str, str]) -> tuple[str, str]:
    if value in not_built:
        return not_built[value], ""
    near = nearest(value, allowed)
    return f"{said} is not one of {', '.join(allowed)}", f'did you mean "{near}"?' if near else ""


def _is_optional_block(type_: inspect.Type) -> bool:
    types = {type(each) for each, _ in members(type_)}
    return types == {inspect.StructType, inspect.NoneType}


def _wanted(choice: Choice) -> str:
    words = []
    for type_, _ in choice:
        if isinstance(type_, inspect.LiteralType):
            words.append("one of " + ", ".join(map(str, type_.values)))
        elif not isinstance(type_, inspect.NoneType) and type(type_) in _WORDS:
            words.append(_WORDS[type(type_)])
    return " or ".join(dict.fromkeys(words))


def _kind(value: scalars.Scalar) -> str:
    match value:
        case bool():
            return "the truth value"
        case int() | float():
            return "the number"
        case _:
            return "the text"


def _mend(node: yaml.ScalarNode, choice: Choice) -> str:
    types = {type(type_) for type_, _ in choice}
    for type_, extra in choice:
        if (
            isinstance(type_, inspect.StrType)
            and type_.pattern
            and not re.fullmatch(type_.pattern, node.value, re.ASCII)
        ):
            return f"write {extra.get('form', type_.pattern)}"
    if types & {inspect.StrType, inspect.LiteralType} and node.style is None:
        return f'put it in quotes: "{node.value}"'
    if inspect.BoolType in types and scalars.doubt(node):
        return "write true or false"
    if types & {inspect.IntType, inspect.FloatType} and node.style is not None:
        return "write it without quotes"
    if types & {inspect.ListType, inspect.VarTupleType}:
        return f"write [{node.value}]"
    return ""


def _example(name: str, type_: inspect.Type) -> str:
    if isinstance(type_, inspect.Metadata) and (given := (type_.extra_json_schema or {}).get("examples")):
        return f"add e.g. {name}: {scalars.shown(given[0], plain=True)}"
    return "add it"


def _homes(key: str, type_: inspect.Type, at: str = "") -> Iterator[str]:
    """Where in the model a key is known: `spec.triggers[].kafka`."""
    for each, _ in members(type_):
        if isinstance(each, inspect.StructType):
            for field in each.fields:
                if field.encode_name == key and at:
                    yield at
                yield from _homes(key, field.type, f"{at}.{field.encode_name}".lstrip("."))
        elif isinstance(each, inspect.ListType):
            yield from _homes(key, each.item_type, f"{at}[]")
