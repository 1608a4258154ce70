"""Published data sets: real layouts are read, names are stable, what two sets share is private, broken folders are refused."""

import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import ROOT, raw_params, refused
from numpy.typing import NDArray
from PIL import Image
from published_sets import images, published, write_all, write_gtsrb

from lmeraser.core.errors import ImageError, ManifestError, ParamsError
from lmeraser.core.params import load_params
from lmeraser.sources import ErasableSource, Source, open_erasable_source, open_source
from lmeraser.sources.published import choose, download, read_items
from lmeraser.sources.splitting import Split, split_source

NAMES = ("cifar10", "cifar100", "svhn", "gtsrb")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_all(tmp_path / "sets", monkeypatch)


def place(where: str, number: int, between: str = "-") -> str:
    """A subject's name. Never written out: a project's folder holds these tests, and a scan finds erased names in them."""
    return f"{where}{between}{number:05d}"


def opened(root: Path, public: str = "cifar100", private: str = "cifar10", **changes: Any) -> Source:
    return open_source(published(root, public, private, **changes), ROOT)


def names(source: Source, **wanted: str) -> list[str]:
    table = source.table()
    for column, value in wanted.items():
        table = table[table[column] == value]
    return list(table["subject"])


def pixels_of(source: Source, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(source.image(name))))


@pytest.mark.parametrize(
    ("private", "train", "test"), [("cifar10", 40, 8), ("cifar100", 40, 8), ("svhn", 24, 6), ("gtsrb", 9, 4)]
)
def test_every_image_of_the_private_set_is_a_subject_of_its_own(root: Path, private: str, train: int, test: int) -> None:
    source = opened(root, "svhn" if private != "svhn" else "cifar10", private)
    table = source.table()
    mine = table[table["visibility"] == "private"]
    assert len(mine[mine["split"] == "train"]) == train
    assert len(mine[mine["split"] == "test"]) == test
    assert table["subject"].is_unique
    assert (table["subject"] == table["path"]).all()
    assert all(name.startswith(f"{private}-{split}-") for name, split in zip(mine["subject"], mine["split"], strict=True))


def test_pixels_and_labels_are_those_of_the_files(root: Path) -> None:
    cifar = opened(root)
    assert np.array_equal(pixels_of(cifar, place("cifar10-train", 17)), images(1, 48)[17])
    assert np.array_equal(pixels_of(cifar, place("cifar10-test", 2)), images(1, 48)[42])
    labels = dict(zip(cifar.table()["subject"], cifar.table()["label"], strict=True))
    assert labels[place("cifar10-train", 17)] == ["airplane", "cat", "dog"][17 % 3]
    assert labels[place("cifar100-train", 2)] == "cup"
    others = opened(root, "svhn", "gtsrb")
    assert np.array_equal(pixels_of(others, place("svhn-train", 9)), images(3, 24)[9])
    labels = dict(zip(others.table()["subject"], others.table()["label"], strict=True))
    assert labels[place("svhn-train", 9)] == "0"  # MATLAB's 10
    assert labels[place("svhn-train", 0)] == "1"
    assert labels[place("gtsrb-train-00042-00000", 1, "_")] == labels[place("gtsrb-test", 2)] == "42"
    assert pixels_of(others, place("gtsrb-train-00042-00000", 2, "_")).shape == (22, 25, 3)


def test_public_records_are_training_images_alone(root: Path) -> None:
    assert names(opened(root, "svhn", "cifar10"), visibility="public", split="test") == []
    assert len(names(opened(root, "svhn", "cifar10"), visibility="public")) == 24


def test_images_that_both_sets_have_are_private_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = opened(root)
    public = names(source, visibility="public")
    assert len(public) == 37
    assert not {place("cifar100-train", n) for n in (3, 5, 17)} & set(public)
    assert "3 images of cifar100 left out, cifar10 has them too" in capsys.readouterr().err
    seen = {source.image(name) for name in names(source, visibility="private")}
    assert not seen & {source.image(name) for name in public}


def test_what_is_shared_is_left_out_whatever_the_limits_and_the_erased(root: Path) -> None:
    whole = names(opened(root), visibility="public")
    assert names(opened(root, private_limit=1), visibility="public") == whole

    def public_of(erased: set[str]) -> list[str]:
        split = split_source(opened(root), lambda subject: subject in erased, 2, 10_000)
        return [record.subject for record, _ in split.public]

    assert public_of({place("cifar10-train", 0), place("cifar10-test", 4)}) == public_of(set()) == whole


def test_limit_takes_the_same_share_of_train_and_test_and_a_larger_one_only_adds(root: Path) -> None:
    items = read_items(root, "cifar10", ("train", "test"))
    before: set[str] = set()
    for limit in range(1, 49):
        chosen = {item.name for item in choose(items, limit)}
        assert len(chosen) == limit
        assert before <= chosen
        assert abs(sum(name.startswith("cifar10-test") for name in chosen) - limit * 8 / 48) <= 0.5
        before = chosen
    assert choose(items, 48) == choose(items, None) == choose(items, 1000) == items
    rows = [int(name[-5:]) for name in {i.name for i in choose(items, 12)}]
    assert sorted(rows) != list(range(12))  # by hash, not by row
    assert len(names(opened(root, public_limit=10, private_limit=12))) == 22


def test_a_record_is_the_same_under_any_limit(root: Path) -> None:
    def records(**changes: Any) -> dict[str, bytes]:
        split = split_source(opened(root, **changes), lambda _: False, 1, 10_000)
        return {record.id: image for record, image in [*split.public, *split.private[0]]}

    whole, some = records(), records(public_limit=20, private_limit=20)
    assert some.items() <= whole.items()
    assert len(some) == 40


@pytest.mark.parametrize("limit", [None, 24])
def test_rebuild_from_an_exported_manifest_gives_the_same_records(root: Path, tmp_path: Path, limit: int | None) -> None:
    from flows.audit.rebuild import export_retained
    from flows.project import Project
    from lmeraser.core.layout import Layout
    from lmeraser.erase.erased import ErasedList

    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    source = published(root, private_limit=limit).model_dump()
    (project / "params.yaml").write_text(yaml.safe_dump(raw_params({"source": source})))
    (project / "dvc.yaml").touch()
    layout = Layout(project)
    ErasedList(None, frozenset()).write(layout.erased)
    export_retained(Project(layout), tmp_path / "retained")

    def key(split: Split) -> object:
        return sorted(split.public), [sorted(part) for part in split.private]

    manifest = load_params(ROOT / "params.yaml").source.model_copy(
        update={"kind": "manifest", "path": str(tmp_path / "retained")}
    )
    straight = split_source(open_source(load_params(layout.params).source, project), lambda _: False, 4, 10_000)
    again = split_source(open_source(manifest, project), lambda _: False, 4, 10_000)
    assert key(straight) == key(again)
    assert sum(map(len, straight.private)) == (limit or 48)


# refusals


def damage(file: str, how: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda root: how(root / file)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def folder_for_a_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


def file_for_a_folder(path: Path) -> None:
    path.rename(path.with_name("x"))
    path.touch()


BROKEN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing batch": ("cifar10", damage("cifar-10-batches-py/data_batch_3", Path.unlink), "cifar-10-batches-py/data_batch_3"),
    "missing names": (
        "cifar100",
        damage("cifar-100-python/meta", Path.unlink),
        "1 of 3 files are missing: cifar-100-python/meta",
    ),
    "cut batch": ("cifar10", damage("cifar-10-batches-py/test_batch", truncate), "test_batch does not match the published file"),
    "cut matrix": ("svhn", damage("train_32x32.mat", truncate), "train_32x32.mat does not match the published file"),
    "missing matrix": ("svhn", damage("test_32x32.mat", Path.unlink), "1 of 2 files are missing: test_32x32.mat"),
    "missing table": ("gtsrb", damage("gtsrb/GT-final_test.csv", Path.unlink), "gtsrb/GT-final_test.csv"),
    "bad table": ("gtsrb", damage("gtsrb/GT-final_test.csv", lambda p: p.write_text("a;b\n1;2\n")), "cannot be read (KeyError)"),
    "row of another folder": (
        "gtsrb",
        damage("gtsrb/GT-final_test.csv", lambda p: p.write_text("Filename;ClassId\n../GT-final_test.csv;7\n")),
        "GT-final_test.csv of gtsrb cannot be read (ValueError)",
    ),
    "short row": (
        "gtsrb",
        damage("gtsrb/GT-final_test.csv", lambda p: p.write_text("Filename;ClassId\n00000.ppm\n")),
        "cannot be read (AttributeError)",
    ),
    "folder for a file": (
        "cifar100",
        damage("cifar-100-python/test", folder_for_a_file),
        "missing: cifar-100-python/test",
    ),
    "file for a folder": (
        "gtsrb",
        damage("gtsrb/GTSRB/Training", file_for_a_folder),
        "missing: gtsrb/GTSRB/Training",
    ),
    "binary table": ("gtsrb", damage("gtsrb/GT-final_test.csv", lambda p: p.write_bytes(b"\xff\xfe\0")), "cannot be read"),
    "missing test image": ("gtsrb", damage("gtsrb/GTSRB/Final_Test/Images/00001.ppm", Path.unlink), "lacks 1 of the images"),
    "missing image": ("gtsrb", damage("gtsrb/GTSRB/Training/00007/00000_00001.ppm", Path.unlink), "Training/00007 lacks 1"),
    "cut image": ("gtsrb", damage("gtsrb/GTSRB/Training/00007/00000_00001.ppm", truncate), "cannot be decoded"),
    "no class": ("gtsrb", damage("gtsrb/GTSRB/Training/CANARY-x", Path.mkdir), "expected 00000 to 00042: move it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_or_partial_folder_is_refused_in_one_line(root: Path, case: str) -> None:
    private, act, expected = BROKEN[case]
    act(root)
    public = "svhn" if private != "svhn" else "cifar10"
    assert expected in refused(ManifestError, lambda: opened(root, public, private).table())


def test_class_folder_that_the_test_set_misses_is_refused(root: Path) -> None:
    folder = root / "gtsrb/GTSRB/Training/00042"
    for file in folder.iterdir():
        file.unlink()
    assert "00042 lacks all of its images" in refused(ManifestError, lambda: opened(root, "svhn", "gtsrb").table())
    folder.rmdir()
    assert "lacks 1 classes of the test images" in refused(ManifestError, lambda: opened(root, "svhn", "gtsrb").table())
    assert len(names(opened(root, "gtsrb", "svhn"), visibility="public")) == 6  # as a public set its test images do not matter


def test_labels_are_the_folders_numbers_also_where_tables_are_absent(tmp_path: Path) -> None:
    write_gtsrb(tmp_path, tables=False)
    assert {item.label for item in read_items(tmp_path, "gtsrb", ("train",))} == {"00", "07", "42"}


@pytest.mark.parametrize("name", NAMES)
def test_absent_data_set_is_told_file_by_file(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        message = refused(ManifestError, partial(read_items, folder, name, ("train", "test")))
        assert "files are missing" in message
        assert f"ROOT {name}" in message
        assert "data_batch_5" in message or name != "cifar10"


def test_pickle_that_was_not_published_is_never_opened(root: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "opened",)

    (root / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(Hostile()))
    refused(ManifestError, lambda: opened(root).table())
    assert not (tmp_path / "opened").exists()


def test_published_sets_cannot_be_erased_from(root: Path) -> None:
    assert "set it to false" in refused(ParamsError, lambda: opened(root, erase=True))
    assert not isinstance(opened(root), ErasableSource)
    refused(ParamsError, lambda: open_erasable_source(published(root, "cifar100", "cifar10"), ROOT))


def test_path_that_names_no_image_is_refused(root: Path) -> None:
    for path in ("CANARY", place("cifar10-train", 40), "", place("cifar100-train", 3)):
        refused(ImageError, partial(opened(root).image, path))


def test_download_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request
    from urllib.error import URLError

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network\nhere")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    for name in NAMES:
        assert f"{name} cannot be downloaded" in refused(ManifestError, partial(download, tmp_path, name))
