"""The image of a cluster's gateway: FleetFn with the libraries that its gateway needs, around an idle function.

Every function's image holds the gateway's code. What it lacks are libraries, so the gateway's is an image like those,
and whoever runs it names the gateway's program instead of the worker's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
from fleetfn_spec.function import Function

from fleetfn_builder.assembly import anatomy

EXTRAS = frozenset({"http", "scaler"})
"""Its calls to the API server, and what KEDA asks it."""

COMMAND = [anatomy.PYTHON, "-m", "fleetfn_gateway.cluster"]

_HANDLER = '"""Nobody calls it: this image is run by the gateway\'s program."""\n\n\ndef nothing() -> None: ...\n'


@contextlib.contextmanager
def source(name: str) -> Iterator[tuple[Path, Function]]:
    """A folder to build from, gone afterwards, and its function."""
    described = {
        "apiVersion": "fleetfn.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"handler": "handler:nothing", "triggers": [{"name": "nobody", "http": {"path": f"/{name}"}}]},
    }
    with tempfile.TemporaryDirectory(prefix="fleetfn-gateway-") as text:
        folder = Path(text)
        (folder / "function.yaml").write_bytes(msgspec.json.encode(described) + b"\n")
        (folder / "handler.py").write_text(_HANDLER)
        yield folder, msgspec.convert(described, Function)
