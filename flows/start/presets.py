"""Which params a new project starts with: a preset, its source, and its weights pinned by their digest."""

from dataclasses import dataclass
from pathlib import Path

from flows.dvc.params_file import with_values
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.params import HUB, Params, read_params

DIGITS = "digits"  # params.yaml itself: a model to try things with, and no data needed
SMALL = "signdigits"  # a small network that learns from the public images, where no weights are at hand


Values = dict[tuple[str, ...], str | bool]  # keys on the way to a value of params.yaml, to its text


@dataclass(frozen=True)
class Wish:
    """What somebody asked for. Attributes: data: folder or manifest, absolute; weights: a safetensors file, absolute."""

    preset: str | None = None
    data: Path | None = None
    weights: Path | None = None


def presets(files: Path) -> dict[str, Path]:
    """Name to file. Args: files: the folder that holds params.yaml and params/."""
    return {DIGITS: files / "params.yaml"} | {path.stem: path for path in sorted((files / "params").glob("*.yaml"))}


def choose(wish: Wish, files: Path) -> str:
    """The preset that was named, or that the weights belong to, or that needs none. Raises: BadInputError."""
    known = presets(files)
    if wish.preset is not None:
        if wish.preset not in known:
            raise BadInputError(f"--preset: there is no preset of that name; expected {', '.join(known)}")
        return wish.preset
    if wish.weights is None:
        return SMALL if wish.data else DIGITS
    if not wish.data:
        raise BadInputError("--weights: expected --data with it (digits of 8 x 8 pixels need no large network), or --preset")
    digest = _digest(wish.weights)
    pinned = {name: read_params(path).pretrain.weights for name, path in known.items()}
    for name, weights in pinned.items():
        if weights and (weights.sha256 == digest or Path(weights.file).name == wish.weights.name):
            return name
    names = ", ".join(name for name, weights in pinned.items() if weights and weights.file != HUB)
    raise BadInputError(f"--weights: the file is that of no preset ({names}); say which network it is of with --preset")


def filled(name: str, wish: Wish, files: Path) -> str:
    """The text of params.yaml: the preset's, with source and weights filled in. Raises: BadInputError."""
    path = presets(files)[name]
    params = read_params(path)
    if name == DIGITS and params.source.kind != DIGITS:
        raise ProjectError("the params.yaml beside this code was changed for other data; name a preset with --preset")
    if params.source.kind != DIGITS and not wish.data:
        raise BadInputError(f"--preset {name} is for images of your own: expected --data with it")
    values = _source(params, wish) | _weights(name, params, wish)
    return with_values(path.read_text(encoding="utf-8"), values)


def _source(params: Params, wish: Wish) -> Values:
    if not wish.data:
        return {}
    own: Values = {} if params.source.kind != DIGITS else {("source", "kind"): "manifest"}
    return own | {("source", "path"): str(wish.data)}


def _weights(name: str, params: Params, wish: Wish) -> Values:
    pinned = params.pretrain.weights
    if wish.weights and not pinned:
        raise BadInputError(f"--preset {name} trains its own network; expected no --weights, or a preset that takes them")
    if not pinned or (not wish.weights and pinned.file == HUB):
        return {}
    if not wish.weights:
        raise BadInputError(f"--preset {name} stands on weights from elsewhere: expected --weights FILE (safetensors) with it")
    return {("pretrain", "weights", "file"): str(wish.weights), ("pretrain", "weights", "sha256"): _digest(wish.weights)}


def _digest(weights: Path) -> str:
    try:
        return sha256_of_file(weights)
    except OSError as error:
        raise BadInputError(f"--weights: the file cannot be read ({error.strerror}); expected a safetensors file") from error
