"""Presets: every params file loads; the paper's are what their command writes, with timm's preprocessing."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import ROOT
from timm.models import get_pretrained_cfg

from lmeraser.core.params import PublishedSource, expand_slots, load_params

PAPER = ROOT / "params" / "paper"
FILES = sorted((ROOT / "params").rglob("*.yaml"))


def presets() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("write", PAPER / "write.py")
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    texts: dict[str, str] = module.presets()
    return texts


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_value_of_a_preset_is_the_files_own(path: Path) -> None:
    """What a stage reads is what DVC compares: no key is added, and no value becomes another one, but for the range of slots."""
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert load_params(path).model_dump(mode="json") == written | {"slots": expand_slots(written["slots"])}


def test_papers_presets_are_what_the_command_writes() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in PAPER.glob("*.yaml")}
    assert written == presets()
    assert len(written) == 8


@pytest.mark.parametrize("path", sorted(PAPER.glob("*.yaml")), ids=lambda path: path.stem)
def test_papers_preset_prepares_images_as_timm_does_for_weights_of_imagenet_22k(path: Path) -> None:
    params = load_params(path)
    config = get_pretrained_cfg(params.pretrain.model)
    assert config is not None
    assert config.input_size == (params.image.channels, params.image.size, params.image.size) == (3, 224, 224)
    assert config.interpolation == params.image.interpolation
    assert config.crop_pct == params.image.crop
    assert config.num_classes in (21841, 21843)
    assert config.hf_hub_id
    assert (params.tune.frame_px, params.cluster.unit) == (30, "record")


def test_papers_presets_are_the_eight_pairs() -> None:
    pairs = set()
    for path in PAPER.glob("*.yaml"):
        params = load_params(path)
        assert isinstance(params.source, PublishedSource)
        pairs.add((params.source.private, params.pretrain.model.split("_")[0]))
    assert pairs == {(data, model) for data in ("cifar10", "cifar100", "svhn", "gtsrb") for model in ("vit", "swin")}
