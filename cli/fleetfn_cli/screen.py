"""What a command says: the result on stdout, all else (steps, hints, warnings) on stderr; colour only on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO

import msgspec

if TYPE_CHECKING:
    from rich.console import Console

Output = Literal["table", "json", "yaml"]

COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36", "bold": "1", "dim": "2"}


class Steps(Protocol):
    """Steps of something that takes a while."""

    def __call__(self, text: str) -> None:
        """A step begins; the one before it is done."""
        ...


class Screen:
    def __init__(
        self, output: Output = "table", *, quiet: bool = False, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.output = output
        self.quiet = quiet
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._spinning: Console | None = None
        self.is_terminal = _is_terminal(self.err)
        self._out_colour = _is_terminal(self.out) and "NO_COLOR" not in os.environ
        self._err_colour = self.is_terminal and "NO_COLOR" not in os.environ

    def result(self, value: Any, table: Callable[[], str]) -> None:
        """The result: `value` as JSON or YAML, or what `table` makes for people."""
        if self.output == "table":
            self.line(table())
        else:
            self.out.write(self.encode(value))
            self.out.flush()

    def stream(self, value: Any) -> None:
        """One of many results: a JSON line, or a YAML document."""
        text = msgspec.json.encode(value).decode() + "\n" if self.output == "json" else "---\n" + self.encode(value)
        self.out.write(text)
        self.out.flush()

    def encode(self, value: Any) -> str:
        plain = msgspec.to_builtins(value)
        if self.output == "yaml":
            import yaml

            return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
        return msgspec.json.format(msgspec.json.encode(plain), indent=2).decode() + "\n"

    def line(self, text: str) -> None:
        """People's form of a result."""
        self._put(self.out, text.rstrip("\n"))

    def say(self, text: str = "") -> None:
        """A step or a remark. Not said with --quiet."""
        if not self.quiet:
            self._put(self.err, text)

    def warn(self, text: str) -> None:
        self._put(self.err, self._paint(self._err_colour, "Warning: ", "yellow") + text)

    def next_steps(self, *steps: tuple[str, str]) -> None:
        """Commands to try, each with what it does."""
        if self.quiet:
            return
        width = max(len(command) for command, _ in steps)
        self.say("\nNext:")
        for command, what in steps:
            self.say(f"  {command.ljust(width)}  {self.dim('# ' + what, err=True)}" if what else f"  {command}")

    def paint(self, text: str, colour: str) -> str:
        return self._paint(self._out_colour, text, colour)

    def dim(self, text: str, *, err: bool = False) -> str:
        return self._paint(self._err_colour if err else self._out_colour, text, "dim")

    @contextmanager
    def steps(self, text: str = "", *, keep: bool = True) -> Iterator[Steps]:
        """A spinner with the current step on a terminal, plain lines otherwise. `keep`: done steps stay to be read."""
        if self.quiet or not self.is_terminal:
            if text:
                self.say(text)
            yield self.say
            return
        from rich.console import Console

        console = Console(file=self.err, highlight=False)
        with self._above(console), console.status(f"{text} ..." if text else "", spinner="dots") as status:
            current = text

            def step(text: str) -> None:
                nonlocal current
                if current and keep:
                    console.print(f"  {current}", style="dim", markup=False)
                current = text
                status.update(_escaped(text) + " ...")

            yield step
            if current and keep:
                console.print(f"  {current}", style="dim", markup=False)

    @contextmanager
    def _above(self, console: Console) -> Iterator[None]:
        """While a spinner turns, other lines go above it."""
        before, self._spinning = self._spinning, console
        try:
            yield
        finally:
            self._spinning = before

    def _put(self, stream: TextIO, text: str) -> None:
        if self._spinning is not None and _is_terminal(stream):
            from rich.text import Text

            self._spinning.print(Text.from_ansi(text), soft_wrap=True)
            return
        stream.write(text + "\n")
        stream.flush()

    @staticmethod
    def _paint(on: bool, text: str, colour: str) -> str:  # noqa: FBT001 - reads well where it is called
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if on and text else text


def rows(header: Iterable[str], lines: Iterable[Iterable[str]], *, indent: str = "") -> str:
    """Columns as wide as their longest cell, two spaces apart; the last one is left as it is."""
    table = [tuple(header), *(tuple(line) for line in lines)]
    if not any(table[0]):
        table = table[1:]
    if not table:
        return ""
    widths = [max(width(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        indent
        + "  ".join(cell + " " * (widest - width(cell)) for cell, widest in zip(row, widths, strict=True)).rstrip()
        for row in table
    )


def counted(count: int, noun: str) -> str:
    """`1 cold start`, `2 cold starts`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def width(text: str) -> int:
    """Columns that a text takes on a terminal: without colours; Chinese characters take two."""
    if text.isascii() and "\x1b" not in text:
        return len(text)
    import re
    import unicodedata

    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in bare)


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"
