"""Weights from elsewhere: exactly the file's, pinned by digest; every other file is refused in one line. ViT and Swin work."""

import copy
import functools
import hashlib
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from builders import pixels, public_features, refused, tiny_params
from safetensors.torch import save_file
from timm.data.config import resolve_model_data_config
from timm.layers.pos_embed import resample_abs_pos_embed

from lmeraser.clusters.skeleton import build_skeleton
from lmeraser.core.digest import sha256_of_file
from lmeraser.core.errors import ParamsError, ProjectError
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_note
from lmeraser.learn.backbone import Backbone, load_backbone, make_deterministic, save_backbone
from lmeraser.learn.cluster_model import save_cluster_model
from lmeraser.learn.tuning import tune_cluster
from lmeraser.learn.weights import take_weights

VIT, SWIN = "vit_base_patch16_224.augreg_in21k", "swin_base_patch4_window7_224.ms_in22k"
SMALL: dict[str, dict[str, Any]] = {
    VIT: {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8},
    SWIN: {"depths": [1, 1], "embed_dim": 16, "num_heads": [2, 2], "img_size": 32, "window_size": 4},
}
LARGE: dict[str, dict[str, Any]] = {  # 224 px, as the paper's
    VIT: {"depth": 1, "embed_dim": 32, "num_heads": 2},
    SWIN: {"depths": [1, 1], "embed_dim": 16, "num_heads": [2, 2]},
}
Tensors = dict[str, torch.Tensor]


def made(name: str, classes: int = 5, **changes: Any) -> torch.nn.Module:
    """A tiny model with weights of its own, always the same."""
    return drawn(name, classes, **changes) if changes else copy.deepcopy(unchanged(name, classes))


@functools.cache
def unchanged(name: str, classes: int) -> torch.nn.Module:
    return drawn(name, classes)


def drawn(name: str, classes: int, **changes: Any) -> torch.nn.Module:
    torch.manual_seed(3)
    model: torch.nn.Module = timm.create_model(name, num_classes=classes, **(SMALL[name] | changes))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model.eval()


def params_of(name: str, file: Path | str, changes: dict[str, Any] | None = None, digest: str | None = None) -> Params:
    if digest is None and Path(file).is_file():
        digest = sha256_of_file(Path(file))
    image = {"size": 32, "channels": 3, "interpolation": "bicubic", "crop": 0.9, "max_pixels": 1_000_000}
    changed = {
        "image": image,
        "pretrain.model": name,
        "pretrain.kwargs": SMALL.get(name, {}),
        "pretrain.weights": {"file": str(file), "sha256": digest},
        "pretrain.epochs": 0,
        "pretrain.small_stem": False,
    }
    return tiny_params(changed | (changes or {}))


def saved(folder: Path, tensors: Tensors) -> Path:
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def backbone_of(folder: Path, params: Params) -> Backbone:
    """Through the file that the pipeline keeps."""
    make_deterministic("cpu")
    taken = take_weights(params, folder)
    save_backbone(folder / "backbone.safetensors", taken.model, taken.mean, taken.std, params, taken.resampled)
    return load_backbone(folder / "backbone.safetensors", params)


@pytest.mark.parametrize("classes", [0, 5], ids=["without a classifier", "with one"])
@pytest.mark.parametrize("name", [VIT, SWIN])
def test_backbone_computes_what_the_file_does_under_timms_preprocessing(tmp_path: Path, name: str, classes: int) -> None:
    model = made(name, classes)
    file = saved(tmp_path, model.state_dict())
    backbone = backbone_of(tmp_path, params_of(name, file))
    images = pixels(1, 5 * 32, 32, 3).reshape(5, 32, 32, 3)
    model.reset_classifier(0)  # type: ignore[operator]
    config = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = model((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std).numpy()
    features = backbone.features(images, 8)
    assert features.shape == (5, backbone.dim)
    assert np.allclose(features, expected, atol=1e-5)
    assert len({row.tobytes() for row in features}) == 5


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_features_of_a_transformer_do_not_depend_on_their_neighbours(tmp_path: Path, name: str) -> None:
    backbone = backbone_of(tmp_path, params_of(name, saved(tmp_path, made(name).state_dict())))
    images = pixels(2, 21 * 32, 32, 3).reshape(21, 32, 32, 3)
    together = backbone.features(images, 8)
    assert np.array_equal(backbone.features(images[::-1], 8)[::-1], together)
    assert all(np.array_equal(backbone.features(images[row : row + 1], 8)[0], together[row]) for row in range(21))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [VIT, SWIN])
def test_transformer_is_tuned_with_a_frame_of_30_of_224_px_to_the_same_bytes_twice(
    tmp_path: Path, name: str, precision: str
) -> None:
    file = saved(tmp_path, timm.create_model(name, num_classes=0, **LARGE[name]).state_dict())
    image = {"size": 224, "channels": 3, "interpolation": "bicubic", "crop": 0.9, "max_pixels": 1_000_000}
    params = params_of(
        name,
        file,
        {"image": image, "pretrain.kwargs": LARGE[name], "tune.frame_px": 30, "tune.precision": precision, "tune.epochs": 1},
    )
    backbone = backbone_of(tmp_path, params)
    images = pixels(3, 9 * 224, 224, 3).reshape(9, 224, 224, 3)
    skeleton = build_skeleton(public_features(backbone.features(images, 8), np.arange(9)), params)
    ids = [f"{n:032x}" for n in range(9)]
    for run in ("one", "other"):
        model = tune_cluster(ids, images, ["a", "b", "c"] * 3, backbone, skeleton, params, "c00")
        save_cluster_model(tmp_path / run, model, params)
        torch.rand(7)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert np.abs(model.frame[:, :30]).max() > 0  # the gradient reaches the frame through attention
    assert not model.frame[:, 30:-30, 30:-30].any()


LARGER: dict[str, dict[str, Any]] = {VIT: {"img_size": 64}, SWIN: {"img_size": 64, "window_size": 8}}


@pytest.mark.parametrize("classes", [0, 5], ids=["without a classifier", "with one"])
@pytest.mark.parametrize("name", [VIT, SWIN])
def test_position_embeddings_of_another_image_size_are_resampled_as_timm_does_and_that_is_told(
    tmp_path: Path, name: str, classes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = made(name, classes, **LARGER[name]).state_dict()
    params = params_of(name, saved(tmp_path, tensors))
    backbone = backbone_of(tmp_path, params)
    note = read_note(tmp_path / "backbone.safetensors")
    told = [line for line in capsys.readouterr().err.splitlines() if "resampled" in line]
    assert told == [f"pretrain: {', '.join(note['resampled'])} resampled by timm to image.size 32"]
    taken = take_weights(params, tmp_path).model.state_dict()
    for key, value in taken.items():
        position = key.endswith(("pos_embed", "relative_position_bias_table"))
        assert (key in note["resampled"]) == position
        if key == "pos_embed":
            assert torch.equal(value, resample_abs_pos_embed(tensors[key], [4, 4], num_prefix_tokens=1))
        elif position:
            assert value.shape == (49, 2)
            assert abs(float(value.mean() - tensors[key].mean())) < 0.05
        else:
            assert torch.equal(value, tensors[key])
    assert backbone.features(pixels(1, 32, 32, 3)[None], 8).shape == (1, backbone.dim)


def test_weights_of_this_image_size_are_noted_as_they_are(tmp_path: Path) -> None:
    backbone_of(tmp_path, params_of(VIT, saved(tmp_path, made(VIT).state_dict())))
    assert read_note(tmp_path / "backbone.safetensors")["resampled"] == []


def test_digest_stands_in_the_artifact_and_the_path_does_not(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    backbone_of(tmp_path, params_of(VIT, file))
    note = read_note(tmp_path / "backbone.safetensors")
    assert note["pretrain"]["weights"] == sha256_of_file(file)
    assert str(tmp_path) not in str(note)
    assert note["mean"] == [0.5, 0.5, 0.5]


def test_backbone_of_other_weights_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    backbone_of(tmp_path, params_of(VIT, file))
    other = params_of(VIT, file, digest="0" * 64)
    assert "other params" in refused(ProjectError, lambda: load_backbone(tmp_path / "backbone.safetensors", other))


def test_relative_path_starts_at_the_projects_folder(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    take_weights(params_of(VIT, file.name, digest=sha256_of_file(file)), tmp_path)


def test_weights_of_half_precision_become_float32(tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in made(VIT).state_dict().items()}
    model = take_weights(params_of(VIT, saved(tmp_path, half)), tmp_path).model
    assert all(torch.equal(value, half[name].float()) for name, value in model.state_dict().items())


@pytest.mark.parametrize("classes", [0, 5])
def test_older_names_of_timms_own_model_are_translated(tmp_path: Path, classes: int) -> None:
    # Swin's first checkpoints had the downsampling at the end of a stage, another name of the head, and buffers.
    now = made(SWIN, classes).state_dict()
    before = {name.replace("layers.1.downsample", "layers.0.downsample").replace("head.fc", "head"): v for name, v in now.items()}
    before["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16, dtype=torch.long)
    model = take_weights(params_of(SWIN, saved(tmp_path, before)), tmp_path).model
    assert all(torch.equal(value, now[name]) for name, value in model.state_dict().items())


def test_images_that_come_in_another_way_than_in_training_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    take_weights(params_of(VIT, file, {"image.interpolation": "bilinear", "image.crop": 1.0}), tmp_path)
    printed = capsys.readouterr().err
    assert "image.interpolation is bilinear, timm's is bicubic; image.crop is 1.0, timm's is 0.9" in printed


# the hub's cache


def cached(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, tensors: Tensors) -> Path:
    """A file as huggingface_hub keeps it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    home = folder / f"models--timm--{name}"
    (home / "snapshots" / "abc").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("abc")
    path = home / "snapshots" / "abc" / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("name", [VIT, SWIN])
def test_weights_come_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tensors = made(name).state_dict()
    path = cached(tmp_path, monkeypatch, name, tensors)
    model = take_weights(params_of(name, "hub", digest=sha256_of_file(path)), tmp_path).model
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())


def test_hub_without_a_cached_file_names_the_model_and_the_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused(ParamsError, lambda: take_weights(params_of(VIT, "hub", digest="0" * 64), tmp_path))
    assert VIT in message
    assert "local safetensors file" in message


def test_model_that_timm_has_no_weights_for_is_refused(tmp_path: Path) -> None:
    params = params_of("vit_small_patch16_18x2_224", "hub", digest="0" * 64)
    assert "no file on the hub" in refused(ParamsError, lambda: take_weights(params, tmp_path))


# refusals


def changed(name: str, act: Callable[[Tensors], object]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tensors = dict(made(name).state_dict())
        act(tensors)
        return saved(folder, tensors)

    return write


def raw(content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "weights.safetensors"
        path.write_bytes(content)
        return path

    return write


def pickled(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    torch.save(made(VIT).state_dict(), path)
    return path


def cut(folder: Path) -> Path:
    path = saved(folder, made(VIT).state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def put(name: str, value: torch.Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: value})


NAN = torch.full((32,), float("nan"))
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another architecture": (changed(SWIN, len), f"another architecture than {VIT}"),
    "a tensor too few": (changed(VIT, lambda tensors: tensors.pop("norm.weight")), "it lacks 1 of"),
    "a tensor too many": (changed(VIT, put("extra.weight", torch.zeros(3))), "has 1 that the model does not know"),
    "another width": (changed(VIT, put("norm.weight", torch.zeros(48))), "norm.weight is 48, expected 32"),
    "positions on no square": (
        changed(VIT, put("pos_embed", torch.zeros(1, 51, 32))),
        "pos_embed is 1 x 51 x 32, expected 1 x 17 x 32",
    ),
    "another patch": (
        changed(VIT, put("patch_embed.proj.weight", torch.zeros(32, 3, 4, 4))),
        "patch_embed.proj.weight is 32 x 3 x 4 x 4, expected 32 x 3 x 8 x 8",
    ),
    "NaN": (changed(VIT, put("norm.weight", NAN)), "norm.weight holds values that are not finite"),
    "infinite": (changed(VIT, put("head.bias", NAN.new_full((5,), float("inf")))), "head.bias holds values"),
    "pickled by torch": (pickled, "pickled (or zipped)"),
    "pickled": (raw(pickle.dumps({"a": 1})), "pickled (or zipped)"),
    "text": (raw(b"version https://git-lfs.github.com/spec/v1\n"), "of another kind; expected safetensors"),
    "empty": (raw(b""), "of another kind"),
    "cut": (cut, "not a complete safetensors file"),
    "no header": (raw(b"\x05\0\0\0\0\0\0\0{]}[}"), "not a complete safetensors file"),
    "absent": (lambda folder: folder / "CANARY", "cannot be read (No such file or directory)"),
    "a folder": (lambda folder: folder, "cannot be read (Is a directory)"),
}


@pytest.mark.parametrize("case", BAD)
def test_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    write, expected = BAD[case]
    file = write(tmp_path)
    assert expected in refused(ParamsError, lambda: take_weights(params_of(VIT, file), tmp_path))


def test_hostile_pickle_is_never_opened(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "opened",)

    for content in (pickle.dumps(Hostile()), pickle.dumps(Hostile(), protocol=0)):
        file = raw(content)(tmp_path)
        refused(ParamsError, partial(take_weights, params_of(VIT, file), tmp_path))
    assert not (tmp_path / "opened").exists()


def test_file_of_another_digest_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    message = refused(ParamsError, lambda: take_weights(params_of(VIT, file, digest="0" * 64), tmp_path))
    assert sha256_of_file(file)[:12] in message


def test_digest_that_is_not_known_yet_is_told(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    params = params_of(VIT, file, {"pretrain.weights": {"file": str(file), "sha256": None}})
    assert hashlib.sha256(file.read_bytes()).hexdigest() in refused(ParamsError, lambda: take_weights(params, tmp_path))


def test_grey_images_for_weights_of_colour_are_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    message = refused(ParamsError, lambda: take_weights(params_of(VIT, file, {"image.channels": 1}), tmp_path))
    assert "patch_embed.proj.weight is 32 x 3 x 8 x 8, expected 32 x 1 x 8 x 8" in message
    grey = saved(tmp_path, made(VIT, in_chans=1).state_dict())
    message = refused(ParamsError, lambda: take_weights(params_of(VIT, grey, {"image.channels": 1}), tmp_path))
    assert "was trained on 3" in message


def test_image_size_that_a_transformer_does_not_take_is_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    message = refused(ParamsError, lambda: take_weights(params_of(VIT, file, {"image.size": 48}), tmp_path))
    assert "does not take images of image.size 48" in message


def test_tag_that_timm_does_not_know_is_refused_and_the_nearest_named(tmp_path: Path) -> None:
    file = saved(tmp_path, made(VIT).state_dict())
    params = params_of("vit_base_patch16_224.augreg_in22k", file)
    assert VIT in refused(ParamsError, lambda: take_weights(params, tmp_path))
