"""What a requirements.txt asks for, as far as it decides what is installed: the same lines, the same dependencies."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from fleetfn_plumbing import source

from fleetfn_builder.builder import BuildError

FILE = "requirements.txt"

_INCLUDED = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(\S+)$")
_BEFORE = re.compile(
    r"^(?:(?:-e|--editable|-f|--find-links)[\s=]*)?(?:[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*@\s*)?(?:file:(?://)?)?"
)
"""What may stand before a path: `tyres[fast] @ file:///...`."""
_EXTRAS = re.compile(r"\[[^\]]*\]$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_PINNED = re.compile(r"===?\s*[^*,\s]+(?:\s|;|$)|\s@\s|--hash")


def normalised(path: Path, within: tuple[Path, ...] = ()) -> list[str]:
    """Lines without comments and blanks, those of included files and digests of local files and folders among them;
    none where there is no such file. `within`: the files that include this one. Raises BuildError.
    """
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        if not within:
            return []
        raise BuildError(
            f"{within[-1].name} includes {path.name!r}, which is not there", hint=f"Add {path}, or take the line out."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{path.name} cannot be read: {error}", hint="It is UTF-8 text.") from error
    if path.resolve() in within:
        raise BuildError(f"{path.name} includes itself", hint="Take the line out that closes the circle.")
    around = (*within, path.resolve())
    joined = re.sub(r"\\\r?\n", " ", text)
    lines = (" ".join(_COMMENT.sub("", line).split()) for line in joined.splitlines())
    return [each for line in lines if line for each in (line, *_behind(line, path.parent, around))]


def are_pinned(lines: list[str]) -> bool:
    """Does every line name one version, or one file? Then resolving anew changes nothing but what they ask for."""
    return all(line.startswith("-") or _PINNED.search(line) or _is_digest(line) or "/" in line for line in lines)


def _behind(line: str, folder: Path, within: tuple[Path, ...]) -> list[str]:
    """What a line stands for beyond its own words."""
    if included := _INCLUDED.match(line):
        return [] if "://" in included[1] else normalised(folder / included[1], within)
    named = _EXTRAS.sub("", _BEFORE.sub("", line.partition(";")[0].partition(" --")[0]).partition("#")[0].strip())
    local = folder / unquote(named)
    if local.is_dir() and ("/" in named or named in {".", ".."} or line.startswith("-")):
        return [source.digest(local, source.files(local))]
    return [source.digest(local.parent, [Path(local.name)])] if local.is_file() else []


def _is_digest(line: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{64}", line) is not None
