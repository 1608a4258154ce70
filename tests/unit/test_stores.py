"""Stores list, read and delete: every copy under a key, nothing else, and no failure is silent."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import refused

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
S3: dict[str, str] = {"access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str) -> Any:
    import boto3

    made = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 (of a server that takes any)
        region_name="us-east-1",
    )
    for bucket in ("plain", "versioned"):
        made.create_bucket(Bucket=bucket)
    made.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    yield made
    for bucket in ("plain", "versioned"):
        for upload in made.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
            made.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        told = made.list_object_versions(Bucket=bucket)
        for entry in (*told.get("Versions", ()), *told.get("DeleteMarkers", ())):
            made.delete_object(Bucket=bucket, Key=entry["Key"], VersionId=entry["VersionId"])
        made.delete_bucket(Bucket=bucket)


@pytest.fixture(params=["folder", "plain", "versioned"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same files in every kind of store, beside what belongs to others."""
    if request.param == "folder":
        for key, content in FILES.items():
            (tmp_path / "store" / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "store" / key).write_bytes(content)
        return FolderStore("remote here", tmp_path / "store")
    client = request.getfixturevalue("client")
    client.put_object(Bucket=request.param, Key="elsewhere/file", Body=b"of another project")
    for key, content in FILES.items():
        client.put_object(Bucket=request.param, Key=f"some/prefix/{key}", Body=content)
    settings = S3 | {"endpointurl": request.getfixturevalue("endpoint")}
    return BucketStore("remote s3", f"s3://{request.param}/some/prefix", settings)


def test_all_is_listed_with_its_size(store: Store) -> None:
    assert dict(store.list()) == {key: len(content) for key, content in FILES.items()}


def test_all_that_is_there_is_read(store: Store) -> None:
    assert store.read([*FILES, "files/md5/dd/none"]) == FILES
    assert store.read([]) == {}
    with store.open(f"files/md5/bb/{B[2:]}") as stream:
        stream.seek(1)
        assert stream.read() == b"wo"
    with pytest.raises(FileNotFoundError), store.open("files/md5/dd/none") as stream:
        stream.read()


def test_the_asked_for_is_deleted_and_nothing_else(store: Store) -> None:
    gone = {f"files/md5/aa/{A[2:]}", "runs/44/.Qx.tmp"}
    assert store.delete([*gone, "files/md5/dd/none"]) == 2
    assert set(dict(store.list())) == set(FILES) - gone
    assert store.delete(gone) == 0


def test_dvc_s_layout_is_understood(store: Store) -> None:
    held = contents(store)
    assert {md5: sorted(keys) for md5, keys in held.objects.items()} == {
        A: sorted([f"aa/{A[2:]}", f"files/md5/aa/{A[2:]}"]),
        B: [f"files/md5/bb/{B[2:]}"],
        FOLDER: [f"files/md5/cc/{FOLDER[2:]}"],
    }
    assert held.runs == {RUN: f"runs/44/{RUN}"}
    assert sorted(held.leftovers) == sorted([f"files/md5/aa/{A[2:]}.Zk3.tmp", "runs/44/.Qx.tmp"])
    assert held.others == ["notes.txt"]
    assert read_manifests(store, held) == {FOLDER: {"x": A}}
    assert read_manifests(store, held, [FOLDER]) == {}
    assert read_runs(store, held) == ({RUN: ((("a", A),), (("b", B),))}, [])


def test_old_versions_and_delete_markers_go_too(client: Any, endpoint: str) -> None:
    for body in (b"the first", b"the second"):
        client.put_object(Bucket="versioned", Key="files/md5/aa/x", Body=body)
    client.delete_object(Bucket="versioned", Key="files/md5/aa/x")  # now hidden by a marker, and still there
    client.put_object(Bucket="versioned", Key="kept", Body=b"kept")
    store = BucketStore("remote s3", "s3://versioned", S3 | {"endpointurl": endpoint})
    assert set(dict(store.list())) == {"files/md5/aa/x", "kept"}, "a hidden copy is a copy"
    assert store.delete(["files/md5/aa/x"]) == 1
    told = client.list_object_versions(Bucket="versioned")
    assert [one["Key"] for one in told["Versions"]] == ["kept"]
    assert "DeleteMarkers" not in told


def test_unfinished_uploads_of_what_goes_are_aborted(client: Any, endpoint: str) -> None:
    for key in ("condemned", "other"):
        upload = client.create_multipart_upload(Bucket="plain", Key=key)["UploadId"]
        client.upload_part(Bucket="plain", Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 100)
    BucketStore("remote s3", "s3://plain", S3 | {"endpointurl": endpoint}).delete(["condemned"])
    assert [one["Key"] for one in client.list_multipart_uploads(Bucket="plain")["Uploads"]] == ["other"]


def test_many_pages_are_all_listed_and_deleted(client: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmeraser.stores.bucket.PAGE", 7)
    for number in range(20):
        client.put_object(Bucket="plain", Key=f"k{number}", Body=b"x")
    store = BucketStore("remote s3", "s3://plain", S3 | {"endpointurl": endpoint})
    real = store._s3.call_s3
    monkeypatch.setattr(
        store._s3,
        "call_s3",
        lambda method, **given: real(method, **(given | ({"MaxKeys": 6} if "list_object" in method else {}))),
    )
    assert len(list(store.list())) == 20
    assert store.delete([f"k{number}" for number in range(20)]) == 20
    assert list(store.list()) == []


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
    told = client_options(
        {"endpointurl": "http://x", "region": "r", "access_key_id": "k", "use_ssl": "false", "ssl_verify": "no.pem"}
    )
    assert told["client_kwargs"] == {"endpoint_url": "http://x", "region_name": "r", "verify": "no.pem"}
    assert told["key"] == "k"
    assert told["use_ssl"] is False
    assert "secret" not in told, "what is not given comes from the environment"


@pytest.mark.parametrize("raw", [b"", b"{}x", b"[1]", b'[{"md5": "x"}]', b"3"])
def test_a_damaged_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a manifest|Expecting value|Extra data"):
        parse_manifest(raw)
