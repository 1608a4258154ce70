"""The recipe: all that every slot is tuned with, by digest, in one small file: code, params, backbone, skeleton.

Each `tune@cNN` depends on its own members and on this file, instead of on a dozen files and five sections of params.yaml: DVC
looks at every dependency of every slot each time it is asked, and with hundreds of slots that was most of what it did. A slot
checks the recipe before it trains, so a file that DVC did not look at for it cannot be another one.
"""

import json
from pathlib import Path
from typing import Any

from lmeraser.core.digest import readable_json, sha256, sha256_of_file
from lmeraser.core.errors import DigestMismatchError, ProjectError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params

CODE = (
    "lmeraser/clusters/discriminant.py",
    "lmeraser/clusters/files.py",
    "lmeraser/clusters/hierarchy.py",
    "lmeraser/clusters/principal.py",
    "lmeraser/clusters/quantisation.py",
    "lmeraser/clusters/skeleton.py",
    "lmeraser/core/determinism.py",
    "lmeraser/core/digest.py",
    "lmeraser/core/environment.py",
    "lmeraser/data/decoding.py",
    "lmeraser/data/images.py",
    "lmeraser/data/records.py",
    "lmeraser/data/tensors.py",
    "lmeraser/learn/augmentation.py",
    "lmeraser/learn/backbone.py",
    "lmeraser/learn/cluster_model.py",
    "lmeraser/learn/depths.py",
    "lmeraser/learn/environment.py",
    "lmeraser/learn/precision.py",
    "lmeraser/learn/stem.py",
    "lmeraser/learn/tuning.py",
    "stages/__init__.py",
    "stages/tune.py",
)  # what can move the bytes of the stage tune (dvc.yaml lists it for `recipe`; a test compares it with what `tune` imports)
PARAMS = ("seed", "device", "image", "features", "embed", "tune")  # what it reads


def _digest_of(code: Path) -> str:
    return sha256_of_file(code) if code.is_file() else "absent"


def make_recipe(layout: Layout, params: Params) -> dict[str, Any]:
    """A function of the files and values alone. Raises: ProjectError if backbone or skeleton are not there."""
    for path in (layout.backbone, layout.skeleton):
        if not path.is_file():
            raise ProjectError(f"{path.name} is missing; run `dvc repro` (or `dvc checkout`) and retry")
    code = "".join(f"{name} {_digest_of(layout.root / name)}\n" for name in CODE)
    return {
        "backbone": sha256_of_file(layout.backbone),
        "code": sha256(code.encode()),
        "params": params.model_dump(mode="json", include=set(PARAMS)),
        "skeleton": sha256_of_file(layout.skeleton),
    }


def save_recipe(layout: Layout, params: Params) -> None:
    write_atomically(layout.recipe, readable_json(make_recipe(layout, params)))


def check_recipe(layout: Layout, params: Params) -> None:
    """Raise DigestMismatchError, naming what, unless everything is as the recipe says."""
    try:
        promised = json.loads(layout.recipe.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise ProjectError("recipe.json is missing or damaged; run `dvc repro` (or `dvc checkout`) and retry") from error
    for name, digest in make_recipe(layout, params).items():
        if promised.get(name) != digest:
            raise DigestMismatchError(
                f"recipe.json: {name} changed since the recipe was made; run `dvc repro`, which makes it again, and retry"
            )
