"""Depths of a network: pooled outputs of its blocks beside its own row, in one pass, and every row its own image's alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import Lab, make_lab, pixels, refused, striped, tiny_params
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from lmeraser.core.errors import ParamsError
from lmeraser.core.params import Params
from lmeraser.learn.backbone import Backbone, build, load_backbone, make_deterministic, require_own_rows, save_backbone
from lmeraser.learn.cluster_model import save_cluster_model
from lmeraser.learn.depths import Depths, _spans, cells_of, pooled, with_depths
from lmeraser.learn.stem import framed
from lmeraser.learn.tuning import tune_cluster

TRANSFORMER = {"depth": 3, "embed_dim": 32, "num_heads": 2, "patch_size": 8, "img_size": 32}
REGISTERS = {"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 28}
WINDOWS = {"depths": [1, 1], "embed_dim": 16, "num_heads": [2, 2], "window_size": 4, "img_size": 32}
# model: size, kwargs, depths
NETWORKS: dict[str, tuple[int, dict[str, Any], list[int]]] = {
    "resnet18": (32, {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}, [1, 2, 3]),
    "efficientnet_lite0": (32, {}, [0, 2, 4]),
    "convnext_atto": (32, {}, [1, 3]),
    "vit_base_patch16_224": (32, TRANSFORMER, [0, 2]),
    "vit_small_patch14_reg4_dinov2": (28, REGISTERS, [0, 1]),
    "swin_tiny_patch4_window7_224": (32, WINDOWS, [0, 1]),
}
each_network = pytest.mark.parametrize("model", NETWORKS)


def params_of(model: str, changes: dict[str, Any] | None = None) -> Params:
    size, kwargs, depths = NETWORKS[model]
    network = {"pretrain.model": model, "pretrain.kwargs": kwargs, "pretrain.small_stem": False}
    image = {"image.size": size, "image.channels": 3, "embed.batch": 4}
    return tiny_params(network | image | {"features.depths": depths, "features.grid": 2} | (changes or {}))


def loaded(folder: Path, params: Params) -> tuple[nn.Module, Backbone]:
    """A network with weights of its own as pretraining leaves it, and what is read back from its file."""
    make_deterministic("cpu")
    torch.manual_seed(0)
    network = build(params.pretrain, params.image, 0).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones do nothing, so that folding them would not show
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    save_backbone(folder / "backbone", network, [0.5] * 3, [0.25] * 3, params)
    return network, load_backbone(folder / "backbone", params)


def images_of(params: Params, n: int, seed: int = 1) -> np.ndarray:
    size = params.image.size
    return pixels(seed, n * size, size, 3).reshape(n, size, size, 3)


def by_hand(network: Any, inputs: Tensor, depths: list[int], grid: int) -> list[Tensor]:
    """Each depth's row, of a pass of its own."""
    rows = []
    for depth in depths:
        tokens = {"return_prefix_tokens": True} if hasattr(network, "num_prefix_tokens") else {}
        (output,) = network.forward_intermediates(inputs, indices=[depth], intermediates_only=True, **tokens)
        maps, prefix = output if isinstance(output, tuple) else (output, None)
        count = min(grid, maps.shape[2])
        cells = [] if prefix is None else [prefix[:, 0]]
        edges = [(int(np.floor(i * maps.shape[2] / count)), int(np.ceil((i + 1) * maps.shape[2] / count))) for i in range(count)]
        for top, bottom in edges:
            cells += [maps[:, :, top:bottom, left:right].mean((2, 3)) for left, right in edges]
        rows.append(torch.cat(cells, 1))
    return [*rows, network(inputs)]


@each_network
@pytest.mark.parametrize("grid", [1, 2, 3])
def test_a_row_is_each_blocks_pooled_output_and_then_the_networks_own(model: str, grid: int, tmp_path: Path) -> None:
    """Folded or not: it is the function of the network as it was."""
    params = params_of(model, {"features.grid": grid})
    network, backbone = loaded(tmp_path, params)
    images = images_of(params, 5)
    features = backbone.features(images, 4)
    with torch.inference_mode():
        expected = by_hand(network, backbone.normalise(images), list(params.features.depths), grid)
    assert backbone.widths == tuple(row.shape[1] for row in expected)
    assert sum(backbone.widths) == backbone.dim == features.shape[1]
    for ours, wanted in zip(np.split(features, np.cumsum(backbone.widths)[:-1], axis=1), expected, strict=True):
        assert np.abs(ours - wanted.numpy()).max() <= 1e-4 * np.abs(wanted.numpy()).max()
        assert ours.std(0).max() > 0, "images are told apart"


def test_batch_norms_between_depths_are_folded(tmp_path: Path) -> None:
    _, backbone = loaded(tmp_path, params_of("resnet18"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in backbone.model.modules())


@each_network
def test_row_is_its_own_images_bit_for_bit(model: str, tmp_path: Path) -> None:
    params = params_of(model)
    _, backbone = loaded(tmp_path, params)
    require_own_rows(backbone.model, params)
    images = images_of(params, 7)
    together = backbone.features(images, 4)
    assert np.array_equal(backbone.features(images[::-1], 4)[::-1], together)
    assert all(np.array_equal(backbone.features(images[row : row + 1], 4)[0], together[row]) for row in range(7))


@each_network
def test_no_depths_are_the_network_as_it_is(model: str, tmp_path: Path) -> None:
    params = params_of(model, {"features.depths": []})
    network, backbone = loaded(tmp_path, params)
    assert not any(isinstance(module, Depths) for module in backbone.model.modules())
    with torch.no_grad():
        assert backbone.widths == (network(torch.zeros(1, 3, params.image.size, params.image.size)).shape[1],)


@given(st.integers(1, 60), st.integers(1, 8))
def test_cells_cover_a_map_and_are_of_one_size(side: int, grid: int) -> None:
    spans = _spans(side, grid)
    assert len(spans) == min(grid, side)
    places = [set(range(side)[span]) for span in spans]
    assert set().union(*places) == set(range(side))
    assert all(places)
    assert max(map(len, places)) - min(map(len, places)) <= 1
    assert [min(place) for place in places] == sorted({min(place) for place in places})


def test_class_token_comes_first_then_the_cells_row_by_row() -> None:
    maps = torch.arange(16.0).view(1, 1, 4, 4)
    tokens = torch.tensor([[[100.0], [200.0]]])
    cells = [2.5, 4.5, 10.5, 12.5]
    four = cells_of(maps, 2)
    assert pooled(maps, four).tolist() == [cells]
    assert pooled((maps, tokens), cells_of((maps, tokens), 2)).tolist() == [[100.0, *cells]]
    assert pooled((maps, tokens[:, :0]), four).tolist() == [cells]
    assert pooled(maps, cells_of(maps, 8)).tolist() == [list(range(16))], "no more cells than places"


# refusals


@each_network
def test_depth_that_the_network_lacks_is_refused_and_the_nearest_named(model: str, tmp_path: Path) -> None:
    params = params_of(model, {"features.depths": [0, 99]})
    message = refused(ParamsError, lambda: loaded(tmp_path, params))
    assert f"features.depths names block 99, but {model} has 0 to" in message
    nearest = int(message.rsplit(" ", 1)[1])
    assert message.endswith(f"has 0 to {nearest}; the nearest is {nearest}")
    loaded(tmp_path, params_of(model, {"features.depths": [0, nearest]}))
    beyond = params_of(model, {"features.depths": [nearest + 1]})
    refused(ParamsError, lambda: loaded(tmp_path, beyond))


def test_network_that_gives_no_outputs_of_its_blocks_is_refused() -> None:
    params = params_of("resnet18")
    trial = torch.zeros(2, 3, 8, 8)
    message = refused(ParamsError, lambda: with_depths(nn.Flatten(), params.features, trial, "some_net"))
    assert "some_net gives no outputs of its blocks" in message
    assert "set features.depths to []" in message


class Blocks(nn.Module):
    """Two blocks; its own row is not what its blocks lead to, or its first block gives no numbers."""

    def __init__(self, own: float, first: float) -> None:
        super().__init__()
        self.own, self.first = own, first

    def forward_intermediates(self, images: Tensor, indices: list[int] | None = None, intermediates_only: bool = False) -> Any:
        blocks = [images[:, :, ::2, ::2] * self.first, images[:, :, ::4, ::4]]
        outputs = [blocks[index] for index in (range(2) if indices is None else indices)]
        return outputs if intermediates_only else (blocks[1], outputs)

    def forward_head(self, last: Tensor) -> Tensor:
        return last.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(images[:, :, ::4, ::4]) + self.own


def test_network_that_gives_another_row_where_its_blocks_are_asked_for_is_refused() -> None:
    features, trial = tiny_params({"features.depths": [0]}).features, torch.rand(2, 3, 8, 8)
    assert with_depths(Blocks(0, 1), features, trial, "net")(trial).shape == (2, 6)
    message = refused(ParamsError, lambda: with_depths(Blocks(0.1, 1), features, trial, "net"))
    assert "net gives another row where its blocks are asked for" in message


def test_block_whose_outputs_are_not_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_of("resnet18", {"features.depths": [0]})
    make_deterministic("cpu")
    monkeypatch.setattr("lmeraser.learn.backbone.build", lambda *_, **__: Blocks(0, float("inf")))
    save_backbone(tmp_path / "backbone", Blocks(0, 1), [0.5] * 3, [0.25] * 3, params)
    assert "features that are not finite" in refused(ParamsError, lambda: load_backbone(tmp_path / "backbone", params))


# what stands on them


@pytest.mark.parametrize("model", ["resnet18", "vit_base_patch16_224"])
def test_frames_gradient_passes_through_every_depth(model: str, tmp_path: Path) -> None:
    params = params_of(model)
    network, backbone = loaded(tmp_path, params)
    inputs = backbone.normalise(images_of(params, 3))
    size = params.image.size
    way = framed(backbone.model, (3, size, size), torch.float32, "cpu")
    start = 0
    for place, width in enumerate(backbone.widths):
        frame = torch.zeros(3, size, size, requires_grad=True)
        weight = torch.randn(3, width, generator=torch.Generator().manual_seed(place))
        (way(inputs, frame)[:, start : start + width] * weight).sum().backward()
        plain = torch.zeros(3, size, size, requires_grad=True)
        (by_hand(network, inputs + plain, list(params.features.depths), 2)[place] * weight).sum().backward()
        assert frame.grad is not None
        assert plain.grad is not None
        reach = float(plain.grad.abs().max())
        assert reach > 0
        assert float((frame.grad - plain.grad).abs().max()) <= 1e-3 * reach
        start += width


@pytest.fixture(scope="module")
def deep_lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Depths, projected, under a discriminant."""
    changes = {"features.depths": [1, 2], "features.grid": 2, "features.dim": 9, "head.kind": "discriminant"}
    return make_lab(tmp_path_factory.mktemp("deep"), changes | {"projection.kind": "plain", "projection.levels": 127})


@pytest.mark.parametrize("frame", [0, 2])
def test_cluster_over_depths_with_a_frame_is_tuned_to_the_same_bytes_twice(deep_lab: Lab, frame: int, tmp_path: Path) -> None:
    changes = {"features.depths": [1, 2], "features.grid": 2, "features.dim": 9, "tune.frame_px": frame}
    params = tiny_params(changes)
    ids, images, labels = striped(13, seed=7)
    for run in ("one", "other"):
        model = tune_cluster(ids, images, labels, deep_lab.backbone, deep_lab.skeleton, params, "c00")
        save_cluster_model(tmp_path / run, model, params)
        torch.rand(7)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    assert model.weight.shape == (2, 9)
    assert model.frame.any() == (frame > 0)


def test_another_list_of_depths_is_another_backbone_in_the_same_process(deep_lab: Lab) -> None:
    fewer = tiny_params({"features.depths": [1], "features.grid": 2})
    assert load_backbone(deep_lab.backbone_file, fewer).widths != deep_lab.backbone.widths
    plain = load_backbone(deep_lab.backbone_file, tiny_params())
    assert plain.widths == (plain.dim,) == deep_lab.backbone.widths[-1:]
