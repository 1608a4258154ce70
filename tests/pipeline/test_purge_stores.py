"""Purge of stores that are away, read-only, of an unknown kind, pushed to again, or buckets with versions."""

import pytest
from mishaps import unwritable
from sandbox import AWS, files
from scene import Scene, pulls

from flows.purge import step as purge
from lmeraser.core.errors import ProjectError, StepFailedError

pytestmark = pytest.mark.slow


def test_a_cache_that_cannot_be_written_is_told_after_the_remote_was_cleared(scene: Scene) -> None:
    planned, search_terms = scene.plan()
    refusal = r"^cache: \d+ files cannot be deleted \(Read-only file system\)"
    with unwritable(scene.cache), pytest.raises(StepFailedError, match=refusal):
        purge.carry_out(scene.layout, planned.journal)
    assert set(scene.residue(search_terms)) == {"cache"}
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(search_terms) == {}


def test_a_remote_that_is_away_stops_planning_and_does_not_stop_the_others(scene: Scene) -> None:
    planned, search_terms = scene.plan()
    scene.disk.rename(scene.disk.with_name("unmounted"))
    with pytest.raises(StepFailedError, match="remote disk cannot be reached"):
        scene.plan()
    with pytest.raises(StepFailedError, match=r"remote disk cannot be reached.*lmeraser resume"):
        purge.carry_out(scene.layout, planned.journal)
    with pytest.raises(StepFailedError, match="remote disk cannot be reached"):
        purge.scan_stores(scene.layout, search_terms)
    scene.disk.with_name("unmounted").rename(scene.disk)
    assert set(scene.residue(search_terms)) == {"remote disk"}
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(search_terms) == {}


@pytest.mark.parametrize("url", ["gs://bucket/x", "ssh://host/x", "https://host/x"])
def test_a_remote_of_another_kind_is_refused_before_anything_goes(scene: Scene, url: str) -> None:
    scene.dvc("remote", "add", "far", url)
    before = files(scene.cache)
    with pytest.raises(ProjectError, match=r"^remote far is of type \w+://, but purge supports only folders and S3"):
        scene.plan()
    assert files(scene.cache) == before


def test_a_stale_clone_s_push_is_found_and_purged_again(scene: Scene) -> None:
    stale = files(scene.disk)
    scene.purge()
    for name, content in stale.items():
        (scene.disk / name).parent.mkdir(parents=True, exist_ok=True)
        (scene.disk / name).write_bytes(content)
    report = purge.audit_stores(scene.layout)
    assert not report.clean
    assert {row.store for row in report.stores if row.residue} == {"remote disk"}
    scene.purge()
    assert purge.audit_stores(scene.layout).clean


SUSPENDED = pytest.mark.campaign("a bucket whose versions are suspended: unit/test_store_conformance.py")


@pytest.mark.parametrize("versions", ["Enabled", pytest.param("Suspended", marks=SUSPENDED)])
def test_a_bucket_is_purged_with_all_versions(scene: Scene, s3: str, versions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3)
    bucket = f"bucket-{versions.lower()}"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": versions})
    scene.dvc("remote", "add", "far", f"s3://{bucket}/some/prefix")
    scene.dvc("remote", "modify", "far", "endpointurl", s3)
    scene.git("commit", "--quiet", "--message", "remote", "--", ".dvc/config")
    scene.dvc("push", "--quiet", "--run-cache", "--remote", "far")
    for name, content in files(scene.disk).items():  # what the branches pushed; the layout is the same
        client.put_object(Bucket=bucket, Key=f"some/prefix/{name}", Body=content)
    planned, search_terms = scene.plan()
    condemned = {f"some/prefix/files/md5/{md5[:2]}/{md5[2:]}" for md5 in planned.journal.objects}
    pushed = {listed["Key"] for listed in client.list_objects_v2(Bucket=bucket)["Contents"]}
    hidden = min(condemned & pushed)
    client.delete_object(Bucket=bucket, Key=hidden)  # with versions it is only hidden
    assert {"condemned object", "condemned run entry"} <= scene.residue(search_terms)["remote far"]
    scene.dvc("remote", "modify", "--local", "far", "endpointurl", "http://127.0.0.1:9")
    with pytest.raises(StepFailedError, match=r"^remote far cannot be reached \(\w+\); .*lmeraser resume"):
        purge.carry_out(scene.layout, planned.journal)
    assert set(scene.local_residue(search_terms)) == set(), "the others were cleared"
    scene.dvc("remote", "modify", "--local", "--unset", "far", "endpointurl")
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(search_terms) == {}
    listing = client.list_object_versions(Bucket=bucket)
    left = {version["Key"] for version in (*listing["Versions"], *listing.get("DeleteMarkers", ()))}
    assert left == pushed - condemned - {key for key in pushed if key.startswith("some/prefix/runs/") and key not in left}
    done = pulls(scene, "other", s3, bucket)
    assert done.returncode == 0, done.stderr
