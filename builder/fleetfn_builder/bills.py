"""The bill of materials of a finished image, read out of the layer that holds it."""

from __future__ import annotations

import tarfile
from typing import IO

from fleetfn_builder.assembly import anatomy

MEDIA_TYPE = "application/vnd.cyclonedx+json"


def inside(layer: IO[bytes]) -> bytes:
    """Of a tar, gzipped or not; empty where there is none. It is read to its end, where a damaged one shows."""
    bill = b""
    with tarfile.open(fileobj=layer, mode="r|*") as tar:
        for member in tar:
            if member.name.lstrip("./") == anatomy.SBOM.lstrip("/") and (found := tar.extractfile(member)):
                bill = found.read()
    return bill
