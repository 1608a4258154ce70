"""POST /predict: image files as they are, one as the body or several as a form.

curl --data-binary @photo.png -H 'Content-Type: image/png' http://127.0.0.1:8080/predict
curl -F image=@a.png -F image=@b.jpg http://127.0.0.1:8080/predict
"""

from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import Response

from flows.serving.asking import Server, left_out
from flows.serving.replies import RefusedError, answer
from lmeraser.serve.live import Prediction

RAW = ("image/", "application/octet-stream")
FORM = "multipart/form-data"
EXPECTED = f"expected content-type image/png, image/jpeg, image/webp or application/octet-stream, or {FORM}"
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            FORM: {"schema": {"type": "object", "additionalProperties": {"type": "string", "format": "binary"}}},
        },
    }
}


def _best(labels: list[str], probabilities: NDArray[np.float64], weight: float) -> dict[str, Any]:
    """Of one half; nothing where it is left out."""
    if not weight:
        return {"label": None, "probability": 0.0, "weight": 0.0}
    best = int(probabilities.argmax())
    return {"label": labels[best], "probability": float(probabilities[best]), "weight": weight}


def response_of(prediction: Prediction) -> dict[str, Any]:
    """As `lmeraser predict --json` has it, in the order of the files, whose names are not repeated."""
    parts = prediction.parts
    predictions = [
        {
            "label": label,
            "probability": float(prediction.probabilities[row].max()),
            "clusters": _best(parts.labels, parts.clusters[row], parts.weight),
            "global_head": _best(parts.labels, parts.global_head[row], 1 - parts.weight),
        }
        for row, label in enumerate(prediction.labels)
    ]
    return {"model_version": parts.model_version, "left_out": left_out(parts.left_out), "predictions": predictions}


async def _files(request: Request, server: Server) -> list[bytes]:
    """The bytes of each file, in order. Raises: RefusedError."""
    kind = request.headers.get("content-type", "").strip().lower()
    if kind.startswith(RAW):
        return [await request.body()]
    if not kind.startswith(FORM):
        raise RefusedError(415, EXPECTED)
    parser = MultiPartParser(
        request.headers, request.stream(), max_files=server.limits.images, max_fields=0, max_part_size=server.limits.body
    )
    parser.spool_max_size = server.limits.body  # in memory: no pixel goes to a temporary file
    try:
        form = await parser.parse()
    except MultiPartException as error:
        line = f"the form cannot be read; expected 1 to {server.limits.images} files and nothing else"
        raise RefusedError(400, line) from error
    files = [await upload.read() for _, upload in form.multi_items() if isinstance(upload, UploadFile)]
    await form.close()
    if not files:
        raise RefusedError(400, "no image was sent; send at least one file")
    return files


def make_router(server: Server) -> APIRouter:
    router = APIRouter(tags=["image files"])

    @router.post("/predict", openapi_extra=BODY)
    async def predict(request: Request) -> Response:
        files = await _files(request, server)
        return await server.pool.run(lambda: answer(response_of(server.predict(files))))

    return router
