"""Where a source may lie, and what DVC must be able to hash: refused before anything is trained, by count and without a name."""

import os
from functools import partial
from pathlib import Path

import pytest
from builders import make_params, refused, standard_rows, write_source

from flows.run.build import check_early
from lmeraser.core.errors import ImageError, LmeraserError, ManifestError, ParamsError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Source
from lmeraser.sources import check_source, open_source
from lmeraser.sources.place import OWN_FOLDERS, tracked


def params(path: str | Path, erase: bool = False) -> Source:
    return Source(kind="manifest", path=str(path), erase=erase)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty project."""
    folder = tmp_path / "project"
    for name in (".dvc", ".git", "artifacts", "data"):
        (folder / name).mkdir(parents=True)
    return folder


def line(path: str | Path, root: Path, kind: type[LmeraserError] = ParamsError, erase: bool = False) -> str:
    return refused(kind, lambda: check_source(params(path, erase), root))


@pytest.mark.parametrize("below", ["", "people", "a/b"])
@pytest.mark.parametrize("own", OWN_FOLDERS)
def test_source_in_a_folder_of_the_projects_own_is_refused(root: Path, own: str, below: str) -> None:
    write_source(root / own / below, standard_rows())
    assert f"{own}/" in line(Path(own) / below, root)
    assert f"{own}/" in line(Path(own) / below / "manifest.csv", root)
    assert f"{own}/" in line(root / "data" / ".." / own / below, root)


def test_source_that_leads_into_a_folder_of_the_projects_own_by_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    write_source(root / "artifacts" / "people", standard_rows())
    (tmp_path / "alias").symlink_to(root / "artifacts" / "people")
    assert "artifacts/" in line(tmp_path / "alias", root)
    (tmp_path / "people").mkdir()
    (tmp_path / "people" / "manifest.csv").symlink_to(root / "artifacts" / "people" / "manifest.csv")
    assert "link into the project's own folders" in line(tmp_path / "people", root, ManifestError)
    (root / "metrics").symlink_to(tmp_path / "elsewhere")
    write_source(tmp_path / "elsewhere" / "people", standard_rows())
    assert "metrics/" in line(tmp_path / "elsewhere" / "people", root)


@pytest.mark.parametrize("path", [".", "..", "data", "./data/../.", "/"])
def test_source_that_holds_the_project_or_its_lists_is_refused(root: Path, path: str) -> None:
    write_source(root / "data", standard_rows())
    write_source(root, standard_rows())
    write_source(root.parent, standard_rows())
    line(path, root)


def test_image_in_a_folder_of_the_projects_own_is_refused(root: Path) -> None:
    write_source(root, [*standard_rows()])
    write_source(root / "artifacts", standard_rows())
    source = open_source(params("manifest.csv"), root)
    assert source.image("image-0.png")
    assert "own folders" in refused(ImageError, lambda: source.image("artifacts/image-0.png"))


def test_source_beside_or_in_the_project_is_read(root: Path, tmp_path: Path) -> None:
    for path in (root / "people", root / "data" / "people", tmp_path / "people", root / "artifacts2"):
        write_source(path, standard_rows())
        assert len(check_source(params(path), root).table()) == 7
        assert len(check_source(params(os.path.relpath(path, root), erase=True), root).table()) == 7

    assert len(open_source(make_params().source, Path(__file__).parents[2]).table()) == 1797


DVC = "outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e.dir\n  size: 1\n  nfiles: 1\n  hash: md5\n  path: {}\n"
PIPELINE = "stages:\n  fetch:\n    cmd: x\n    {}outs:\n    - {}\n"
TRACKS = {
    "dvc add of the folder": ("data/people.dvc", DVC.format("people")),
    "dvc add of a folder above": ("data.dvc", DVC.format("data")),
    "dvc add of a folder below": ("data/people/photos.dvc", DVC.format("photos")),
    "dvc add of the manifest": ("data/people/manifest.csv.dvc", DVC.format("manifest.csv")),
    "dvc import": ("data/people.dvc", "deps:\n- path: x\n  repo: {url: u}\n" + DVC.format("people")),
    "a file with a folder of its own": ("x.dvc", DVC.format("people") + "wdir: data\n"),
    "another pipeline": ("prepare/dvc.yaml", PIPELINE.format("", "../data/people")),
    "another pipeline with options": ("prepare/dvc.yaml", PIPELINE.format("wdir: ..\n    ", "data/people: {cache: true}")),
    "another pipeline's file": ("prepare/dvc.yaml", PIPELINE.format("", "../data/people/manifest.csv")),
}


@pytest.mark.parametrize(("file", "text"), TRACKS.values(), ids=TRACKS)
def test_source_that_dvc_tracks_is_refused_with_what_to_do(root: Path, file: str, text: str) -> None:
    write_source(root / "data" / "people", standard_rows())
    assert len(check_source(params("data/people"), root).table()) == 7
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    assert "dvc remove" in line("data/people", root)


def test_what_dvc_tracks_elsewhere_is_no_matter(root: Path, tmp_path: Path) -> None:
    write_source(root / "data" / "people", standard_rows())
    (root / "data" / "other.dvc").write_text(DVC.format("other"))
    (root / "data" / "people2.dvc").write_text(DVC.format("people2"))
    (root / "inner" / ".dvc").mkdir(parents=True)
    (root / "inner" / "x.dvc").write_text(DVC.format("../data/people"))
    (root / "broken.dvc").write_text("{")
    (root / "dvc.yaml").write_text("stages:\n  split:\n    cmd: x\n    outs: ['${source.path}', artifacts/split]\n")
    assert not tracked(root / "data" / "people", root)
    # Of another repository: its copies matter where this project promises to erase from the source.
    write_source(tmp_path / "registry" / "people", standard_rows())
    (tmp_path / "registry" / "people.dvc").write_text(DVC.format("people"))
    assert len(check_source(params(tmp_path / "registry" / "people"), root).table()) == 7
    assert "dvc remove" in line(tmp_path / "registry" / "people", root, erase=True)


def dangling(folder: Path) -> None:
    (folder / "CANARY.png").symlink_to("nowhere.png")


def loop(folder: Path) -> None:
    (folder / "CANARY").symlink_to("CANARY")


def latin1(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/CANARY-\xdf.png")).write_bytes(b"")


def latin1_folder(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/CANARY-\xdf")).mkdir()


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "CANARY")


@pytest.mark.parametrize("oddity", [dangling, loop, latin1, latin1_folder, pipe])
def test_what_dvc_cannot_hash_is_refused_before_anything_by_count(root: Path, oddity: object) -> None:
    folder = write_source(root / "people", standard_rows())
    (folder / "deep").mkdir()
    oddity(folder / "deep")  # type: ignore[operator]
    message = refused(ParamsError, lambda: check_early(Layout(root), make_params({"source": {**vars(params("people"))}})))
    assert "holds 1 " in message
    assert "find SOURCE" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_refused_by_count(root: Path) -> None:
    folder = write_source(root / "people", standard_rows())
    (folder / "image-1.png").chmod(0)
    assert "holds 1 files or folders that cannot be read" in line("people", root)


@pytest.mark.parametrize("missing", [".git", ".dvc"])
def test_build_without_git_or_dvc_is_refused_before_anything(root: Path, missing: str) -> None:
    write_source(root / "people", standard_rows())
    (root / missing).rmdir()
    known = make_params({"source": {**vars(params("people"))}})
    assert f"{missing} is missing" in refused(ProjectError, lambda: check_early(Layout(root), known))


def test_source_in_dvcs_cache_or_in_a_remote_is_refused(root: Path, tmp_path: Path) -> None:
    (root / ".dvc" / "config").write_text(f"[cache]\n dir = {tmp_path}/cache\n['remote \"r\"']\n url = {tmp_path}/remote\n")
    for place in ("cache", "remote"):
        write_source(tmp_path / place / "people", standard_rows())
        known = make_params({"source": {**vars(params(tmp_path / place / "people"))}})
        assert "cache or a DVC remote" in refused(ParamsError, partial(check_early, Layout(root), known))
