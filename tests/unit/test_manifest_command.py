"""`lmeraser manifest` as people type it: the same bytes for the same folder, nothing overwritten, nobody named."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest
from builders import png

from flows.cli import command_line
from lmeraser.sources.manifest import ManifestSource

PEOPLE = ("CANARYanna", "CANARYben", "CANARYcleo", "CANARYdora", "CANARYemil", "CANARYfay")
WAY = ["--subject-from", "([A-Za-z]+)_", "--public", "40"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two labels, six people, six images each."""
    seed = 0
    for label in ("CANARYcat", "CANARYdog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for person in PEOPLE:
            for number in range(3):
                seed += 1
                (tmp_path / "photos" / label / f"{person}_{number}.png").write_bytes(png(seed=seed))
    return tmp_path / "photos"


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Status, standard output, standard error. What was typed itself may be said again; people may not."""
    with pytest.raises(SystemExit) as end:
        command_line.main(["manifest", *arguments])
    output = capsys.readouterr()
    assert "CANARY" not in output.out + output.err
    return int(end.value.code or 0), output.out, output.err


def test_same_folder_gives_the_same_bytes_and_only_its_owner_reads_them(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = typed(capsys, str(photos), *WAY)
    manifest = photos / "manifest.csv"
    first = manifest.read_bytes()
    assert status == 0
    assert "next: lmeraser new DIR --data" in printed
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o600
    assert typed(capsys, str(photos), *WAY)[0] == 0  # it says the same: nothing to overwrite
    assert manifest.read_bytes() == first
    table = ManifestSource.open(photos).table()
    assert len(table) == 36
    assert set(table["subject"]) == set(PEOPLE)
    assert all((photos / path).is_file() for path in table["path"])


def test_json_has_counts_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "CANARYcat" / "notes.txt").write_text("no image")
    (photos / "CANARYcat" / "nobody.png").write_bytes(png(seed=99))
    answer = json.loads(typed(capsys, str(photos), *WAY, "--json")[1])
    assert answer["left_out"] == {"no images": 1, "no subject match": 1}
    counts = [answer[name] for name in ("images", "labels", "subjects", "records_min", "records_max", "ready", "problems")]
    assert counts == [36, 2, 6, 6, 6, True, []]
    assert answer["public"] + answer["private"] == 36


def test_what_is_left_out_is_named_only_in_a_file_for_the_owner(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "CANARYcat" / "notes.txt").write_text("no image")
    assert "--left-out FILE" in typed(capsys, str(photos), *WAY)[1]
    listed = tmp_path / "left-out.txt"
    assert typed(capsys, str(photos), *WAY, "--left-out", str(listed))[0] == 0
    assert listed.read_text() == "CANARYcat/notes.txt\tno images\n"
    assert stat.S_IMODE(listed.stat().st_mode) == 0o600


def test_what_a_build_would_refuse_is_not_written(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, printed, _ = typed(capsys, str(photos), "--subject-from", "([A-Za-z]+)_")
    assert status == 1
    assert "no record is public" in printed
    assert "nothing was written" in printed
    assert not (photos / "manifest.csv").exists()


def test_folder_that_dvc_cannot_record_is_told_before_anything_is_built(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "CANARYdog" / "away.png").symlink_to("nowhere")
    status, printed, _ = typed(capsys, str(photos), *WAY)
    assert status == 1
    assert "1 links that lead nowhere" in printed


def test_another_manifest_is_kept_unless_asked(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = photos / "manifest.csv"
    manifest.write_text("path,label,subject,visibility,split\n")
    status, _, printed = typed(capsys, str(photos), *WAY)
    assert (status, len(printed.splitlines())) == (2, 1)
    assert manifest.read_text() == "path,label,subject,visibility,split\n"
    assert typed(capsys, str(photos), *WAY, "--replace")[0] == 0
    assert len(manifest.read_text().splitlines()) == 37


def test_manifest_above_the_folder_names_the_way_down(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    above = tmp_path / "people.csv"
    assert typed(capsys, str(photos), *WAY, "--output", str(above))[0] == 0
    assert set(ManifestSource.open(above).table()["path"].str.split("/").str[0]) == {"photos"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--output", "elsewhere/manifest.csv"], "put it into FOLDER or a folder above"),
        (["--output", "manifest.txt"], "ends in .csv"),
        (["--public", "100"], "percentage"),
        (["--public", "-1"], "percentage"),
        (["--public", "nan"], "percentage"),
        (["--test", "1"], "share"),
        (["--public-labels", " , "], "no label is named"),
        (["--public", "10", "--public-labels", "a"], "not allowed with"),
        (["--by-subject", "--by-image"], "not allowed with"),
        (["--subject-from", "(CANARY"], "not a regular expression"),
        (["--max-pixels", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    status, out, printed = typed(capsys, str(photos), *arguments)
    assert (status, out, len(printed.splitlines())) == (2, "", 1)
    assert says in printed
    assert not (photos / "manifest.csv").exists()


def test_folder_of_other_kinds_is_told_what_it_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "CANARY.jpg").write_bytes(b"GIF89a")
    status, _, printed = typed(capsys, str(tmp_path))
    assert (status, len(printed.splitlines())) == (2, 1)
    assert "(1 GIF files)" in printed


def test_full_disk_is_one_line_and_leaves_nothing(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, _, printed = typed(capsys, str(photos), *WAY)
    assert (status, len(printed.splitlines())) == (2, 1)
    assert "free some space" in printed
    assert [path.name for path in photos.iterdir() if path.is_file()] == []
