"""Other users of the machine read no image and no name, whatever the umask; and sockets work however long the path is."""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from builders import make_params, make_record, standard_rows, write_source

from lmeraser.core.layout import Layout
from lmeraser.core.private import close_private
from lmeraser.core.sockets import LONGEST, fitting
from lmeraser.data.records import write_records, write_table
from stages.runtime.entry import writing
from stages.split import split


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(*paths: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in paths}


def open_to_others(root: Path) -> list[str]:
    """Files below the root that another user reaches by open folders and may read."""
    readable = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if Path(place, name).stat().st_mode & 0o011]
        readable += [name for name in files if Path(place, name).stat().st_mode & 0o044]
    return readable


@pytest.mark.usefixtures("umask")
def test_tables_are_their_owners_alone(tmp_path: Path) -> None:
    write_records(tmp_path / "part.parquet", [(make_record("ada"), b"image")])
    write_table(tmp_path / "members.parquet", pa.table({"id": ["x"]}))
    assert modes(tmp_path / "part.parquet", tmp_path / "members.parquet") == {0o600}


@pytest.mark.slow
@pytest.mark.usefixtures("umask")
def test_split_leaves_nothing_that_others_read(tmp_path: Path) -> None:
    for folder in (tmp_path / "project" / ".dvc", tmp_path / "project" / "data"):
        folder.mkdir(parents=True)
    write_source(tmp_path / "people", standard_rows())
    layout = Layout(tmp_path / "project")
    layout.erased.write_text('{"key_id": null, "subjects": []}')
    with writing(layout):
        split(layout, make_params({"source": {"kind": "manifest", "path": str(tmp_path / "people"), "erase": False}}), [])
    assert modes(layout.artifacts, layout.private_state, layout.root / ".dvc" / "cache", layout.root / ".dvc" / "tmp") == {0o700}
    assert modes(layout.public, *layout.private.glob("*")) == {0o600}
    assert set(open_to_others(layout.root)) <= {"erased.json"}


def test_what_dvc_or_an_older_version_left_open_is_closed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in (
        layout.private,
        layout.clusters / "members",
        layout.artifacts / "embed" / "p00",
        tmp_path / ".dvc" / "cache" / "aa",
    ):
        folder.mkdir(parents=True)
    tables = [
        layout.public,
        layout.part("p00"),
        layout.leaves("p00"),
        layout.members("c00"),
        tmp_path / ".dvc" / "cache" / "aa" / "b",
    ]
    for table in tables:
        table.write_bytes(b"CANARY")
        table.chmod(0o644)
    assert open_to_others(tmp_path)
    close_private(layout)
    assert open_to_others(tmp_path) == []
    assert modes(*tables[:4]) == {0o600}


def test_cache_that_a_group_shares_or_that_lies_behind_a_link_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "one" / ".dvc" / "cache").mkdir(parents=True)
    (tmp_path / "one" / ".dvc" / "cache").chmod(0o775)
    (tmp_path / "one" / ".dvc" / "config").write_text("[cache]\n    shared = group\n")
    close_private(Layout(tmp_path / "one"))
    assert modes(tmp_path / "one" / ".dvc" / "cache") == {0o775}
    (tmp_path / "two" / ".dvc").mkdir(parents=True)
    (tmp_path / "two" / ".dvc" / "cache").symlink_to(tmp_path / "one" / ".dvc" / "cache")
    close_private(Layout(tmp_path / "two"))
    assert modes(tmp_path / "one" / ".dvc" / "cache") == {0o775}


@pytest.mark.parametrize("length", [1, LONGEST, LONGEST + 1, 107, 108, 200])
def test_socket_is_bound_and_found_however_long_the_path_is(tmp_path: Path, length: int) -> None:
    folder = tmp_path / ("x" * max(1, length - len(f"{tmp_path}//0.sock")))
    folder.mkdir()
    path = folder / "0.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        with fitting(path) as name:
            listener.bind(name)
        listener.listen(1)
        assert path.is_socket()
        with fitting(path) as name:
            caller.connect(name)
        listener.accept()[0].sendall(b"x")
        assert caller.recv(1) == b"x"
