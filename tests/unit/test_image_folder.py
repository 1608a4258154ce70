"""A plain folder as it lies on a disk: what is an image, what is not, and nothing outside of it is ever read."""

import os
from pathlib import Path

import pytest
from builders import png, refused

from lmeraser.core.errors import BadInputError
from lmeraser.data import images as image_files
from lmeraser.sources import image_folder
from lmeraser.sources.image_folder import ImageFolder, kind_of, look

MAX_PIXELS = 10_000


def looked(folder: Path, workers: int = 1) -> ImageFolder:
    return look(folder, MAX_PIXELS, workers=workers)


def write(folder: Path, name: str, data: bytes = b"") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or png())
    return path


def test_images_are_told_by_their_bytes_whatever_their_names_end_in(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/b.PNG", "cat/c.jpeg", "cat/d", "dog/deep/er/e.txt", "ä ö/日本.png"):
        write(tmp_path, name)
    folder = looked(tmp_path)
    assert [image.path for image in folder.images] == sorted(
        ["cat/a.png", "cat/b.PNG", "cat/c.jpeg", "cat/d", "dog/deep/er/e.txt", "ä ö/日本.png"]
    )
    assert folder.left_out == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a" + bytes(40), "GIF files"),
        (b"BM" + bytes(40), "BMP files"),
        (b"II*\0" + bytes(40), "TIFF files"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC files"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC files"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0avif", "AVIF files"),
        (b"\0\0\0\x18ftypavif" + bytes(20), "AVIF files"),
        (b"a,b\n", "no images"),
        (png()[:60], "broken images"),
        (b"\x89PNG\r\n\x1a\n", "broken images"),
        (png(side=200), "larger than image.max_pixels"),
    ],
)
def test_what_is_left_out_is_told_by_its_kind(tmp_path: Path, data: bytes, reason: str) -> None:
    write(tmp_path, "cat/CANARY.png", data)
    assert looked(tmp_path).left_out == [("cat/CANARY.png", reason)]


def test_empty_file_has_a_reason_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").touch()
    assert looked(tmp_path).left_out == [("cat/a.png", "empty")]
    assert kind_of(b"") == "empty"


def test_links_are_not_followed_not_even_within_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "photos"
    secret = write(outside, "CANARY.png")
    write(folder, "cat/a.png")
    (folder / "cat" / "link.png").symlink_to(secret)
    (folder / "cat" / "own.png").symlink_to(folder / "cat" / "a.png")
    (folder / "dog").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    (folder / "cat" / "nowhere.png").symlink_to("missing")
    opened: list[bytes] = []

    def noted(data: bytes, limit: int) -> object:
        opened.append(data)
        return image_files.open_checked(data, limit)

    monkeypatch.setattr(image_folder, "open_checked", noted)
    result = looked(folder)
    assert [image.path for image in result.images] == ["cat/a.png"]
    assert len(opened) == 1
    assert [path for path, reason in result.left_out if reason == "links"] == [
        *("cat/link.png", "cat/nowhere.png", "cat/own.png", "dog/", "loop/")
    ]


def test_hidden_files_and_those_of_systems_are_no_images(tmp_path: Path) -> None:
    for name in (".DS_Store", "cat/Thumbs.db", "__MACOSX/cat/a.png", ".hidden/cat/a.png", "cat/._a.png"):
        write(tmp_path, name)
    result = looked(tmp_path)
    assert result.images == []
    assert {reason for _, reason in result.left_out} == {"hidden files"}
    assert len(result.left_out) == 5


def test_names_that_no_table_can_keep_are_left_out_and_told(tmp_path: Path) -> None:
    write(tmp_path, "cat/ok.png")
    for name in (b"cat/line\nbreak.png", b"cat/lone\xff.png", b"cat/zero\xe2\x80\x8bwidth.png"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as stream:  # noqa: PTH118, PTH123  (bytes)
            stream.write(png())
    result = looked(tmp_path)
    assert [image.path for image in result.images] == ["cat/ok.png"]
    assert [reason for _, reason in result.left_out] == ["names that cannot be kept"] * 3


def test_pipe_is_told_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    os.mkfifo(tmp_path / "cat" / "a.png")
    assert looked(tmp_path).left_out == [("cat/a.png", "no files (pipes, sockets)")]


def test_threads_change_nothing(tmp_path: Path) -> None:
    for number in range(40):
        write(tmp_path, f"{number % 3}/{number}.png", png(seed=number) if number % 7 else b"no image")
    assert looked(tmp_path) == looked(tmp_path, workers=4)


def test_what_is_passed_over_is_not_even_told(tmp_path: Path) -> None:
    manifest = write(tmp_path, "manifest.csv", b"path,label,subject\n")
    assert look(tmp_path, MAX_PIXELS, [manifest]).left_out == []


@pytest.mark.parametrize("name", ["CANARY-missing", "CANARY-file"])
def test_folder_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "CANARY-file").touch()
    assert "no folder" in refused(BadInputError, lambda: looked(tmp_path / name))


def test_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CANARY-shut").mkdir()

    def shut(path: object, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", "CANARY-shut")

    monkeypatch.setattr(os, "scandir", shut)  # root may list whatever it likes
    assert "Permission denied" in refused(BadInputError, lambda: looked(tmp_path))
