"""What tells uv, beside requirements.txt, which versions it takes and how they are built: variables, and files of uv's
own (uv.toml, pyproject.toml), which it looks for in the folder, above it and in its user's settings.

Where it gets them from is none of it: an index's mirror, a folder of wheels and a cache have the same files. And the
URL of an index may hold a password, of which no digest is to be made.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLES = (
    *("UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_FORK_STRATEGY"),
    *("UV_INDEX_STRATEGY", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_NO_BUILD", "UV_NO_BUILD_ISOLATION"),
    *("UV_NO_BUILD_PACKAGE", "UV_NO_SOURCES", "UV_ONLY_BINARY", "UV_OVERRIDE", "UV_PRERELEASE", "UV_REQUIRE_HASHES"),
    *("UV_RESOLUTION", "UV_TORCH_BACKEND"),
)
_OF_FILES = ("UV_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_EXCLUDE", "UV_OVERRIDE")
"""Of these the ones that name files, a blank between them."""

_KEYS = frozenset(
    {
        *("build-constraint-dependencies", "config-settings", "config-settings-package", "constraint-dependencies"),
        *("dependency-metadata", "exclude-dependencies", "exclude-newer", "exclude-newer-package"),
        *("extra-build-dependencies", "extra-build-variables", "fork-strategy", "index-strategy", "no-binary"),
        *("no-binary-package", "no-build", "no-build-isolation", "no-build-isolation-package", "no-build-package"),
        *("no-deps", "no-sources", "no-sources-package", "only-binary", "override-dependencies", "prerelease"),
        *("require-hashes", "resolution", "sources", "torch-backend"),
    }
)
"""Of uv's own files, at their top and in `pip`."""


def settings(folder: Path, env: Mapping[str, str]) -> list[object]:
    """As JSON can write it; empty where nobody has said anything. `folder`: where uv works; `env`: what it is given."""
    found: list[object] = [[name, env[name]] for name in VARIABLES if name in env]
    named = [each for name in _OF_FILES for each in env.get(name, "").split()]
    found += [path.read_text("utf-8", "replace") for each in named if (path := folder / each).is_file()]
    return [*found, *(kept for one in _files(folder.resolve(), env) if (kept := _kept(one)))]


def _files(folder: Path, env: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    """The nearest, the user's and the machine's, in uv's order."""
    if named := env.get("UV_CONFIG_FILE"):
        yield _read(folder / named)
        return
    if env.get("UV_NO_CONFIG", "").lower() in {"1", "true"}:
        return
    for each in (folder, *folder.parents):
        if (each / "uv.toml").is_file():
            yield _read(each / "uv.toml")
            break
        if of_tool := _read(each / "pyproject.toml").get("tool", {}).get("uv"):
            yield of_tool
            break
    home = env.get("XDG_CONFIG_HOME") or (f"{env['HOME']}/.config" if env.get("HOME") else "")
    for each in (*([Path(home)] if home else []), Path("/etc/xdg"), Path("/etc")):
        yield _read(each / "uv" / "uv.toml")


def _read(path: Path) -> Mapping[str, Any]:
    """Empty where it is not there; of one that does not read uv says so."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _kept(told: Mapping[str, Any]) -> dict[str, str]:
    both = {**told, **{f"pip.{name}": value for name, value in dict(told.get("pip", {})).items()}}
    return {name: repr(value) for name, value in sorted(both.items()) if name.removeprefix("pip.") in _KEYS}
