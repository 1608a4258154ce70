"""`source.erase`: rows and files are gone for good and everything else is as it was; or it is refused while nothing is done."""

import os
import stat
from pathlib import Path

import pytest
from builders import Row, contents, png, refused, standard_rows, write_manifest, write_source
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import ManifestError, StepFailedError
from lmeraser.sources import erasing
from lmeraser.sources.base import COLUMNS
from lmeraser.sources.manifest import ManifestSource

HEADER = ",".join(COLUMNS)


def ada(subject: str) -> bool:
    return subject == "ada"


def rows(*named: tuple[str, str]) -> list[tuple[str, ...]]:
    return [(path, "one", subject, "private", "train") for path, subject in named]


def sourced(folder: Path, *named: tuple[str, str]) -> ManifestSource:
    """A manifest of (path, subject) over the standard images."""
    write_source(folder, standard_rows())
    write_manifest(folder, rows(*named))
    return ManifestSource.open(folder)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_linked_manifest_loses_the_rows_in_the_table_itself_and_stays_a_link(tmp_path: Path, kind: str) -> None:
    folder = write_source(tmp_path / "people", standard_rows(), kind)
    (tmp_path / "team").mkdir()
    table = (folder / f"manifest.{kind}").rename(tmp_path / "team" / f"all.{kind}")
    (folder / "between").symlink_to(table)
    (folder / f"manifest.{kind}").symlink_to("between")
    source = ManifestSource.open(folder)
    source.check_erasable()
    assert source.drop(ada) == 3
    assert (folder / f"manifest.{kind}").is_symlink()
    assert not table.is_symlink()
    assert "ada" not in ManifestSource.open(folder).table()["subject"].tolist()
    assert sorted(path.name for path in (tmp_path / "team").iterdir()) == [f"all.{kind}"]


@given(st.sampled_from([0o600, 0o640, 0o664, 0o444 | 0o200]), st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_mode_mark_line_ends_and_quotes_stay(
    tmp_path_factory: pytest.TempPathFactory, mode: int, marked: bool, eol: str, ended: bool
) -> None:
    folder = tmp_path_factory.mktemp("source")
    lines = [
        f'"path",label,subject,visibility,split,,note,note{eol}',
        f'a.png,one,ada,private,train,,"x{eol}y",{eol}',
        f'b.png,"one",  ben ,private,train,,1,"2 ""3"""{eol}',
        eol,
        f'"c.png",one,"ada",private,train,,,{eol}',
        f"d.png,one,cem,private,train,, , {eol}" if ended else "d.png,one,cem,private,train,, , ",
    ]
    (folder / "manifest.csv").write_bytes((("\ufeff" if marked else "") + "".join(lines)).encode())
    (folder / "manifest.csv").chmod(mode)
    assert ManifestSource.open(folder).drop(ada) == 2
    kept = "".join(lines[place] for place in (0, 2, 3, 5))
    assert (folder / "manifest.csv").read_bytes() == (("\ufeff" if marked else "") + kept).encode()
    assert stat.S_IMODE((folder / "manifest.csv").stat().st_mode) == mode
    assert [path.name for path in folder.iterdir()] == ["manifest.csv"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_the_manifest_stays(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    os.chown(source.manifest, 1234, 4321)
    source.drop(ada)
    assert (source.manifest.stat().st_uid, source.manifest.stat().st_gid) == (1234, 4321)


def test_attributes_of_the_manifest_stay(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    try:
        os.setxattr(source.manifest, "user.origin", b"the register")
    except OSError:
        pytest.skip("no attributes on this file system")
    source.drop(ada)
    assert os.getxattr(source.manifest, "user.origin") == b"the register"


def refusal(source: ManifestSource) -> str:
    """What is refused alike before a build and at the erasure, which changes nothing."""
    before = contents(source.root)
    message = refused(ManifestError, source.check_erasable)
    assert contents(source.root) == before
    return message


def test_manifest_with_another_name_is_refused_while_nothing_is_done(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path / "people", standard_rows()))
    os.link(source.manifest, tmp_path / "CANARY.csv")
    assert "hard links" in refusal(source)
    before = contents(tmp_path)
    refused(ManifestError, lambda: source.drop(ada))
    assert contents(tmp_path) == before


def test_image_with_a_name_that_the_manifest_does_not_know_is_refused(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path / "people", standard_rows()))
    os.link(tmp_path / "people" / "image-2.png", tmp_path / "CANARY.png")
    assert "1 images have other names" in refusal(source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("closed", ["", "photos"])
def test_place_that_cannot_be_written_is_refused(tmp_path: Path, closed: str) -> None:
    source = ManifestSource.open(write_source(tmp_path, [*standard_rows(), Row("dan", "one", path="photos/dan.png")]))
    (tmp_path / closed).chmod(0o500)
    try:
        assert "cannot be written" in refused(ManifestError, source.check_erasable)
    finally:
        (tmp_path / closed).chmod(0o700)


def test_manifest_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    monkeypatch.setattr(os, "geteuid", lambda: source.manifest.stat().st_uid + 1)
    assert "another user" in refusal(source)


def test_two_names_of_one_image_in_the_manifest_go_each_with_its_own_person(tmp_path: Path) -> None:
    source = sourced(tmp_path, ("image-0.png", "ada"), ("twin.png", "ben"))
    os.link(tmp_path / "image-0.png", tmp_path / "twin.png")
    source.check_erasable()
    source.drop(ada)
    assert not (tmp_path / "image-0.png").exists()
    assert (tmp_path / "twin.png").read_bytes() == png(1)


def test_image_that_a_retained_row_reaches_by_a_linked_folder_stays(tmp_path: Path) -> None:
    write_source(tmp_path, [*standard_rows(), Row("dan", "one", path="photos/a.png", seed=9)])
    (tmp_path / "album").symlink_to("photos", target_is_directory=True)
    write_manifest(tmp_path, rows(("album/a.png", "ada"), ("photos/a.png", "dan")))
    ManifestSource.open(tmp_path).drop(ada)
    assert (tmp_path / "photos" / "a.png").read_bytes() == png(9)
    assert (tmp_path / "album").is_symlink()


def test_every_link_that_leads_to_an_erased_image_goes_with_it(tmp_path: Path) -> None:
    source = sourced(tmp_path, ("first.png", "ada"), ("image-5.png", "ben"))
    (tmp_path / "first.png").symlink_to("second.png")  # first -> second -> image-0, and two that the manifest does not know
    (tmp_path / "second.png").symlink_to(tmp_path / "image-0.png")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "third.png").symlink_to("../image-0.png")
    (tmp_path / "fourth.png").symlink_to("deep/third.png")
    (tmp_path / "fifth.png").symlink_to("image-5.png")
    source.check_erasable()
    source.drop(ada)
    left = {path.name for path in tmp_path.rglob("*")}
    assert not left & {"first.png", "second.png", "third.png", "fourth.png", "image-0.png"}
    assert {"fifth.png", "image-5.png"} <= left
    assert not [path for path in tmp_path.rglob("*") if not path.exists()]


def test_link_to_an_image_that_stays_goes_alone(tmp_path: Path) -> None:
    source = sourced(tmp_path, ("link.png", "ada"), ("image-5.png", "ben"))
    (tmp_path / "link.png").symlink_to("image-5.png")
    source.drop(ada)
    assert (tmp_path / "image-5.png").exists()
    assert not (tmp_path / "link.png").is_symlink()


def test_file_outside_of_the_folder_is_never_deleted(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(png())
    source = sourced(tmp_path / "people", ("../outside.png", "ada"), ("out.png", "ada"), ("image-1.png", "ben"))
    (tmp_path / "people" / "out.png").symlink_to(tmp_path / "outside.png")
    assert source.drop(ada) == 2
    assert (tmp_path / "outside.png").exists()


def test_manifest_that_lists_itself_as_an_image_is_not_deleted(tmp_path: Path) -> None:
    source = sourced(tmp_path, ("manifest.csv", "ada"), ("image-1.png", "ben"))
    assert source.drop(ada) == 1
    assert source.table()["subject"].tolist() == ["ben"]


def test_manifest_that_somebody_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    before = erasing.state(source.manifest)
    source.manifest.write_bytes(source.manifest.read_bytes() + b"late.png,one,new,private,train\n")
    kept = contents(tmp_path)
    refused(StepFailedError, lambda: erasing.rewrite(source.manifest, lambda draft: draft.write_bytes(b""), before))
    assert contents(tmp_path) == kept


def test_manifest_that_is_not_as_it_should_be_is_not_called_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ManifestSource.open(write_source(tmp_path, standard_rows()))
    monkeypatch.setattr(erasing, "rewrite", lambda *_: None)  # a disk that forgets
    assert "reads back differently" in refused(StepFailedError, lambda: source.drop(ada))


def test_subject_is_found_in_every_spelling_that_split_takes_for_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text(
        f"{HEADER}\na,1, Zoe\u0301 ,private,train\nb,1,Zo\u00e9,private,train\nc,1,x,private,train\n"
    )
    source = ManifestSource.open(tmp_path)
    assert source.drop(lambda subject: subject == "Zoé") == 2
    assert (tmp_path / "manifest.csv").read_text() == f"{HEADER}\nc,1,x,private,train\n"
