"""functions-framework, its CloudEvent signature: the reply is always `OK`."""

import functions_framework
from frames import KINDS, seen


@functions_framework.cloud_event
def handle(event):  # noqa: ANN001, ANN201 - as its own samples
    seen(KINDS[event["type"]].model_validate(event.data))
