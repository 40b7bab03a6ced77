"""The floor: an ASGI app that reads the body and answers the same few bytes, whatever came."""

REPLY = b'{"vehicle":"4111928-1","hottest":24.0}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(REPLY)).encode())],
}
BODY = {"type": "http.response.body", "body": REPLY}


async def app(scope, receive, send):  # noqa: ANN001, ANN201, ARG001 - ASGI
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(BODY)
