"""Reference page of `fn`, generated from its commands:
`python -m fleetfn_cli.reference [folder]` writes into `docs/reference` of the working directory.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from fleetfn_cli.app import tree

PAGE = "fn.md"

_OPENING = """# fn

Results go to stdout, steps and remarks to stderr. Exit code: 0 done, 1 failed, 2 wrong usage. A traceback is shown only
with `--debug`. `fn COMMAND --help` says the same as this page.
"""

_VARIABLES = """Every option has a variable, for a shell or a CI job to set once; an option given on the line wins.
`FN_DATA` names the node's data folder for all commands: then they find the node of that folder and no other.
(`fn dev` has its own.)
"""

_EXAMPLES = "Examples:\n"

_WORDS = {
    "str": "TEXT",
    "int": "NUMBER",
    "int range": "NUMBER",
    "float": "NUMBER",
    "path": "PATH",
    "file": "FILE",
    "directory": "FOLDER",
}
"""What stands for a value of a type, as typer names types."""


def page() -> str:
    """The whole page, Markdown."""
    root = typer.main.get_command(tree())
    parts = [_OPENING, _table(["option", "", "variable"], _shared(root)), _VARIABLES]
    parts += ["\n".join(_command(path, command)) for path, command in commands(root)]
    return "\n".join(parts)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command with its words: (`dlq`, `show`)."""
    root: Any = group or typer.main.get_command(tree())
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: Any) -> Iterator[str]:
    yield f"## fn {' '.join(path)}\n"
    yield _flat(command.help) + "\n"
    own = [each for each in command.params if not _is_shared(each)]
    if own:
        yield _table(["", "", "variable"], (_row(path, each) for each in own))
    shared = [f"`{_flags(each)}`" for each in command.params if _is_shared(each)]
    yield f"Also {', '.join(shared)}.\n"
    yield "```sh"
    yield from (line.strip() for line in command.epilog.partition(_EXAMPLES)[2].splitlines())
    yield "```\n"


def _shared(root: Any) -> Iterator[list[str]]:
    for each in root.params:
        if _is_shared(each):
            text, _, variable = _flat(each.help).rpartition(" (")
            yield [f"`{_flags(each)} {_value(each)}".rstrip() + "`", f"{text}.", f"`{variable.rstrip(').')}`"]


def _is_shared(parameter: Any) -> bool:
    """`-n`, `-o`, `-q`, `--debug`: their help names their variable."""
    return parameter.param_type_name == "option" and not parameter.show_envvar


def _row(path: tuple[str, ...], parameter: Any) -> list[str]:
    about = _flat(parameter.help) + _default(parameter)
    if parameter.param_type_name == "argument":
        name = parameter.metavar or (parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]")
        return [f"`{name}`", about, ""]
    variable = parameter.envvar or "_".join(("FN", *path, parameter.name)).upper()
    return [f"`{_flags(parameter)} {_value(parameter)}".rstrip() + "`", about, f"`{variable}`"]


def _flags(parameter: Any) -> str:
    names = sorted((*parameter.opts, *parameter.secondary_opts), key=lambda name: len(name) - len(name.lstrip("-")))
    return ", ".join(names)


def _value(parameter: Any) -> str:
    """What follows the option."""
    type_ = parameter.type
    if parameter.is_flag:
        return ""
    if parameter.metavar:
        return str(parameter.metavar)
    if hasattr(type_, "choices"):
        return "|".join(type_.choices)
    return _WORDS[type_.name]


def _default(parameter: Any) -> str:
    shown, default = parameter.show_default, parameter.default
    if isinstance(shown, str):
        return f" Default: {shown}."
    if shown and default not in (None, False, True) and not callable(default):
        return f" Default: {default}."
    return ""


def _table(header: list[str], rows: Iterator[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _flat(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
