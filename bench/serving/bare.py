"""The bare backbone behind the same server: the same limits, decoding and threads, one pass an image, no heads and no routing.

python -m bench.serving.bare            in a built project's folder; listens on any free port
"""

import asyncio
import os

import uvicorn
from fastapi import APIRouter, Request
from starlette.responses import Response

from flows.serving.app import make_app
from flows.serving.limits import Limits
from flows.serving.metrics import Metrics
from flows.serving.pool import Pool
from flows.serving.replies import answer
from lmeraser.core.layout import Layout
from lmeraser.core.own_code import own_layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.core.sockets import bound
from lmeraser.learn.backbone import load_backbone, make_deterministic
from lmeraser.serve.images import to_pixels
from lmeraser.serve.live import open_model
from lmeraser.serve.passes import SharedPasses


def bare_router(layout: Layout, pool: Pool) -> APIRouter:
    params = load_params(layout.params)
    make_deterministic(params.device)
    passes = SharedPasses(load_backbone(layout.backbone, params), params.embed.batch, len(os.sched_getaffinity(0)))
    router = APIRouter()

    @router.post("/predict")
    async def predict(request: Request) -> Response:
        image = await request.body()

        def work() -> Response:
            pixels = to_pixels([image], params.image)
            features = passes.features(pixels, [None])
            predictions = [{"label": str(int(row.argmax())), "probability": float(row.max())} for row in features]
            return answer({"model_version": "bare", "predictions": predictions})

        return await pool.run(work)

    return router


def main() -> None:
    layout, pool, limits = own_layout(), Pool(), Limits(rate=0)
    app = make_app([bare_router(layout, pool)], limits, Metrics(open_model(layout)))
    with bound("127.0.0.1", 0) as listening:
        say(f"serve: model bare on http://127.0.0.1:{listening.getsockname()[1]} ")
        asyncio.run(uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")).serve([listening]))


if __name__ == "__main__":
    main()
