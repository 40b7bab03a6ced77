"""A container image from files, without a container engine: the same files make the same bytes.

    python3 image.py NAME OUT.tar [--user UID] [--folder PATH]... [SOURCE:DESTINATION]... [-- ENTRYPOINT...]

`ctr images import` and `docker load` read the archive. It has one layer, whose entries are root's and have time 0.
"""

import argparse
import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path


def layer_of(files: list[str], folders: list[str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for folder in folders:  # anybody may write to them
            entry = tarfile.TarInfo(folder.strip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            layer.addfile(entry)
        for file in files:
            source, _, destination = file.partition(":")
            data = Path(source).read_bytes()
            entry = tarfile.TarInfo(destination.strip("/"))
            entry.size, entry.mode = len(data), 0o755
            layer.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def image(name: str, layer: bytes, user: str, entrypoint: list[str], out: Path) -> None:
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "User": user, "Entrypoint": entrypoint or None},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(out, "w") as archive:
        parts = {config_name: config, "manifest.json": json.dumps(manifest).encode(), "layer.tar": layer}
        for path, data in parts.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def main() -> None:
    arguments, entrypoint = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, entrypoint = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("out", type=Path)
    parser.add_argument("--user", default="")
    parser.add_argument("--folder", action="append", default=[])
    parser.add_argument("files", nargs="*")
    asked = parser.parse_intermixed_args(arguments)
    image(asked.name, layer_of(asked.files, asked.folder), asked.user, entrypoint, asked.out)


if __name__ == "__main__":
    main()
