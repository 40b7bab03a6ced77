"""The bill of materials of an image: CycloneDX 1.5 JSON (https://cyclonedx.org/docs/1.5/json/).

It lists what is installed, read from where it is installed, and nothing else. Equal contents give equal bytes: no time
is in it, and its serial number follows from the rest.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any
from urllib.parse import quote

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://fleetfn.dev/sbom")

Component = Mapping[str, Any]

_SPDX = {
    "Apache Software License": "Apache-2.0",
    "BSD License": None,  # which of them is not said
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
}
"""Classifiers that mean one licence of the SPDX list."""


@dataclass(frozen=True)
class Base:
    """The image below."""

    name: str
    digest: str
    """`sha256:...`"""


def bill(
    function: str, *, installed: Iterable[Path], base: Base | None = None, packages: Iterable[Component] = ()
) -> bytes:
    """JSON, UTF-8. `installed`: folders with dist-infos. `packages`: what the base brings, see `package`.

    It names no revision: an edit of the code would change it, and the layer that holds it.
    """
    python = [each for folder in installed for each in python_packages(folder)]
    below = [_container(base)] if base is not None else []
    components = sorted({_key(each): each for each in (*python, *below, *packages)}.items())
    return _document(function, [each for _, each in components])


def python_packages(folder: Path) -> Iterator[Component]:
    """One for each distribution that is installed there."""
    for metadata in sorted(folder.glob("*.dist-info/METADATA")):
        yield _python(Parser().parsestr(metadata.read_text("utf-8", errors="replace"), headersonly=True))


def package(kind: str, name: str, version: str, architecture: str = "") -> Component:
    """`kind`: `deb`, `apk` or `pypi`, as package URLs name it."""
    spaces = {"deb": "deb/debian", "apk": "apk/alpine"}
    named = re.sub(r"[-_.]+", "-", name).lower() if kind == "pypi" else name
    purl = f"pkg:{spaces.get(kind, kind)}/{quote(named, safe='')}@{quote(version, safe='')}"
    if architecture:
        purl += f"?arch={architecture}"
    return {"bom-ref": purl, "type": "library", "name": name, "version": version, "purl": purl}


def _key(component: Component) -> str:
    return str(component["bom-ref"])


def _document(function: str, components: Sequence[Component]) -> bytes:
    of = f"function:{function}"
    document: dict[str, Any] = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"bom-ref": of, "type": "application", "name": function}},
        "components": components,
        "dependencies": [
            {"ref": of, "dependsOn": [each["bom-ref"] for each in components]},
            *({"ref": each["bom-ref"]} for each in components),
        ],
    }
    serial = uuid.uuid5(_NAMESPACE, json.dumps(document, sort_keys=True))
    document["serialNumber"] = f"urn:uuid:{serial}"
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _python(metadata: Message) -> Component:
    licenses = _licenses(metadata)
    component = package("pypi", metadata["Name"], metadata["Version"])
    return {**component, "licenses": licenses} if licenses else component


def _licenses(metadata: Message) -> list[Any]:
    """By its expression; else by its classifiers; else by what it calls itself, where that is a name and no text."""
    if metadata["License-Expression"]:
        return [{"expression": metadata["License-Expression"].strip()}]
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    named = sorted({each for each in classifiers if each != "OSI Approved"})
    if named:
        return [{"license": {"id": _SPDX[each]} if _SPDX.get(each) else {"name": each}} for each in named]
    own = (metadata["License"] or "").strip()
    return [{"license": {"name": own}}] if own and "\n" not in own and own != "UNKNOWN" else []


def _container(base: Base) -> Component:
    ref = f"container:{base.name}@{base.digest}"
    algorithm, _, digest = base.digest.partition(":")
    hashes = [{"alg": "SHA-256", "content": digest}] if algorithm == "sha256" else []
    return {"bom-ref": ref, "type": "container", "name": base.name, "version": base.digest, "hashes": hashes}
