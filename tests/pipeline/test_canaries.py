"""Fifty people at once: afterwards no byte of them is anywhere, and a branch that never had them is whole."""

import subprocess
from pathlib import Path

import pytest
from sandbox import AWS, Sandbox, files, make_project

pytestmark = [pytest.mark.slow, pytest.mark.campaign("builds and erases seventy people on two kinds of remote: three minutes")]


def git(project: Sandbox, *arguments: str) -> None:
    command = ["git", "-C", str(project.root), "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_fifty_erased_people_are_found_nowhere_and_the_other_branch_still_pulls(
    tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3)
    client.create_bucket(Bucket="fifty")
    client.put_bucket_versioning(Bucket="fifty", VersioningConfiguration={"Status": "Enabled"})
    project = make_project(tmp_path / "project", private=70)
    project.set_params(source={"kind": "manifest", "path": "people", "erase": True})
    assert project.lmeraser("build").returncode == 0
    (tmp_path / "disk").mkdir()
    project.dvc("remote", "add", "--default", "disk", str(tmp_path / "disk"))
    project.dvc("remote", "add", "far", "s3://fifty/prefix")
    project.dvc("remote", "modify", "far", "endpointurl", s3)
    git(project, "checkout", "-B", "main")
    git(project, "add", "--all")
    git(project, "commit", "--message", "everybody")
    erased = project.people()[:50]
    rows = project.manifest
    images = [(project.root / "people" / path).read_bytes() for path in rows.loc[rows["subject"].isin(erased), "path"]]
    names = [*erased, *rows.loc[rows["subject"].isin(erased), "path"]]
    assert len(images) > 200
    whole = (project.root / "people" / "manifest.csv").read_bytes()
    git(project, "checkout", "-b", "other")
    rows[~rows["subject"].isin(erased)].to_csv(project.root / "people" / "manifest.csv", index=False)
    project.dvc("repro", "--quiet")
    git(project, "commit", "--all", "--message", "others alone")
    (project.root / "people" / "manifest.csv").write_bytes(whole)
    git(project, "checkout", "main")
    project.dvc("checkout", "--quiet")
    for remote in ("disk", "far"):
        project.dvc("push", "--quiet", "--run-cache", "--all-branches", "--remote", remote)

    canaries = tmp_path / "canaries.txt"
    canaries.write_text("\n".join(names))
    (tmp_path / "subjects.txt").write_text("\n".join(erased))
    summary = project.json("forget", "--subjects-from", str(tmp_path / "subjects.txt"))
    assert (summary["state"], summary["records_removed"]) == ("certified", len(images))
    audit = project.json("audit", "--stores", "--canaries-from", str(canaries))
    assert audit["clean"] is True

    listed = client.list_object_versions(Bucket="fifty")
    copies = [(version["Key"], version["VersionId"]) for version in listed["Versions"]]
    content_of = {
        **{f"far {key}": client.get_object(Bucket="fifty", Key=key, VersionId=version)["Body"].read() for key, version in copies},
        **{f"disk {name}": content for name, content in files(tmp_path / "disk").items()},
        **{f"project {name}": content for name, content in files(project.root).items()},
    }
    assert len(copies) > 20
    search_terms = [*(name.encode() for name in names), *images]
    residue = {place for place, content in content_of.items() if any(term in content for term in search_terms)}
    assert residue == set()
    assert not [place for place in content_of if any(name in place for name in names)]

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--branch", "other", str(project.root), str(clone)], check=True)
    for remote in ("disk", "far"):
        Sandbox(clone).dvc("pull", "--quiet", "--remote", remote)
        assert len(files(clone / "artifacts")) > 10
        subprocess.run(["rm", "-rf", str(clone / "artifacts"), str(clone / ".dvc" / "cache")], check=True)
