"""Ask the served model about image files; every answer says what each half contributed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.errors import BadInputError, ImageError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.images import SIGNATURES, decode, looks_like_image

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp")


def _in_folder(folder: Path) -> list[Path]:
    """The files of a folder that are images by their first bytes or their names; tells how many others there are."""
    if not folder.is_dir():
        raise BadInputError("--images is not a folder; give a folder of PNG, JPEG or WebP files")
    there = sorted(folder.iterdir())
    images = [path for path in there if path.is_file() and (path.suffix.lower() in ENDINGS or looks_like_image(_head(path)))]
    if not images:
        raise BadInputError(
            f"--images: none of the {len(there)} files there is a PNG, JPEG or WebP image (.png, .jpg, .jfif, .webp)"
        )
    if len(images) < len(there):
        say(f"predict: {len(there) - len(images)} of {len(there)} files in the folder left out: no PNG, JPEG or WebP")
    return images


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(12)
    except OSError:  # told by its place when it is read
        return SIGNATURES[0]


def _read(path: Path, params: Params, where: str) -> NDArray[np.uint8]:
    try:
        return decode(path.read_bytes(), params.image)
    except FileNotFoundError as error:
        raise ImageError(f"{where} is missing; check the path") from error
    except OSError as error:
        raise ImageError(f"{where} cannot be read ({error.strerror}); check its permissions") from error
    except ImageError as error:
        raise ImageError(f"{where}: {error}") from error


def _read_all(images: Sequence[Path], folder: Path | None, params: Params) -> list[tuple[Path, NDArray[np.uint8]]]:
    """Files with their pixels. One that was named must be an image; one of a folder is told by its place and left out."""
    read = [(path, _read(path, params, f"image {place} of {len(images)}")) for place, path in enumerate(images, start=1)]
    listed = _in_folder(folder) if folder is not None else []
    for place, path in enumerate(listed, start=1):
        try:
            read.append((path, _read(path, params, f"image {place} of {len(listed)} in the folder, by name")))
        except ImageError as error:
            if len(listed) == 1:
                raise
            say(f"predict: left out: {error}")
    if not read:
        raise BadInputError(
            "no image was given; name files, or a folder with --images"
            if not listed
            else f"--images: none of the {len(listed)} images there can be read; see the lines above"
        )
    return read


def _best(labels: Sequence[str], probabilities: NDArray[np.float64], weight: float = 1.0) -> dict[str, Any]:
    if not weight:  # this half is in quarantine, or knows nothing
        return {"label": None, "probability": 0.0}
    best = int(probabilities.argmax())
    return {"label": labels[best], "probability": round(float(probabilities[best]), 6)}


def predict_files(layout: Layout, params: Params, images: Sequence[Path], folder: Path | None) -> list[dict[str, Any]]:
    """Label, probability and the halves' answers for each file.

    Args: folder: what is no image in it is left out, and told on standard error by count or by place.
    Raises: ImageError naming the position of a file that is no image; ProjectError if nothing was built.
    """
    read = _read_all(images, folder, params)
    from lmeraser.learn.backbone import make_deterministic
    from lmeraser.serve.serving import ServedModel

    make_deterministic(params.device)
    model = ServedModel.load_served(layout, params)
    answers = model.predict(np.stack([pixels for _, pixels in read]))
    return [
        {
            "image": str(path),
            **_best(answers.labels, answers.served[row]),
            "clusters": _best(answers.labels, answers.clusters_soft[row], model.mix) | {"weight": model.mix},
            "global_head": _best(answers.labels, answers.global_head[row], 1 - model.mix) | {"weight": 1 - model.mix},
        }
        for row, (path, _) in enumerate(read)
    ]
