"""`lmeraser new`: a whole project or none, with the code that made it, and the params that its images ask for."""

import shutil
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml
from builders import ROOT, contents, png, refused

from flows import git
from flows.dvc.params_file import with_values
from flows.start import project_folder
from flows.start.presets import SMALL, Wish, choose, filled, presets
from flows.start.project_folder import Counts, make
from flows.start.template import FILES, Template
from lmeraser.core.code import PACKAGES, code_digest
from lmeraser.core.errors import BadInputError, ManifestError, ParamsError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params, read_params
from lmeraser.erase.erased import ErasedList

HEADER = "path,label,subject,visibility,split\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project; never change it."""
    place = tmp_path_factory.mktemp("new") / "try-it"
    make(place, Wish())
    return place


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = [("a", "0", "x", "public"), ("b", "1", "y", "public"), ("c", "0", "CANARY", "private"), ("d", "1", "z", "private")]
    for seed, row in enumerate(rows):
        (folder / f"{row[0]}.png").write_bytes(png(seed=seed))
    lines = [f"{name}.png,{label},{subject},{shown},train\n" for name, label, subject, shown in rows]
    (folder / "manifest.csv").write_text(HEADER + "".join(lines))
    return folder


def test_new_project_is_whole_committed_and_of_the_code_that_made_it(project: Path) -> None:
    layout = Layout.find(project)
    assert load_params(layout.params).source.kind == "digits"
    assert code_digest(project, PACKAGES) == code_digest(ROOT, PACKAGES)
    assert ErasedList.read(layout.erased).pseudonyms == frozenset()
    assert git.run(project, "status", "--porcelain").stdout == b""
    assert git.run(project, "rev-list", "--count", "HEAD").stdout.strip() == b"1"
    assert not list(project.parent.glob(".writing-*"))
    assert not list(project.rglob("__pycache__"))


def test_every_file_that_a_stage_depends_on_is_there(project: Path) -> None:
    stages = yaml.safe_load((project / "dvc.yaml").read_text())["stages"]
    deps = {dep for stage in stages.values() for dep in stage.get("do", stage)["deps"] if dep.startswith(("lmeraser", "stages"))}
    assert [dep for dep in sorted(deps) if not (project / dep).is_file()] == []
    assert len(deps) > 50


def test_wheel_holds_what_a_project_needs_beside_the_code() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    names = {name for listed in declared.values() for name in listed}
    assert names == {*FILES, "params/*.yaml"}
    for place, listed in declared.items():
        for name in listed:
            assert f"{place}/{Path(name).name}" == f"share/lmeraser/{name}"


def test_origins_list_of_erased_people_stays_where_it_is(project: Path) -> None:
    assert "data/erased.json" not in FILES


@pytest.mark.parametrize("kind", ["file", "full", "below a file", "no parent", "in a project"])
def test_place_that_is_taken_is_refused_and_left_as_it_was(project: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "CANARY-file").touch()
    (tmp_path / "CANARY-full").mkdir()
    (tmp_path / "CANARY-full" / "x").touch()
    target = {
        "file": tmp_path / "CANARY-file",
        "full": tmp_path / "CANARY-full",
        "below a file": tmp_path / "CANARY-file" / "x",
        "no parent": tmp_path / "CANARY-nobody" / "x",
        "in a project": project / "CANARY-inner",
    }[kind]
    before = contents(tmp_path)
    line = refused(BadInputError, lambda: make(target, Wish()))
    says = {"full": "holds something", "in a project": "lies in another project", "file": "is no folder"}
    assert says.get(kind, "the folder above DIR") in line
    assert contents(tmp_path) == before
    assert not target.is_dir() or kind == "full"


def test_empty_folder_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    make(tmp_path / "p", Wish())
    assert (tmp_path / "p" / "dvc.yaml").is_file()


def test_images_of_ones_own_are_named_in_params_and_counted(data: Path, tmp_path: Path) -> None:
    made = make(tmp_path / "p", Wish(data=data))
    assert made.preset == SMALL
    assert made.data == Counts(records=4, subjects=4, labels=2)
    params = load_params(tmp_path / "p" / "params.yaml")
    assert (params.source.kind, params.source.path) == ("manifest", str(data))
    expected = read_params(ROOT / "params" / f"{SMALL}.yaml")
    assert params.model_copy(update={"source": expected.source}) == expected


def test_yardstick_is_left_out_where_it_would_take_longer_than_all_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, kept in ((8, True), (7, False)):
        monkeypatch.setattr(project_folder, "MOST_FITTED", most)
        made = make(tmp_path / str(most), Wish(data=data))
        assert made.params.evaluate.linear_head is kept
        assert load_params(tmp_path / str(most) / "params.yaml").evaluate.linear_head is kept


def test_manifest_that_a_build_would_refuse_is_refused_before_anything_is_made(data: Path, tmp_path: Path) -> None:
    (data / "manifest.csv").write_text(HEADER + "c.png,0,CANARY,private,train\n")
    assert "no public training records" in refused(ManifestError, lambda: make(tmp_path / "p", Wish(data=data)))
    assert not (tmp_path / "p").exists()


def test_project_within_its_images_is_refused(data: Path) -> None:
    assert "holds the project's own folder" in refused(ParamsError, lambda: make(data / "p", Wish(data=data)))


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (Wish(preset="CANARY"), "no preset of that name; expected digits"),
        (Wish(preset=SMALL), "expected --data"),
        (Wish(preset="efficientnet-lite0", data=Path("/photos")), "expected --weights"),
        (Wish(preset=SMALL, data=Path("/photos"), weights=ROOT / "LICENSE"), "expected no --weights"),
        (Wish(data=Path("/photos"), weights=ROOT / "LICENSE"), "that of no preset"),
        (Wish(data=Path("/photos"), weights=Path("/CANARY-missing")), "cannot be read"),
        (Wish(weights=ROOT / "LICENSE"), "expected --data"),
        (Wish(data=ROOT / "docs"), "`lmeraser manifest FOLDER` makes one"),
        (Wish(data=ROOT / "CANARY"), "--data is not there"),
    ],
)
def test_wish_that_does_not_hold_together_is_refused(tmp_path: Path, wish: Wish, says: str) -> None:
    assert says in refused(BadInputError, lambda: make(tmp_path / "p", wish))
    assert not (tmp_path / "p").exists()


def test_weights_choose_the_preset_by_their_digest_or_name(tmp_path: Path) -> None:
    named = tmp_path / "tf_efficientnet_lite0.safetensors"
    named.write_bytes(b"other")
    assert choose(Wish(data=tmp_path, weights=named), ROOT) == "efficientnet-lite0"


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"PK\x03\x04 zipped", b"\0" * 8 + b"{}", b""])
def test_weights_of_another_kind_are_refused_and_nothing_is_left(data: Path, tmp_path: Path, content: bytes) -> None:
    weights = tmp_path / "tf_efficientnet_lite0.safetensors"
    weights.write_bytes(content)
    before = contents(tmp_path)
    assert "safetensors" in refused(ParamsError, lambda: make(tmp_path / "p", Wish(data=data, weights=weights)))
    assert contents(tmp_path) == before


def test_changed_params_of_a_clone_are_nobodys_preset(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "params", tmp_path / "params")
    shutil.copy(ROOT / "params" / f"{SMALL}.yaml", tmp_path / "params.yaml")
    with pytest.raises(ProjectError, match="was changed for other data"):
        filled("digits", Wish(), tmp_path)


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert "disk is full" in refused(BadInputError, lambda: make(tmp_path / "p", Wish()))
    assert list(tmp_path.iterdir()) == []


def test_package_without_the_files_beside_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.start.template.CODE", tmp_path)
    monkeypatch.setattr("flows.start.template.distribution", lambda _: type("D", (), {"files": None})())
    assert "holds the code alone" in refused(ProjectError, Template.own)


def test_installed_package_gives_its_files_and_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, share = tmp_path / "site-packages", tmp_path / "share" / "lmeraser"
    for name in (*FILES, "params/small.yaml"):
        (share / name).parent.mkdir(parents=True, exist_ok=True)
        (share / name).touch()
    for package in PACKAGES:
        (site / package / "__pycache__").mkdir(parents=True)
        for name in ("__init__.py", "page.html", "__pycache__/x.pyc"):
            (site / package / name).touch()

    class Listed(PurePosixPath):
        def locate(self) -> Path:
            return site / self

    files = [Listed(name) for name in ("lmeraser/__init__.py", "../share/lmeraser/dvc.yaml")]
    monkeypatch.setattr("flows.start.template.CODE", site)
    monkeypatch.setattr("flows.start.template.distribution", lambda _: type("D", (), {"files": files})())
    monkeypatch.setattr("flows.start.template.version", lambda _: "9.9")
    template = Template.own()
    assert template.revision == "lmeraser 9.9"
    code = [f"{package}/{name}" for package in PACKAGES for name in ("__init__.py", "page.html")]
    assert sorted(name for name, _ in template.contents()) == sorted([*FILES, "params/small.yaml", *code])
    (share / "Makefile").unlink()
    assert "Makefile is missing" in refused(ProjectError, lambda: list(template.contents()))


def test_every_preset_can_be_filled_in_and_keeps_all_else(tmp_path: Path) -> None:
    for path in presets(ROOT).values():
        text = path.read_text()
        changed = with_values(text, {("source", "path"): "/data/ä b: #1's"})
        before, after = yaml.safe_load(text), yaml.safe_load(changed)
        assert after["source"]["path"] == "/data/ä b: #1's"
        assert after | {"source": before["source"]} == before
        assert len(changed.splitlines()) == len(text.splitlines())


def test_path_with_letters_that_nobody_sees_is_refused() -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "nobody sees" in refused(ParamsError, lambda: with_values(text, {("source", "path"): "/CANARY\u200b"}))
