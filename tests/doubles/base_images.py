"""Base images that are a few bytes: names where a real one has an interpreter, a C library, lists of packages."""

import gzip
import io
import tarfile

from fleetfn_builder import images

DPKG = """\
Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u10

Package: python3.11-minimal
Status: install ok installed
Version: 3.11.2-6+deb12u5

Package: gone
Status: deinstall ok config-files
Version: 1.0
"""

FILES = {
    "usr/bin/python3.11": b"\x7fELF /lib64/ld-linux-x86-64.so.2",
    "usr/bin/python3": "python3.11",
    "bin": "usr/bin",
    "usr/lib/python3.11/os.py": b"",
    "lib/x86_64-linux-gnu/libc.so.6": b"",
    "var/lib/dpkg/status": DPKG.encode(),
}
"""What a Debian base has: bytes are a file's content, text is where a link leads, None is a folder."""


def tarred(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, what in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(what, bytes):
                member.size, member.mode = len(what), 0o755
                tar.addfile(member, io.BytesIO(what))
                continue
            member.type = tarfile.DIRTYPE if what is None else tarfile.SYMTYPE
            member.linkname = what or ""
            tar.addfile(member)
    return packed.getvalue()


def leave(store, *layers, version="latest", architecture="amd64", env=(), platforms=None, **process):
    """An image of these layers (mappings as FILES) in a store; its descriptor."""
    if platforms is not None:
        manifests = []
        for each in platforms:
            made = leave(store, *layers, version="", architecture=each, env=env, **process)
            manifests.append(
                images.Descriptor(
                    made.media_type, made.digest, made.size, platform=images.PlatformOf(architecture=each, os="linux")
                )
            )
        return store.tag(images.canonical(images.Index(manifests=manifests)), images.INDEX, [version])
    described, diff_ids = [], []
    for files in layers or (FILES,):
        plain = tarred(files)
        zipped = gzip.compress(plain, mtime=0)
        described.append(images.describe(zipped, images.LAYER))
        diff_ids.append(images.digest_of(plain))
        store.put(described[-1], lambda zipped=zipped: io.BytesIO(zipped))
    config = images.canonical(
        images.Config(
            architecture=architecture,
            os="linux",
            rootfs=images.RootFs(diff_ids=diff_ids),
            config=images.Process(env=["PATH=/usr/local/bin:/usr/bin:/bin", *env], **process),
        )
    )
    store.put(images.describe(config, images.CONFIG), lambda: io.BytesIO(config))
    manifest = images.Manifest(config=images.describe(config, images.CONFIG), layers=described)
    return store.tag(images.canonical(manifest), images.MANIFEST, [version] if version else [])
