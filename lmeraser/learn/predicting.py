"""Ask the served model about image files; every answer says what each half contributed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.errors import BadInputError, ImageError
from lmeraser.core.images import decode
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def _files(images: Sequence[Path], folder: Path | None) -> list[Path]:
    found = list(images)
    if folder is not None:
        if not folder.is_dir():
            raise BadInputError("--images names no folder; give a folder of PNG, JPEG or WebP files")
        found += sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        raise BadInputError("no image was named; give files, or a folder with --images")
    return found


def _best(labels: Sequence[str], probabilities: NDArray[np.float64], weight: float = 1.0) -> dict[str, Any]:
    if not weight:  # this half is in quarantine, or knows nothing
        return {"label": None, "probability": 0.0}
    best = int(probabilities.argmax())
    return {"label": labels[best], "probability": round(float(probabilities[best]), 6)}


def predict_files(layout: Layout, params: Params, images: Sequence[Path], folder: Path | None) -> list[dict[str, Any]]:
    """Label, probability and the halves' answers for each file.

    Raises: ImageError naming the position of a file that is no image; ProjectError if nothing was built.
    """
    files = _files(images, folder)
    pixels = []
    for place, path in enumerate(files, start=1):
        try:
            pixels.append(decode(path.read_bytes(), params.image))
        except FileNotFoundError as error:
            raise ImageError(f"image {place} of {len(files)} is missing; check the path") from error
        except OSError as error:
            raise ImageError(f"image {place} of {len(files)} cannot be read ({error.strerror})") from error
        except ImageError as error:
            raise ImageError(f"image {place} of {len(files)}: {error}") from error
    from lmeraser.learn.backbone import make_deterministic
    from lmeraser.learn.serving import ServedModel

    make_deterministic(params.device)
    model = ServedModel.load_served(layout, params)
    answers = model.predict(np.stack(pixels))
    return [
        {
            "image": str(path),
            **_best(answers.labels, answers.served[row]),
            "clusters": _best(answers.labels, answers.clusters_soft[row], model.mix) | {"weight": model.mix},
            "global_head": _best(answers.labels, answers.global_head[row], 1 - model.mix) | {"weight": 1 - model.mix},
        }
        for row, path in enumerate(files)
    ]
