"""CIFAR-100 public, CIFAR-10 private, a transformer's weights from a file: built, images forgotten, rebuilt to the same bytes."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from published_sets import images, published, write_cifar
from safetensors.torch import save_file
from sandbox import Sandbox, make_project, refused

from lmeraser.core.digest import sha256_of_file

pytestmark = pytest.mark.slow

# In the project's own copy of the code: the small files are those that were published.
SMALL_SETS = """

_class_of_published = _class_of


def _class_of(name: str) -> Any:
    kind = _class_of_published(name)
    digests = {digests}
    kind.train_list = [[file, digests[f"{{kind.base_folder}}/{{file}}"]] for file, _ in kind.train_list]
    kind.test_list = [[file, digests[f"{{kind.base_folder}}/{{file}}"]] for file, _ in kind.test_list]
    kind.meta = kind.meta | {{"md5": digests[f"{{kind.base_folder}}/{{kind.meta['filename']}}"]}}
    return kind
"""
KWARGS: dict[str, Any] = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32, "patch_size": 8}
CHANGES: dict[str, dict[str, Any]] = {
    "image": {"size": 32, "channels": 3, "interpolation": "bicubic", "crop": 0.9},
    "cluster": {"unit": "record", "n_max": 45},
    "tune": {"epochs": 2, "frame_px": 4},
}


def write_weights(path: Path) -> str:
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224.augreg_in21k", num_classes=7, **KWARGS)
    path.parent.mkdir()
    save_file(model.state_dict(), path)
    return sha256_of_file(path)


@pytest.fixture
def project(tmp_path: Path) -> Sandbox:
    sets = tmp_path / "sets"
    private, public = images(1, 150), images(2, 100)
    public[[3, 17, 40]] = private[[0, 31, 140]]
    write_cifar(sets, "cifar10", private[:120], private[120:])
    write_cifar(sets, "cifar100", public[:80], public[80:])
    digests = {str(p.relative_to(sets)): hashlib.md5(p.read_bytes()).hexdigest() for p in sets.rglob("*") if p.is_file()}  # noqa: S324
    sandbox = make_project(tmp_path / "project")
    with (sandbox.root / "lmeraser" / "sources" / "published.py").open("a") as code:
        code.write(SMALL_SETS.format(digests=digests))
    with (sandbox.root / ".gitignore").open("a") as ignored:
        ignored.write("/weights/\n")
    digest = write_weights(sandbox.root / "weights" / "vit.safetensors")
    sandbox.set_params(**CHANGES)
    path = sandbox.root / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["source"] = published(sets).model_dump()
    raw["pretrain"] |= {
        "model": "vit_base_patch16_224.augreg_in21k",
        "kwargs": KWARGS,
        "weights": {"file": "weights/vit.safetensors", "sha256": digest},
        "small_stem": False,
        "epochs": 0,
    }
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return sandbox


def test_published_sets_and_weights_build_forget_and_rebuild_to_the_same_bytes(project: Sandbox) -> None:
    done = project.lmeraser("build")
    assert done.returncode == 0, done.stderr
    assert "split: 77 public and 150 private records" in done.stderr
    before = project.lock()
    # Not written out: the project holds this file, and the scan would find the names of the erased in it.
    summary = project.json(
        "forget", "--subject", *(f"cifar10-{split}-{number:05d}" for split, number in (("train", 42), ("test", 3)))
    )
    assert summary["state"] == "certified"
    assert project.lock()["pretrain"]["outs"] == before["pretrain"]["outs"]
    # The copy of the audit has neither the weights' folder nor the published files: it is given both.
    assert project.json("audit", "--rebuild")["equal"] is True


def test_absent_or_damaged_files_are_one_line(project: Sandbox) -> None:
    sets = Path(yaml.safe_load((project.root / "params.yaml").read_text())["source"]["path"])
    batch = sets / "cifar-10-batches-py" / "data_batch_2"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    assert "data_batch_2 does not match the published file" in refused(project.lmeraser("build"), 2)
    batch.unlink()
    assert "1 of 7 files are missing: cifar-10-batches-py/data_batch_2" in refused(project.lmeraser("build"), 2)
    batch.write_bytes(whole)
    weights = project.root / "weights" / "vit.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "sha256 mismatch" in refused(project.lmeraser("build"), 2)
    weights.unlink()
    assert "pretrain.weights.file cannot be read" in refused(project.lmeraser("build"), 2)
    shutil.rmtree(sets)
    assert "7 of 7 files are missing: cifar-10-batches-py/data_batch_1" in refused(project.lmeraser("build"), 2)
    (project.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")  # then DVC looks at the source first
    assert "7 of 7 files are missing: cifar-10-batches-py/data_batch_1" in refused(project.lmeraser("build"), 2)
