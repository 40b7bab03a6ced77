"""Knative's func-python: its CloudEvents middleware, which brings its own server (hypercorn)."""

from frames import KINDS, seen
from func_python.cloudevent import serve

START = {"type": "http.response.start", "status": 200, "headers": [[b"content-type", b"application/json"]]}


async def handle(scope, receive, send):  # noqa: ANN001, ANN201, ARG001 - ASGI
    event = scope["event"]
    reply = seen(KINDS[event["type"]].model_validate(event.data)).model_dump_json().encode()
    await send.http(START)  # a plain reply, as the others give: a CloudEvent would take longer
    await send.http({"type": "http.response.body", "body": reply})


serve(handle)
