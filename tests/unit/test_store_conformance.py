"""What every store promises, run against each kind: every copy under a key, nothing else, and no failure is silent.

A new kind of store is added to `KINDS` and to `made`; what only one kind can do is tested below the class.
"""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import refused
from faulty_store import FaultyStore
from memory_store import MemoryStore

from lmeraser.core.errors import StepFailedError
from lmeraser.stores.base import Store
from lmeraser.stores.bucket import BucketStore, client_options
from lmeraser.stores.dvc_objects import contents, parse_manifest, read_manifests, read_runs
from lmeraser.stores.folder import FolderStore

A, B, FOLDER = "aa" + "1" * 30, "bb" + "2" * 30, "cc" + "3" * 30 + ".dir"
RUN = f"{'4' * 64}/{'5' * 64}"
FILES = {
    f"files/md5/aa/{A[2:]}": b"one",
    f"aa/{A[2:]}": b"one",  # the layout of DVC 2
    f"files/md5/bb/{B[2:]}": b"two",
    f"files/md5/cc/{FOLDER[2:]}": json.dumps([{"md5": A, "relpath": "x"}]).encode(),
    f"runs/44/{RUN}": b"cmd: x\ndeps:\n- path: a\n  md5: " + A.encode() + b"\nouts:\n- path: b\n  md5: " + B.encode() + b"\n",
    f"files/md5/aa/{A[2:]}.Zk3.tmp": b"half of one",
    "runs/44/.Qx.tmp": b"half of a run",
    "notes.txt": b"of the owner",
}
# Keys that are not DVC's: a remote may be a folder of somebody's bucket.
ODD = ["with space", "a+b", "a%20b", "a&b=c", "näme/ünï", "[1]", "a*b", "what?", "#1", "~x", "'q' \"r\"", ".hidden/.x"]
NEAR = ["1", "axb", "what1", "a b"]  # what an odd key would name if it were a pattern or an escape
S3: dict[str, str] = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(endpoint: str) -> Any:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 (of a server that takes any)
        region_name="us-east-1",
    )
    for bucket in ("plain", "versioned"):
        client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    return client


@pytest.fixture(scope="module")
def connected(endpoint: str) -> Any:
    """One connection for all stores of `made`: each costs a fifth of a second. Tests that change theirs make their own."""
    return BucketStore("remote s3", "s3://plain", S3 | {"endpointurl": endpoint})._s3


@pytest.fixture
def place() -> str:
    """A part of a bucket that no other test uses."""
    return uuid.uuid4().hex


KINDS = ("folder", "bucket", "versioned bucket", "memory", "faulty without faults")


def made(kind: str, request: pytest.FixtureRequest, folder: Path) -> Store:
    """An empty store, beside what belongs to others."""
    if kind == "memory":
        return MemoryStore()
    if kind == "faulty without faults":
        return FaultyStore(MemoryStore())
    if kind == "folder":
        for other in ("elsewhere/file", "store-2/file"):
            (folder / other).parent.mkdir(parents=True)
            (folder / other).write_bytes(b"of another project")
        (folder / "store").mkdir()
        return FolderStore("remote here", folder / "store", must_exist=True)
    bucket = "versioned" if kind.startswith("versioned") else "plain"
    client, endpoint, place = (request.getfixturevalue(name) for name in ("client", "endpoint", "place"))
    for other in ("elsewhere/file", "store-2/file"):
        client.put_object(Bucket=bucket, Key=f"{place}/{other}", Body=b"of another project")
    store = BucketStore("remote s3", f"s3://{bucket}/{place}/store", S3 | {"endpointurl": endpoint})
    store._s3 = request.getfixturevalue("connected")
    return store


@pytest.fixture(params=KINDS)
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return made(request.param, request, tmp_path)


@pytest.fixture
def store(empty: Store) -> Store:
    """The same files in every kind of store."""
    for key, content in FILES.items():
        empty.write(key, content)
    return empty


def others_of(store: Store) -> dict[str, bytes]:
    """What lies beside a store."""
    around: Store
    if isinstance(store, FolderStore):
        around = FolderStore("around", store.root.parent)
    elif isinstance(store, BucketStore):
        around = BucketStore("around", f"s3://{store.bucket}/{store.prefix.partition('/')[0]}", store._settings)
        around._s3 = store._s3
    else:
        return {}
    return around.read([key for key, _ in around.list() if not key.startswith("store/")])


class TestEveryStore:
    def test_an_empty_one_holds_nothing(self, empty: Store) -> None:
        assert list(empty.list()) == []
        assert empty.read(["files/md5/dd/none"]) == {}
        assert empty.delete(["files/md5/dd/none"]) == 0
        assert empty.delete([]) == 0

    def test_all_is_listed_once_with_its_size(self, store: Store) -> None:
        assert sorted(store.list()) == sorted((key, len(content)) for key, content in FILES.items())

    def test_all_that_is_there_is_read(self, store: Store) -> None:
        assert store.read([*FILES, "files/md5/dd/none"]) == FILES
        assert store.read(key for key in FILES) == FILES
        assert store.read([]) == {}

    def test_a_stream_can_seek_and_what_is_not_there_cannot_be_opened(self, store: Store) -> None:
        with store.open(f"files/md5/bb/{B[2:]}") as stream:
            stream.seek(1)
            assert stream.read() == b"wo"
            stream.seek(0)
            assert stream.read(2) == b"tw"
        with pytest.raises(FileNotFoundError), store.open("files/md5/dd/none") as stream:
            stream.read()

    @pytest.mark.parametrize("content", [b"", b"\0\r\n\xff", bytes(range(256)) * 30_000], ids=["nothing", "odd", "8 MB"])
    def test_what_is_written_is_read_whole(self, empty: Store, content: bytes) -> None:
        empty.write("files/md5/aa/x", content)
        assert dict(empty.list()) == {"files/md5/aa/x": len(content)}
        assert empty.read(["files/md5/aa/x"]) == {"files/md5/aa/x": content}
        with empty.open("files/md5/aa/x") as stream:
            assert stream.read() == content

    def test_what_is_written_again_is_replaced_and_goes_whole(self, empty: Store) -> None:
        for content in (b"the first", b"2", b"the third and longest"):
            empty.write("a/b", content)
            assert empty.read(["a/b"]) == {"a/b": content}
        assert [key for key, _ in empty.list()] == ["a/b"]
        assert empty.delete(["a/b"]) == 1
        assert list(empty.list()) == []

    def test_the_asked_for_is_deleted_and_nothing_else(self, store: Store) -> None:
        others, goes = others_of(store), {f"files/md5/aa/{A[2:]}", "runs/44/.Qx.tmp"}
        assert store.delete([*goes, "files/md5/dd/none", *goes]) == 2, "each key counts once"
        assert set(dict(store.list())) == set(FILES) - goes
        assert store.delete(goes) == 0
        assert store.read(FILES) == {key: content for key, content in FILES.items() if key not in goes}
        assert others_of(store) == others

    def test_all_that_is_listed_can_be_deleted(self, store: Store) -> None:
        others = others_of(store)
        store.delete(key for key, _ in store.list())
        assert list(store.list()) == []
        assert others_of(store) == others

    @pytest.mark.slow
    def test_a_key_may_hold_any_character_and_is_no_pattern(self, empty: Store) -> None:
        files = {key: f"{key}: content".encode() for key in (*ODD, *NEAR)}
        for key, content in files.items():
            empty.write(key, content)
        assert set(dict(empty.list())) == files.keys()
        assert empty.read(ODD) == {key: files[key] for key in ODD}
        for key in ODD:
            assert empty.read([key]) == {key: files[key]}
            with empty.open(key) as stream:
                assert stream.read() == files[key]
        for key in ODD:
            assert empty.delete([key]) == 1
        assert empty.read(files) == {key: files[key] for key in NEAR}


def test_dvc_s_layout_is_understood(store: Store) -> None:
    stored = contents(store)
    assert {md5: sorted(keys) for md5, keys in stored.objects.items()} == {
        A: sorted([f"aa/{A[2:]}", f"files/md5/aa/{A[2:]}"]),
        B: [f"files/md5/bb/{B[2:]}"],
        FOLDER: [f"files/md5/cc/{FOLDER[2:]}"],
    }
    assert stored.runs == {RUN: f"runs/44/{RUN}"}
    assert sorted(stored.leftovers) == sorted([f"files/md5/aa/{A[2:]}.Zk3.tmp", "runs/44/.Qx.tmp"])
    assert stored.others == ["notes.txt"]
    assert read_manifests(store, stored) == {FOLDER: {"x": A}}
    assert read_manifests(store, stored, [FOLDER]) == {}
    assert read_runs(store, stored) == ({RUN: ((("a", A),), (("b", B),))}, [])


def test_old_versions_and_delete_markers_go_too(client: Any, endpoint: str, place: str) -> None:
    for body in (b"the first", b"the second"):
        client.put_object(Bucket="versioned", Key=f"{place}/files/md5/aa/x", Body=body)
    client.delete_object(Bucket="versioned", Key=f"{place}/files/md5/aa/x")  # now hidden by a marker, and still there
    client.put_object(Bucket="versioned", Key=f"{place}/kept", Body=b"kept")
    store = BucketStore("remote s3", f"s3://versioned/{place}", S3 | {"endpointurl": endpoint})
    assert set(dict(store.list())) == {"files/md5/aa/x", "kept"}, "a hidden copy is a copy"
    assert store.delete(["files/md5/aa/x"]) == 1
    answer = client.list_object_versions(Bucket="versioned", Prefix=place)
    assert [version["Key"] for version in answer["Versions"]] == [f"{place}/kept"]
    assert "DeleteMarkers" not in answer


def test_version_that_is_called_null_where_versioning_was_suspended_goes_too(client: Any, endpoint: str) -> None:
    client.create_bucket(Bucket="suspended")
    client.put_bucket_versioning(Bucket="suspended", VersioningConfiguration={"Status": "Suspended"})
    client.put_object(Bucket="suspended", Key="files/md5/aa/x", Body=b"hers")
    assert [version["VersionId"] for version in client.list_object_versions(Bucket="suspended")["Versions"]] == ["null"]
    store = BucketStore("remote s3", "s3://suspended", S3 | {"endpointurl": endpoint})
    assert store.delete(["files/md5/aa/x"]) == 1
    left = client.list_object_versions(Bucket="suspended")
    assert "Versions" not in left
    assert "DeleteMarkers" not in left


def test_unfinished_uploads_of_what_goes_are_aborted(client: Any, endpoint: str, place: str) -> None:
    for key in (f"{place}/condemned", f"{place}/other"):
        upload = client.create_multipart_upload(Bucket="plain", Key=key)["UploadId"]
        client.upload_part(Bucket="plain", Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 100)
    BucketStore("remote s3", f"s3://plain/{place}", S3 | {"endpointurl": endpoint}).delete(["condemned"])
    uploads = client.list_multipart_uploads(Bucket="plain", Prefix=place)["Uploads"]
    assert [upload["Key"] for upload in uploads] == [f"{place}/other"]


def test_many_pages_are_all_listed_and_deleted(client: Any, endpoint: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmeraser.stores.bucket.PAGE", 7)
    for number in range(20):
        client.put_object(Bucket="plain", Key=f"{place}/k{number}", Body=b"x")
    store = BucketStore("remote s3", f"s3://plain/{place}", S3 | {"endpointurl": endpoint})
    real = store._s3.call_s3
    monkeypatch.setattr(
        store._s3,
        "call_s3",
        lambda method, **given: real(method, **(given | ({"MaxKeys": 6} if "list_object" in method else {}))),
    )
    assert len(list(store.list())) == 20
    assert store.delete([f"k{number}" for number in range(20)]) == 20
    assert list(store.list()) == []


def test_a_key_that_a_bucket_keeps_is_told_after_the_others_were_deleted(client: Any, endpoint: str, place: str) -> None:
    store = BucketStore("remote s3", f"s3://plain/{place}", S3 | {"endpointurl": endpoint})
    for key in ("a", "b", "c"):
        store.write(key, b"x")
    real = store._s3.call_s3

    def refusing(method: str, **given: Any) -> Any:
        if method != "delete_objects":
            return real(method, **given)
        given["Delete"]["Objects"] = [name for name in given["Delete"]["Objects"] if not name["Key"].endswith("/b")]
        return real(method, **given) | {"Errors": [{"Key": f"{place}/b", "Code": "AccessDenied"}]}

    store._s3.call_s3 = refusing
    message = refused(StepFailedError, lambda: store.delete(["a", "b", "c"]))
    assert message.startswith("remote s3: 1 files cannot be deleted (AccessDenied)")
    assert [key for key, _ in store.list()] == ["b"]


@pytest.mark.slow
@pytest.mark.parametrize("broken", [{"endpointurl": "http://127.0.0.1:9"}, {"bucket": "absent"}])
def test_a_bucket_that_is_away_is_one_line(endpoint: str, broken: dict[str, str]) -> None:
    settings = S3 | {"endpointurl": endpoint} | broken
    store = BucketStore("remote s3", f"s3://{broken.get('bucket', 'plain')}/x", settings)
    message = refused(StepFailedError, lambda: list(store.list()))
    assert message.startswith("remote s3 cannot be reached (")
    assert "`lmeraser resume`" in message


def test_a_folder_that_is_away_is_one_line_and_no_empty_store(tmp_path: Path) -> None:
    message = refused(StepFailedError, lambda: list(FolderStore("remote disk", tmp_path / "unmounted", must_exist=True).list()))
    assert message.startswith("remote disk cannot be reached")
    assert list(FolderStore("cache", tmp_path / "unmounted").list()) == []


def test_a_failing_delete_is_told_after_the_others_were_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1", "b/2", "c/3"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "2":
            raise PermissionError(13, "Permission denied")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    store = FolderStore("cache", tmp_path)
    message = refused(StepFailedError, lambda: store.delete(["a/1", "b/2", "c/3"]))
    assert message.startswith("cache: 1 files cannot be deleted (Permission denied)")
    assert [key for key, _ in store.list()] == ["b/2"]


def test_emptied_folders_go_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"not ours")
    root = tmp_path / "store"
    (root / "runs" / "44" / "key").mkdir(parents=True)
    (root / "runs" / "44" / "key" / "entry").write_bytes(b"x")
    (root / "link").symlink_to(outside)
    store = FolderStore("cache", root)
    assert {key for key, _ in store.list()} == {"runs/44/key/entry", "link"}
    with store.open("link") as stream:
        assert stream.read() == os.fsencode(outside)
    assert store.delete(["runs/44/key/entry", "link"]) == 2
    assert root.is_dir()
    assert not (root / "runs").exists()
    assert (outside / "file").exists()


def test_skipped_places_are_not_listed(tmp_path: Path) -> None:
    for name in ("kept", "a/kept", "a/skipped/x", "skipped"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    store = FolderStore("workspace", tmp_path, skip=frozenset({"a/skipped", "skipped"}))
    assert {key for key, _ in store.list()} == {"kept", "a/kept"}


def test_settings_of_dvc_become_those_of_s3fs() -> None:
    options = client_options(
        {"endpointurl": "http://x", "region": "r", "access_key_id": "k", "use_ssl": "false", "ssl_verify": "no.pem"}
    )
    assert options["client_kwargs"] == {"endpoint_url": "http://x", "region_name": "r", "verify": "no.pem"}
    assert options["key"] == "k"
    assert options["use_ssl"] is False
    assert "secret" not in options, "what is not given comes from the environment"


@pytest.mark.parametrize("raw", [b"", b"{}x", b"[1]", b'[{"md5": "x"}]', b"3"])
def test_a_damaged_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a manifest|Expecting value|Extra data"):
        parse_manifest(raw)
