"""Fenced blocks of our Markdown pages, and loose comparing of the outputs they show."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

_MASKS = [
    (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "<clock>"),
    (r"\b\d+(\.\d+)? ?(ms|s|min|h|d)\b", "<duration>"),
    (r"\b[0-9a-f]{12}\b", "<digest>"),
    (r"\bdev-[0-9a-f]{6}\b", "<dev node>"),
    (r"\b(pid|worker) \d+", r"\1 <number>"),
    (r"127\.0\.0\.1:\d+", "<address>"),
    (r"[ \t]+", " "),
]


@dataclass(frozen=True, slots=True)
class Block:
    """`language`: sh, text, python, yaml ...; `note`: what follows it in the opening line."""

    language: str
    note: str
    text: str
    line: int


def blocks(page, *, section=None):
    """All of a page, or of its section with this heading."""
    whole = (ROOT / page).read_text("utf-8")
    begin = 0 if section is None else whole.index(f"## {section}\n")
    end = len(whole) if section is None else whole.find("\n## ", begin) % (len(whole) + 1)
    for found in _FENCE.finditer(whole, begin, end):
        language, _, note = found["info"].partition(" ")
        yield Block(language, note, found["text"], whole.count("\n", 0, found.start()) + 1)


def masked(text, places):
    """Without what differs from run to run. `places`: actual paths and what pages call them."""
    for actual, shown in places.items():
        text = text.replace(str(actual), shown)
    for pattern, token in _MASKS:
        text = re.sub(pattern, token, text)
    return "".join(line.strip() + "\n" for line in text.strip().splitlines())


def expected(block, places):
    """A pattern of the output that a block shows: `...` in a line is any text, a line of it any lines."""
    return "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in masked(block.text, places).splitlines()
    )
