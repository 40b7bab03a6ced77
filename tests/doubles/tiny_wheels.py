"""Wheels and source distributions of a few bytes, for installers that work without an index."""

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path


def wheel(folder, name, version="1.0", *, files=None, requires=(), tag="py3-none-any", scripts=(), metadata=""):
    """Path of a wheel. `files`: path -> text; `scripts`: names of console scripts."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    content = dict(files if files is not None else {f"{name}/__init__.py": f"VERSION = {version!r}\n"})
    needed = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}{metadata}"
    content[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: tiny\nRoot-Is-Purelib: true\nTag: {tag}\n"
    if scripts:
        content[f"{info}/entry_points.txt"] = "[console_scripts]\n" + "".join(
            f"{each}={name}:main\n" for each in scripts
        )
    content[f"{info}/RECORD"] = "".join(map(_row, content.items())) + f"{info}/RECORD,,\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for each, text in content.items():
            packed.writestr(each, text)
    return path


def sdist(folder, name, version="1.0", *, backend):
    """A source distribution with a build backend of its own, so that building needs nothing from an index. `backend`:
    the module's text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend,
        "tiny_wheels.py": Path(__file__).read_text(),
    }
    with tarfile.open(path, "w:gz") as packed:
        for each, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{each}")
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return path


def _row(item):
    name, text = item
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(text.encode())}\n"
