"""The Open Inference Protocol, version 2 (REST): https://github.com/kserve/open-inference-protocol

    POST /v2/models/NAME/infer
    {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0, 255, ...]}]}

Instead of pixels also image files: datatype BYTES, shape [n], each in base64. `outputs` chooses what comes back. One version is
served at a time, the present one: any other is refused, and one from before an erasure is never the present one again.
"""

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from starlette.responses import Response

from flows.serving.asking import Server, left_out
from flows.serving.replies import RefusedError, answer, refusal
from lmeraser import __version__
from lmeraser.core.strict_json import strict_json
from lmeraser.serve.live import Prediction
from lmeraser.serve.loading import Loaded

INPUT = "images"
DEFAULT = ("label", "probabilities")
MOST_DIMENSIONS = 4
Images = NDArray[np.uint8] | list[bytes]


def inputs_of() -> list[dict[str, Any]]:
    return [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, -1]}]


def outputs_of(k: int) -> dict[str, tuple[str, list[int]]]:
    """Name of each output to datatype and shape; -1: a row an image. Args: k: labels."""
    return {
        "label": ("BYTES", [-1]),
        "probabilities": ("FP64", [-1, k]),
        "labels": ("BYTES", [k]),
        "clusters": ("FP64", [-1, k]),
        "global_head": ("FP64", [-1, k]),
        "nearest": ("BYTES", [-1]),
    }


def parse(body: bytes, most: int) -> tuple[Images, tuple[str, ...], str | None]:
    """The images of a request, the outputs that it asks for, and its id. Args: most: images.

    Raises: RefusedError with a line that repeats nothing of the body.
    """
    try:
        request = strict_json(body)
    except ValueError as error:
        raise RefusedError(400, "the body is not JSON; expected an inference request with inputs") from error
    if not isinstance(request, dict):
        raise RefusedError(400, "the body is no JSON object; expected an inference request with inputs")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RefusedError(400, f"inputs must be a list of one tensor, named {INPUT}")
    request_id = request.get("id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= 200 and request_id.isprintable()):
        raise RefusedError(400, "id must be a text of at most 200 printable characters")
    return _images_of(inputs[0], most), _chosen(request.get("outputs")), request_id


def _chosen(outputs: Any) -> tuple[str, ...]:
    if outputs is None:
        return DEFAULT
    names = [output.get("name") if isinstance(output, dict) else None for output in outputs] if isinstance(outputs, list) else []
    known = outputs_of(0)
    if not names or not all(isinstance(name, str) and name in known for name in names):
        raise RefusedError(400, f"outputs must be a list of objects with the names {', '.join(known)}")
    return tuple(dict.fromkeys(map(str, names)))


def _images_of(tensor: dict[str, Any], most: int) -> Images:
    if tensor.get("name") != INPUT:
        raise RefusedError(400, f"the input's name must be {INPUT}")
    shape, data = tensor.get("shape"), tensor.get("data")
    if not (isinstance(shape, list) and isinstance(data, list) and _is_shape(shape)):
        raise RefusedError(400, "a tensor needs a shape of one to four whole numbers, and its data as a list")
    if not 0 < shape[0] <= most:
        raise RefusedError(400, f"the shape's first number is the number of images: expected 1 to {most}")
    if tensor.get("datatype") == "BYTES":
        return _files(shape, data)
    if tensor.get("datatype") != "UINT8" or len(shape) < 3:
        raise RefusedError(
            400, "expected datatype UINT8 of shape [n, height, width] or [n, height, width, 1 or 3], or BYTES of [n]"
        )
    return _array(shape, data)


def _is_shape(shape: list[Any]) -> bool:
    return 0 < len(shape) <= MOST_DIMENSIONS and {*map(type, shape)} == {int} and min(shape) >= 0


def _files(shape: list[int], data: list[Any]) -> list[bytes]:
    if len(shape) != 1 or len(data) != shape[0] or {*map(type, data)} != {str}:
        raise RefusedError(400, "BYTES need the shape [n], and n texts in base64")
    try:
        return [base64.b64decode(text, validate=True) for text in data]
    except (binascii.Error, ValueError) as error:
        raise RefusedError(400, "an image is not in base64") from error


def _array(shape: list[int], data: list[Any]) -> NDArray[np.uint8]:
    """Data may be flat or nested as the shape is. Nothing of the size of the shape is made before the data have it."""
    flat: Sequence[Any] = data
    for _ in shape[:-1]:
        if {*map(type, flat)} != {list} or len(flat) > math.prod(shape):
            break
        flat = list(chain.from_iterable(flat))
    if len(flat) != math.prod(shape) or not {*map(type, flat)} <= {int}:
        raise RefusedError(400, f"data must be the {math.prod(shape)} whole numbers that the shape says")
    try:
        pixels = np.frombuffer(bytes(flat), dtype=np.uint8)
    except ValueError as error:
        raise RefusedError(400, "UINT8 data must lie in 0 to 255") from error
    return pixels.reshape(shape)


def response_of(name: str, prediction: Prediction, outputs: Sequence[str], request_id: str | None) -> dict[str, Any]:
    """An inference response. Every one says which version answered, and what was left out."""
    parts, n = prediction.parts, len(prediction.labels)
    data: dict[str, Callable[[], list[Any]]] = {
        "label": lambda: prediction.labels,
        "probabilities": prediction.probabilities.ravel().tolist,
        "labels": lambda: parts.labels,
        "clusters": parts.clusters.ravel().tolist,
        "global_head": parts.global_head.ravel().tolist,
        "nearest": lambda: [slot or "" for slot in parts.nearest],
    }
    known = outputs_of(len(parts.labels))
    tensors = []
    for output in outputs:
        datatype, sizes = known[output]
        shape = [n if size < 0 else size for size in sizes]
        tensors.append({"name": output, "datatype": datatype, "shape": shape, "data": data[output]()})
    gone = parts.left_out
    parameters = {
        "left_out_clusters": ",".join(gone.clusters),
        "global_head": gone.global_head,
        "left_out_by_one_pass": gone.by_one_pass,
        "weight_of_clusters": parts.weight,
    }
    made = {"model_name": name, "model_version": parts.model_version, "outputs": tensors, "parameters": parameters}
    return made | ({"id": request_id} if request_id is not None else {})


def metadata_of(name: str, loaded: Loaded) -> dict[str, Any]:
    outputs = [
        {"name": output, "datatype": datatype, "shape": shape}
        for output, (datatype, shape) in outputs_of(len(loaded.model.labels)).items()
    ]
    return {
        "name": name,
        "versions": [loaded.version],
        "platform": "lmeraser",
        "inputs": inputs_of(),
        "outputs": outputs,
        "left_out": left_out(loaded.left_out),
    }


BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "required": ["inputs"]}}},
    }
}


def make_router(server: Server) -> APIRouter:
    """The protocol's routes for one model."""
    router = APIRouter(tags=["Open Inference Protocol"])

    @router.get("/v2")
    async def about() -> Response:
        return answer({"name": "lmeraser", "version": __version__, "extensions": []})

    @router.get("/v2/health/live")
    async def live() -> Response:
        return answer({"live": True}) if not server.model.lost else refusal(503, "the device failed; start the server again")

    @router.get("/v2/health/ready")
    async def ready() -> Response:
        return answer({"ready": True}) if server.model.present() else refusal(503, server.model.failure)

    @router.get("/v2/models/{name}/ready")
    @router.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> Response:
        loaded = server.present(name, version)
        return answer({"name": server.name, "ready": True, "version": loaded.version})

    @router.get("/v2/models/{name}")
    @router.get("/v2/models/{name}/versions/{version}")
    async def metadata(name: str, version: str | None = None) -> Response:
        return answer(metadata_of(server.name, server.present(name, version)))

    @router.post("/v2/models/{name}/infer", openapi_extra=BODY)
    @router.post("/v2/models/{name}/versions/{version}/infer", openapi_extra=BODY)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        server.check_name(name)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "expected content-type application/json")
        body = await request.body()

        def work() -> Response:
            images, outputs, request_id = parse(body, server.limits.images)
            prediction = server.predict(images, version)
            return answer(response_of(server.name, prediction, outputs, request_id))

        return await server.pool.run(work)

    return router
