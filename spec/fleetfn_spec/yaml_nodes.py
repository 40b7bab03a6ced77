"""YAML text as nodes with their places. Values are made from them by walk.py, never by a YAML loader.

Refused by name, since nobody needs them here and each has hurt somebody: tags, anchors, aliases, merge keys, several
documents, nesting without end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from fleetfn_spec.problems import Problem, SpecError

SIZE_LIMIT = 1024 * 1024
"""Bytes of a file: the longest real ones have a few thousand."""

DEPTH_LIMIT = 50
"""Blocks within blocks: the models need ten, `config` what it likes within reason."""

_ODD_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Ends of lines to YAML 1.1, text to 1.2 and to editors: places would be wrong after one."""

REFUSED = "refused"
"""Tag of a node that has been complained about already."""


class _TooDeepError(Exception):
    def __init__(self, mark: Any) -> None:
        super().__init__()
        self.mark = mark


class _Nodes(Reader, Scanner, Parser, Composer, BaseResolver):
    def __init__(self, text: str, file: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self.file = file
        self.problems: list[Problem] = []
        self._depth = 0

    def complain(self, mark: Any, message: str, hint: str) -> None:
        self.problems.append(Problem(self.file, mark.line + 1, mark.column + 1, "", message, hint))

    def document(self) -> yaml.Node | None:
        self.get_event()  # type: ignore[no-untyped-call]  # PyYAML's
        if self.check_event(yaml.StreamEndEvent):
            return None
        node = self.compose_document()
        if not self.check_event(yaml.StreamEndEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's
            self.complain(event.start_mark, "a second document begins here", "keep one document in a file")
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's
        if type(event) is yaml.AliasEvent:
            self.get_event()  # type: ignore[no-untyped-call]  # PyYAML's
            self.complain(event.start_mark, f'the alias "*{event.anchor}" is not taken', "write the value out")
            mark: Any = event.start_mark
            return yaml.ScalarNode(REFUSED, "", mark, mark)
        if event.anchor is not None:
            self.complain(event.start_mark, f'the anchor "&{event.anchor}" is not taken', "write values out")
            event.anchor = None
        if event.tag is not None:
            self.complain(event.start_mark, f'the tag "{event.tag}" is not taken', "write the value alone")
            event.tag = None
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            raise _TooDeepError(event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def read(path: Path) -> str:
    """The text of a YAML file. Raises SpecError."""
    file = str(path)
    try:
        if path.is_dir():
            raise SpecError([Problem(file, 0, 0, "", "is a folder", "write the YAML into a file of this name")])
        with path.open("rb") as stream:
            data = stream.read(SIZE_LIMIT + 1)
    except OSError as exc:
        raise SpecError(
            [Problem(file, 0, 0, "", f"cannot be read: {exc.strerror}", "check its path and mode")]
        ) from exc
    if len(data) > SIZE_LIMIT:
        raise SpecError([Problem(file, 0, 0, "", f"is longer than {SIZE_LIMIT} bytes", "is it the right file?")])
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SpecError([Problem(file, 1, 1, "", "is UTF-16", "save it as UTF-8")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line, column = _place(data[: exc.start].decode(errors="replace"))
        bad = f"the byte 0x{data[exc.start]:02x} is not UTF-8"
        raise SpecError([Problem(file, line, column, "", bad, "save the file as UTF-8")]) from exc


def parse(text: str, file: str) -> tuple[yaml.Node, list[Problem]]:
    """The document's root, and what had to be refused on the way. Raises SpecError where there is no document."""
    if (odd := _ODD_BREAKS.search(text)) is not None:
        raise SpecError([_character(text, odd.start(), file)])
    try:
        nodes = _Nodes(text, file)
        root = nodes.document()
    except ReaderError as exc:
        raise SpecError([_character(text, exc.position, file)]) from exc
    except _TooDeepError as exc:
        bad = f"more than {DEPTH_LIMIT} blocks within one another"
        raise SpecError([Problem(file, exc.mark.line + 1, exc.mark.column + 1, "", bad, "nest less")]) from exc
    except yaml.MarkedYAMLError as exc:
        raise SpecError([*nodes.problems, _syntax(exc, text, file)]) from exc
    if root is None:
        raise SpecError([*nodes.problems, Problem(file, 1, 1, "", "is empty", "begin with apiVersion and kind")])
    return root, nodes.problems


def _character(text: str, position: int, file: str) -> Problem:
    line, column = _place(text[:position])
    bad = f"the character U+{ord(text[position]):04X} may not stand in YAML"
    return Problem(file, line, column, "", bad, "remove it, or write it as an escape in quotes")


def _place(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows this text."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _syntax(exc: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = exc.problem_mark or exc.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    if line < len(lines):
        indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
        if "\t" in indent or lines[line][column : column + 1] == "\t":
            column = indent.index("\t") if "\t" in indent else column
            return Problem(file, line + 1, column + 1, "", "a tab where YAML wants spaces", "indent with spaces")
    said = ", ".join(part for part in (exc.problem, exc.context) if part)
    where = f" that begins in line {exc.context_mark.line + 1}" if exc.context and exc.context_mark else ""
    hint = "check indentation and brackets; text with ': ', ' #' or braces needs quotes"
    return Problem(file, line + 1, column + 1, "", f"not YAML: {said}{where}", hint)
