"""What heads and routing cost over the passes that they need, within one process: no HTTP, no decoding.

python -m bench.serving.inside          in a built project's folder; prints one JSON object
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from lmeraser.core import determinism

determinism.require()

import numpy as np  # noqa: E402

from lmeraser.core.own_code import own_layout  # noqa: E402
from lmeraser.serve.live import open_model  # noqa: E402

ROUNDS = 30
COUNTS = (1, 8, 64, 256)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds: there is one thread, and whatever else runs on the machine does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(count: int, one_pass: bool) -> dict[str, Any]:
    """Medians over rounds that alternate: the model's answer for images, and as many bare passes as it took."""
    model = open_model(own_layout(), one_pass=one_pass, at_once=1)
    loaded = model.current()
    image, backbone, batch = loaded.model.params.image, loaded.model.backbone, loaded.passes.batch
    images = np.random.default_rng(0).integers(0, 256, (count, image.size, image.size, image.channels), dtype=np.uint8)
    full = np.resize(images, (batch, *images.shape[1:]))
    passes: list[int] = []
    features = backbone.features

    def counted(*given: Any) -> Any:
        passes.append(1)
        return features(*given)

    object.__setattr__(backbone, "features", counted)
    model.predict(images)
    object.__delattr__(backbone, "features")
    before = loaded.passes.passed
    model.predict(images)
    rows, needed = loaded.passes.passed - before, len(passes)
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: model.predict(images)))
        bare.append(seconds(lambda: [backbone.features(full, batch) for _ in range(needed)]))
    return {
        "images": count,
        "one_pass": one_pass,
        "rows": rows,
        "passes": needed,
        "ours_s": float(np.median(ours)),
        "bare_s": float(np.median(bare)),
        "over": float(np.median(ours) / np.median(bare) - 1),
    }


def main() -> None:
    json.dump([measured(count, one_pass) for one_pass in (False, True) for count in COUNTS], sys.stdout)


if __name__ == "__main__":
    main()
