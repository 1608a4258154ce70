"""params.yaml: the repository's loads; whatever is unknown, missing, mistyped or inconsistent is refused in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import ROOT, raw_params, refused
from pydantic import BaseModel

from lmeraser.core.errors import ParamsError, SlotError
from lmeraser.core.params import Params, Weights, _sections_of, load_params


def every_key() -> list[str]:
    """All keys of params.yaml: sections, and what is in them."""
    raw = raw_params()
    inner = [f"{section}.{key}" for section, value in raw.items() if isinstance(value, dict) for key in value]
    return [*raw, *inner]


def write(folder: Path, raw: object) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.dump(raw, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)), encoding="utf-8")
    return path


def refusal(folder: Path, changes: dict[str, Any], kind: type[ParamsError] | type[SlotError] = ParamsError) -> str:
    path = write(folder, raw_params(changes))
    return refused(kind, lambda: load_params(path))


def without(name: str) -> dict[str, Any]:
    raw = raw_params()
    *sections, key = name.split(".")
    inner = raw
    for section in sections:
        inner = inner[section]
    del inner[key]
    return raw


def test_params_of_the_repository_load() -> None:
    params = load_params(ROOT / "params.yaml")
    assert params.model_dump(mode="json") == raw_params()


@pytest.mark.parametrize("name", every_key())
def test_each_missing_param_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, without(name))
    assert f"param {name} is missing" in refused(ParamsError, lambda: load_params(path))


TEXTS = ("source.path", "pretrain.model", "consent.column", "retention.column", "service.timestamp_roots")


@pytest.mark.parametrize("name", [name for name in every_key() if name != "pretrain.kwargs"])
def test_each_param_of_a_wrong_type_is_refused_by_name(tmp_path: Path, name: str) -> None:
    wrong: object = {"no": "such thing"} if name in TEXTS else "no such thing"
    assert name in refusal(tmp_path, {name: wrong})


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tune.epoch", "epochs"), ("cluster.nmax", "n_max"), ("seeed", "seed"), ("serve.near", "nearest"), ("image.sizes", "size")],
)
def test_misspelt_param_is_refused_and_the_nearest_named(tmp_path: Path, name: str, hint: str) -> None:
    message = refusal(tmp_path, {name: 1})
    assert f"unknown param {name}" in message
    assert f"did you mean {hint}?" in message


def test_unknown_param_that_is_like_nothing_is_refused(tmp_path: Path) -> None:
    assert "unknown param zzzzzzzz; remove it" in refusal(tmp_path, {"zzzzzzzz": 1})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"tune.frame_px": 8}, "less than half of image.size 16"),
        ({"slots": ["c00", "c00"]}, "slots has a name twice"),
        ({"parts": ["p00", "p00"]}, "parts has a name twice"),
        ({"cluster.n_min": 131}, "cluster.n_min is 131, expected at most n_max 130"),
        ({"tune.min_batch": 65}, "tune.min_batch is 65, expected at most tune.batch 64"),
        ({"tune.frame_rate": 0}, "tune.frame_rate is 0"),
        ({"image.channels": 2}, "image.channels"),
        ({"image.size": 7}, "image.size"),
        ({"parts": []}, "parts"),
        ({"parts": ["../p00"]}, "parts.0"),
        ({"slots": ["C 00"]}, "slots.0"),
        ({"device": "tpu"}, "device"),
        ({"serve.mix": 1.5}, "serve.mix"),
        ({"cluster.n_max": 0}, "cluster.n_max"),
        ({"cluster.method": "kmeans"}, "cluster.method"),
        ({"cluster.method": "anchors", "cluster.anchors": 8}, "cluster.k is 9, expected at most cluster.anchors 8"),
        ({"image.interpolation": "nearest"}, "image.interpolation"),
        ({"image.crop": 0.4}, "image.crop"),
        ({"tune.momentum": 1.0}, "tune.momentum"),
        ({"tune.head_rate": float("nan")}, "tune.head_rate"),
        ({"evaluate.min_group": 1}, "evaluate.min_group"),
        ({"projection.levels": 2048}, "projection.levels"),
        ({"projection.kind": "pca"}, "projection.kind"),
        ({"features.depths": [3, 2]}, "features.depths is [3, 2], expected each block once, from the first to the last"),
        ({"features.depths": [2, 2]}, "features.depths is [2, 2]"),
        ({"features.depths": [-1]}, "features.depths.0"),
        ({"features.depths": [True]}, "features.depths.0"),
        ({"features.grid": 0}, "features.grid"),
        ({"features.grid": 9}, "features.grid"),
        ({"features.dim": 0}, "features.dim"),
        ({"head.shrinkage": 0}, "head.shrinkage"),
        ({"head.shrinkage": -1.0}, "head.shrinkage"),
        ({"head.evenness": -0.1}, "head.evenness"),
        ({"head.evenness": 1.1}, "head.evenness"),
        ({"head.temperature": 0}, "head.temperature"),
        ({"head.priors": "odd"}, "head.priors"),
        ({"tune.kind": "none"}, "serve.mix is 0.25, expected 0 with tune.kind none"),
        ({"tune.kind": "closed"}, "tune.kind is closed, expected head.kind discriminant"),
        ({"tune.pull": 0}, "tune.pull"),
        ({"tune": None}, "tune"),
    ],
)
def test_value_out_of_range_or_inconsistent_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(tmp_path, changes)


def test_frame_of_just_less_than_half_is_allowed(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, raw_params({"tune.frame_px": 7}))).tune.frame_px == 7


def test_fewer_slots_than_leaves_are_refused_and_the_message_says_how_many_are_needed(tmp_path: Path) -> None:
    message = refusal(tmp_path, {"skeleton.leaves": 19}, SlotError)
    assert "skeleton.leaves is 19" in message
    assert "append 3 more slots (19 are needed)" in message


def test_method_anchors_with_more_clusters_than_slots_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, {"cluster.method": "anchors", "cluster.k": 18}, SlotError)
    assert "append 2 more slots (18 are needed)" in message
    assert load_params(write(tmp_path, raw_params({"cluster.k": 18}))).cluster.k == 18  # method tree does not read it


@pytest.mark.parametrize(
    "text", ["a: [1,\n b: }", "a:\n\t- b", "a: \x00", "a: !!python/object:os.system x", "- 1", "", "seed", "{[1]: 2}"]
)
def test_broken_yaml_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    refused(ParamsError, lambda: load_params(path))


def test_params_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    refused(ParamsError, lambda: load_params(path))


def test_broken_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\ndevice: [cpu\nx: }", encoding="utf-8")
    assert "at line 3" in refused(ParamsError, lambda: load_params(path))


def test_absent_params_are_refused_without_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "CANARY-home" / "params.yaml"
    assert "params.yaml is missing" in refused(ParamsError, lambda: load_params(path))


def test_value_of_several_lines_is_refused_in_one_line(tmp_path: Path) -> None:
    refusal(tmp_path, {"source.kind": "digits\n\nand more"})


def test_params_cannot_be_changed_after_loading() -> None:
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.tune.epochs = 1  # type: ignore[misc]


def all_sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A section and, at any depth, those within it."""
    yield section
    for field in section.model_fields.values():
        for inner in _sections_of(field.annotation):
            yield from all_sections(inner)


def test_every_param_of_every_section_is_written_in_the_file() -> None:
    # No default lives in code: a field with one would let a missing key pass.
    sections = list(all_sections(Params))
    assert Weights in sections
    assert len(sections) > 14
    assert all(field.is_required() for section in sections for field in section.model_fields.values())


def test_unknown_key_with_a_line_break_is_refused_in_one_line(tmp_path: Path) -> None:
    refusal(tmp_path, {"a\nb": 1})


def test_param_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text(encoding="utf-8") + "\nseed: 7\n", encoding="utf-8")
    refused(ParamsError, lambda: load_params(path))


@pytest.mark.parametrize("changes", [{"tune.epochs": "20"}, {"tune.flip": "no"}, {"seed": True}])
def test_value_of_another_type_is_not_converted_in_silence(tmp_path: Path, changes: dict[str, Any]) -> None:
    refusal(tmp_path, changes)


def test_infinite_value_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path, {"tune.head_rate": float("inf")})


# sources


PUBLISHED = {
    "kind": "torchvision",
    "path": "sets",
    "public": "cifar100",
    "private": "cifar10",
    "public_limit": None,
    "private_limit": 100,
    "erase": False,
}


def test_each_kind_of_source_has_its_own_keys(tmp_path: Path) -> None:
    assert load_params(write(tmp_path, raw_params({"source": PUBLISHED}))).source.model_dump() == PUBLISHED
    assert "unknown param source.public; remove it" in refusal(tmp_path, {"source.public": "cifar10"})
    assert "param source.public_limit is missing" in refusal(
        tmp_path, {"source": {k: v for k, v in PUBLISHED.items() if k != "public_limit"}}
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"private_limi": 1}, "unknown param source.private_limi; did you mean private_limit?"),
        ({"public": "cifar11"}, "source.public is 'cifar11'"),
        ({"private_limit": 0}, "source.private_limit"),
        ({"public": "cifar10"}, "source.public and source.private are both cifar10"),
        ({"kind": "torchvison"}, "source.kind is 'torchvison': expected digits, manifest, torchvision"),
        ({"erase": "no"}, "source.erase"),
    ],
)
def test_source_that_makes_no_sense_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(tmp_path, {"source": PUBLISHED | changes})


# weights


SHA = "0" * 64


def test_backbone_with_weights_is_not_pretrained(tmp_path: Path) -> None:
    weights = {"file": "hub", "sha256": SHA}
    changes = {"pretrain.weights": weights, "pretrain.epochs": 0, "pretrain.small_stem": False}
    loaded = load_params(write(tmp_path, raw_params(changes))).pretrain
    assert loaded.weights is not None
    assert loaded.weights.model_dump() == weights


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "pretrain.epochs is 40, expected 0 with pretrain.weights"),
        ({"pretrain.epochs": 0}, "pretrain.small_stem is true, expected false with pretrain.weights"),
        ({"pretrain.weights": "hub"}, "pretrain.weights"),
        ({"pretrain.weights": {"file": "hub"}}, "param pretrain.weights.sha256 is missing"),
        ({"pretrain.weights": {"file": "", "sha256": SHA}}, "pretrain.weights.file"),
        ({"pretrain.weights": {"file": "hub", "sha256": SHA[1:]}}, "pretrain.weights.sha256"),
        ({"pretrain.weights": {"file": "hub", "sha256": SHA, "sha": 1}}, "did you mean sha256?"),
        ({"pretrain.weights": None, "pretrain.epochs": 0}, "pretrain.epochs is 0, expected at least 1, or pretrain.weights"),
    ],
)
def test_weights_that_make_no_sense_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    assert expected in refusal(tmp_path, {"pretrain.weights": {"file": "hub", "sha256": SHA}} | changes)
