"""The http outputs of a worker, all with one publisher. Imported only where there are some."""

from __future__ import annotations

import os

from fleetfn_spec import secrets
from fleetfn_triggers.secret import Secret

from fleetfn_runtime.http_output import HttpPublisher
from fleetfn_runtime.publisher import Publisher
from fleetfn_runtime.settings import Settings


def publishers(settings: Settings) -> dict[str, Publisher]:
    """By output. Raises FleetError for a secret that is not there."""
    outputs = {output.name: output.http for output in settings.function.spec.outputs if output.http is not None}

    def resolve(reference: Secret) -> str:
        return secrets.resolve(reference, os.environ, settings.source)

    return dict.fromkeys(outputs, HttpPublisher(outputs, resolve=resolve))
