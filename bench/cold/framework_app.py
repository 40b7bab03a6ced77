"""functions-framework: as little as our own handler does."""

import functions_framework


@functions_framework.http
def answer(request):  # noqa: ANN001, ANN201 - as its own samples
    return {"vehicle": request.get_json()["vehicle"]}
