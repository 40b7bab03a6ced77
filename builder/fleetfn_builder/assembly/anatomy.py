"""Where things lie in an image, whoever built it: names of folders, labels, ports, the user, the command."""

from __future__ import annotations

CODE = "/workspace"
"""The function's folder, read-only."""

DEPENDENCIES = "/layers/fleetfn_python/dependencies"
"""A virtual environment: what requirements.txt asks for, and what FleetFn needs."""

RUNTIME = "/layers/fleetfn_python/runtime"
"""FleetFn itself: a folder for PYTHONPATH."""

SBOM = "/layers/sbom/launch/fleetfn_python/sbom.cdx.json"
"""CycloneDX, of all that the layers above the base hold. Where the CNB lifecycle puts it, too."""

DATA = "/data"
"""Where a volume has to be mounted: state, and the gateway of a lone image."""

ENVIRONMENTS = "/etc/fleetfn/environments.yaml"
"""Where connections may be mounted."""

PYTHON = f"{DEPENDENCIES}/bin/python"

PORT = 8080
"""The user's HTTP triggers, and below /-/ health, readiness and metrics."""

USER = 65532
"""User and group id: nobody's account, as in distroless images."""

ENVIRONMENT = {
    "PYTHONPATH": RUNTIME,
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",
}

COMMAND = [
    PYTHON,
    "-m",
    "fleetfn_runtime",
    *("--folder", CODE),
    *("--volume", DATA),
    *("--environments", ENVIRONMENTS),
    *("--host", "0.0.0.0"),  # noqa: S104 - of its container: which addresses are open says who runs it
    *("--port", str(PORT)),
]
"""Needs no shell."""

REVISION = "FLEETFN_REVISION"
"""Environment variable of the image: the revision, for logs and dead letters."""

LABEL_FUNCTION = "dev.fleetfn.function"
LABEL_REVISION = "dev.fleetfn.revision"
"""64 hex digits: the digest that a node gives the same folder."""
LABEL_SOURCE = "dev.fleetfn.source"
"""64 hex digits over the files alone."""
LABEL_VERSION = "dev.fleetfn.version"
"""FleetFn's version."""
LABEL_INPUTS = "dev.fleetfn.inputs"
"""64 hex digits over everything that a build depends on: an image that has them is the image of this build."""
LABEL_BUILDER = "dev.fleetfn.builder"
"""`direct` or `buildpacks`."""
