"""Images as they stand somewhere, unpacked: what a test looks at."""

import gzip
import io
import tarfile
from dataclasses import dataclass

from fleetfn_builder import images
from fleetfn_builder.images import Config, Index, Manifest


@dataclass(frozen=True)
class Seen:
    """An image as it stands under a tag, of one platform."""

    digest: str
    """Of the manifest, or of the index."""
    manifest: Manifest
    config: Config
    raw_config: bytes
    contents: dict
    """digest of a layer -> its files: path -> bytes, a link's target, or None for a folder."""
    modes: dict
    """path -> mode, of all files."""

    def files(self):
        return {path: what for layer in self.manifest.layers for path, what in self.contents[layer.digest].items()}


def look(store, descriptor, architecture="amd64"):
    top = descriptor.digest
    if descriptor.is_index:
        index = images.decode(store.read(descriptor), Index, "index")
        descriptor = next(each for each in index.manifests if each.platform.architecture == architecture)
    manifest = images.decode(store.read(descriptor), Manifest, "manifest")
    raw = store.read(manifest.config)
    config = images.decode(raw, Config, "config")
    contents, modes = {}, {}
    for layer, diff_id in zip(manifest.layers, config.rootfs.diff_ids, strict=True):
        with store.open(layer) as blob:
            zipped = blob.read()
        plain = gzip.decompress(zipped)
        assert images.digest_of(plain) == diff_id
        contents[layer.digest] = _unpacked(plain, modes)
    return Seen(top, manifest, config, raw, contents, modes)


def _unpacked(plain, modes):
    found = {}
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for member in tar:
            path = "/" + member.name.lstrip("/")  # not all write relative names
            modes[path] = (member.mode, member.uid, member.gid)
            content = tar.extractfile(member) if member.isfile() else None
            found[path] = content.read() if content else member.linkname or None
    return found
