"""Purge and scan on a real project: after an erasure nothing of the person is in any store, and nobody else lost anything."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sandbox import AWS, CANARY, Sandbox, files

from flows import leftovers, purge, scan
from flows.purge import Journal, Planned
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import ErasedList, Gatekeeper, key_path, load_or_create_key

pytestmark = pytest.mark.slow
BATCH = "00000000-0000-4000-8000-000000000001"


class Scene(Sandbox):
    """A project beside its remote: `main`, from which a person was erased; `other` never had her; `with` still has her."""

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def params(self) -> Params:
        return load_params(self.layout.params)

    @property
    def disk(self) -> Path:
        return self.root.parent / "remote"

    @property
    def cache(self) -> Path:
        return self.root / ".dvc" / "cache"

    def git(self, *arguments: str) -> str:
        git = ["git", "-C", str(self.root), "-c", "user.name=test", "-c", "user.email=test@localhost"]
        return subprocess.run([*git, *arguments], check=True, capture_output=True, text=True).stdout

    def is_erased(self, subject: str) -> bool:
        return Gatekeeper(ErasedList.read(self.layout.erased), key_path(self.layout.private_state)).is_erased(subject)

    def plan(self) -> tuple[Planned, Any]:
        planned = purge.plan(self.layout, self.is_erased)
        return planned, scan.needles_for(self.layout, self.params, planned, self.is_erased)

    def purge(self) -> tuple[Journal, Any]:
        planned, needles = self.plan()
        purge.write_journal(self.layout, BATCH, planned.journal)
        purge.carry_out(self.layout, planned.journal)
        return planned.journal, needles

    def local_residue(self, needles: Any) -> set[str]:
        """Condemned objects that still lie in the cache or in the remote on disk."""
        held = {name.split("files/md5/")[-1].replace("/", "") for name in (*files(self.cache), *files(self.disk))}
        return held & set(needles.objects)

    def residue(self, needles: Any) -> dict[str, set[str]]:
        told = scan.scan_stores(self.layout, needles)
        found = {row["store"]: {one["kind"] for one in row["residue"]} for row in told["stores"] if row["residue"]}
        assert told["clean"] == (not found)
        assert CANARY not in json.dumps(told)
        return found


def victim(project: Sandbox) -> str:
    """Somebody with training records."""
    return project.people()[3]


@pytest.fixture(scope="module")
def prepared(built: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Never change it, take `scene`."""
    folder = tmp_path_factory.mktemp("scene")
    shutil.copytree(built.root, folder / "project", symlinks=True)
    scene = Scene(folder / "project")
    (folder / "remote").mkdir()
    scene.dvc("remote", "add", "--default", "disk", "../remote")
    scene.git("checkout", "--quiet", "-B", "main")
    scene.dvc("repro", "--quiet", "--force", "--single-item", "split", "cluster")  # `build` leaves no run entries
    scene.git("add", "--all")
    scene.git("commit", "--quiet", "--message", "everybody")
    scene.dvc("push", "--quiet", "--run-cache")

    scene.git("checkout", "--quiet", "-b", "with")
    scene.set_params(tune={"epochs": 1})
    scene.dvc("repro", "--quiet")
    scene.git("commit", "--quiet", "--all", "--message", "with her")
    scene.dvc("push", "--quiet", "--run-cache")

    manifest = (scene.root / "people" / "manifest.csv").read_bytes()
    scene.git("checkout", "--quiet", "-b", "other", "main")
    scene.set_params(tune={"epochs": 2})
    rows = scene.manifest
    rows[~rows["subject"].isin([victim(scene), scene.people()[7]])].to_csv(scene.root / "people" / "manifest.csv", index=False)
    scene.dvc("repro", "--quiet")
    scene.git("commit", "--quiet", "--all", "--message", "other people")
    scene.dvc("push", "--quiet", "--run-cache")

    (scene.root / "people" / "manifest.csv").write_bytes(manifest)
    scene.git("checkout", "--quiet", "main")
    scene.dvc("checkout", "--quiet")
    key = load_or_create_key(key_path(scene.layout.private_state))
    ErasedList.read(scene.layout.erased).add([key.pseudonym(victim(scene))], key).write(scene.layout.erased)
    scene.dvc("repro", "--quiet")
    return scene


@pytest.fixture
def scene(prepared: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A copy of the project with its remote; temporary and Prefect's files of its own."""
    shutil.copytree(prepared.root.parent, tmp_path / "scene", symlinks=True)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    return Scene(tmp_path / "scene" / "project")


def pulls(scene: Scene, branch: str, endpoint: str = "", bucket: str = "") -> "subprocess.CompletedProcess[str]":
    """`dvc pull` of a branch in a fresh clone, from the disk or from a bucket."""
    clone = scene.root.parent / f"clone-{branch}"
    subprocess.run(["git", "clone", "--quiet", "--branch", branch, str(scene.root), str(clone)], check=True)
    if bucket:
        remote = f"['remote \"disk\"']\n    url = s3://{bucket}/some/prefix\n    endpointurl = {endpoint}\n"
        (clone / ".dvc" / "config.local").write_text(remote)
    return Sandbox(clone).python("-m", "dvc", "pull", env=AWS)


def test_nothing_of_her_is_left_and_nobody_else_lost_anything(scene: Scene) -> None:
    before = scene.contents()
    _, needles = scene.plan()
    assert needles.ids, "there was nothing to look for"
    assert needles.images
    assert needles.names == {victim(scene)}
    dirty = scene.residue(needles)
    every = {"condemned object", "condemned run entry", "names a condemned object", "subject", "record", "bytes"}
    assert dirty["cache"] == dirty["remote disk"] == every
    journal, _ = scene.purge()
    assert scene.residue(needles) == {}
    assert scene.dvc("status", "--json").strip() == "{}", "the current state is whole"
    after = {name: content for name, content in scene.contents().items() if not name.startswith(".lmeraser/purge/")}
    assert after == before
    assert pulls(scene, "other").returncode == 0
    assert pulls(scene, "with").returncode != 0
    path = purge.journal_path(scene.layout, BATCH)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [one for one in (CANARY, *needles.ids) if one in path.read_text()]
    assert journal["stores"] == ["cache", "remote disk"]
    scene.git("commit", "--quiet", "--all", "--message", "without her")
    scene.dvc("push", "--quiet", "--run-cache")
    assert pulls(scene, "main").returncode == 0
    assert scene.residue(needles) == {}, "a push brings nothing back"


def test_the_branch_without_her_keeps_every_object_and_run(scene: Scene) -> None:
    kept = files(scene.cache)
    journal, _ = scene.purge()
    gone = {name for name in kept if name not in files(scene.cache)}
    named = {md5[:2] + "/" + md5[2:] for md5 in journal["objects"]} | {f"runs/{one[:2]}/{one}" for one in journal["run_entries"]}
    assert gone
    assert {name.removeprefix("files/md5/") for name in gone} <= named
    scene.git("stash", "--quiet")
    scene.git("checkout", "--quiet", "other")
    scene.dvc("checkout", "--quiet")  # from the cache alone


def test_planning_again_after_a_purge_finds_nothing_to_do(scene: Scene) -> None:
    scene.purge()
    held = files(scene.cache), files(scene.disk)
    scene.purge()
    assert (files(scene.cache), files(scene.disk)) == held


def test_nobody_erased_condemns_nothing(scene: Scene) -> None:
    assert purge.plan_purge(scene.layout, lambda _: False)["objects"] == []


KILLED = """
import os, sys
from pathlib import Path
from flows import purge
from lmeraser.core.layout import Layout
from lmeraser.stores.folder import FolderStore
left = int(sys.argv[1])
real = FolderStore.delete
def delete(store, keys):
    global left
    for key in list(keys):
        if left == 0:
            os._exit(9)
        left -= 1
        real(store, [key])
    return 0
FolderStore.delete = delete
layout = Layout(Path.cwd())
purge.carry_out(layout, purge.read_journal(layout, sys.argv[2]))
"""


@pytest.mark.parametrize("deletes", [0, 1, 9, 40])
def test_a_purge_that_was_killed_is_finished_from_its_journal(scene: Scene, deletes: int) -> None:
    planned, needles = scene.plan()
    purge.write_journal(scene.layout, BATCH, planned.journal)
    assert scene.python("-c", KILLED, str(deletes), BATCH).returncode == 9
    assert scene.residue(needles)
    journal = purge.read_journal(scene.layout, BATCH)
    assert journal == planned.journal
    assert journal is not None
    purge.carry_out(scene.layout, journal)
    assert scene.residue(needles) == {}
    purge.carry_out(scene.layout, journal)
    assert pulls(scene, "other").returncode == 0


def test_what_is_live_now_is_never_deleted(scene: Scene) -> None:
    journal = purge.plan_purge(scene.layout, scene.is_erased)
    live = purge.live(scene.layout)[0]
    purge.carry_out(scene.layout, journal | {"objects": sorted({*journal["objects"], *live})})
    shutil.rmtree(scene.layout.artifacts)
    scene.dvc("checkout", "--quiet")
    assert scene.dvc("status", "--json").strip() == "{}"


def test_a_cache_that_cannot_be_written_is_told_after_the_remote_was_cleared(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, needles = scene.plan()
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:  # modes do not stop root
        if path.is_relative_to(scene.cache):
            raise OSError(30, "Read-only file system")
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(StepFailedError, match=r"^cache: \d+ files cannot be deleted \(Read-only file system\)"):
            purge.carry_out(scene.layout, planned.journal)
    assert set(scene.residue(needles)) == {"cache"}
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(needles) == {}


def test_a_remote_that_is_away_stops_planning_and_does_not_stop_the_others(scene: Scene) -> None:
    planned, needles = scene.plan()
    scene.disk.rename(scene.disk.with_name("unmounted"))
    with pytest.raises(StepFailedError, match="remote disk cannot be reached"):
        scene.plan()
    with pytest.raises(StepFailedError, match=r"remote disk cannot be reached.*lmeraser resume"):
        purge.carry_out(scene.layout, planned.journal)
    with pytest.raises(StepFailedError, match="remote disk cannot be reached"):
        scan.scan_stores(scene.layout, needles)
    scene.disk.with_name("unmounted").rename(scene.disk)
    assert set(scene.residue(needles)) == {"remote disk"}
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(needles) == {}


@pytest.mark.parametrize("url", ["gs://bucket/x", "ssh://host/x", "https://host/x"])
def test_a_remote_of_another_kind_is_refused_before_anything_goes(scene: Scene, url: str) -> None:
    scene.dvc("remote", "add", "far", url)
    held = files(scene.cache)
    with pytest.raises(ProjectError, match=r"^remote far is \w+://; purge knows folders and S3 only"):
        scene.plan()
    assert files(scene.cache) == held


def test_a_stale_clone_s_push_is_found_and_purged_again(scene: Scene) -> None:
    stale = files(scene.disk)
    scene.purge()
    for name, content in stale.items():
        (scene.disk / name).parent.mkdir(parents=True, exist_ok=True)
        (scene.disk / name).write_bytes(content)
    told = scan.audit_stores(scene.layout)
    assert not told["clean"]
    assert {row["store"] for row in told["stores"] if row["residue"]} == {"remote disk"}
    scene.purge()
    assert scan.audit_stores(scene.layout)["clean"]


def test_objects_that_nothing_names_any_more_go_from_the_own_cache(scene: Scene) -> None:
    """The old dvc.lock was never committed and no run was cached: what it named cannot be shown to be clean."""
    orphan = scene.cache / "files" / "md5" / "ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"a prompt of before")
    tracked = scene.root / "notes.bin"
    tracked.write_bytes(b"somebody's file")
    scene.dvc("add", "--quiet", "notes.bin")
    held = {name for name, content in files(scene.cache).items() if content == b"somebody's file"}
    scene.purge()
    assert not orphan.exists()
    assert held <= files(scene.cache).keys()


def test_copies_outside_of_the_stores_go(scene: Scene) -> None:
    layout = scene.layout
    gone = [
        layout.artifacts / "tune" / ".writing-abc",
        layout.artifacts / "tune" / "removed-slot.safetensors",
        layout.artifacts / "old" / "x.parquet",
        layout.root / ".demo" / "artifacts" / "x",
        layout.root / "dvc_plots" / "index.html",
        layout.root / ".dvc" / "tmp" / "exps" / "x",
        layout.root / ".dvc" / "tmp" / "site" / "repo" / "x",
        scene.cache / "files" / "md5" / "aa" / ".Zk3.tmp",
        scene.disk / "files" / "md5" / "aa" / "xyz.Zk3.tmp",
        Path(tempfile.gettempdir()) / "lmeraser-audit-killed" / "part.parquet",
    ]
    kept = [layout.private_state / "workspace.lock", Path(tempfile.gettempdir()) / "lmeraser-audit-running" / "part.parquet"]
    for path in (*gone, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for name, pid in (("killed", 2**22 + 1), ("running", os.getpid())):
        folder = Path(tempfile.gettempdir()) / f"lmeraser-audit-{name}"
        leftovers.mark_audit(folder, layout)
        owner = json.loads((folder / leftovers.OWNER).read_bytes())
        (folder / leftovers.OWNER).write_text(json.dumps(owner | {"pid": pid}))
    scene.purge()
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_leftovers_of_every_kind_and_place_are_found(scene: Scene) -> None:
    """A first version said "0 left" while 7 were left: what is planted after the purge must be seen, each alone."""
    cache, disk = files(scene.cache), files(scene.disk)
    _, needles = scene.purge()
    lost = sorted(name for name in cache if name not in files(scene.cache))
    entry = next(name for name in lost if name.startswith("runs/"))
    folder = next(name for name in lost if name.endswith(".dir"))
    part = next(name for name in lost if any(one in cache[name] for one in needles.images))
    sealed = [name for name in lost if name.startswith("files") and not name.endswith(".dir")]
    derived = next(name for name in sealed if not cache[name].startswith(b"PAR1"))
    tmp, prefect = Path(tempfile.gettempdir()), Path(os.environ["PREFECT_HOME"])
    leftovers_of = {
        "cache": [(scene.cache / name, cache[name]) for name in (entry, folder, part, derived)]
        + [(scene.cache / "files" / "md5" / "aa" / "x.tmp", cache[part][:-9])],
        "remote disk": [(scene.disk / name, disk[name]) for name in (entry, folder, part, derived) if name in disk],
        "workspace": [
            (scene.layout.artifacts / "tune" / "old.safetensors", cache[derived]),
            (scene.root / "notes.txt", f"we erased {victim(scene)}.".encode()),
            (scene.root / "copy.parquet", cache[part]),
            (scene.root / ".dvc" / "tmp" / "exps" / "x", cache[part]),
        ],
        "ledger, keys and logs": [(scene.layout.private_state / "log.txt", next(iter(needles.ids)).encode())],
        "dvc site": [(scene.root / ".dvc" / "tmp" / "site" / "x", next(iter(needles.images)))],
        "prefect": [(prefect / "prefect.db-wal", b"\0" + victim(scene).encode() + b"\0")],
        "temporary files": [(tmp / "lmeraser-audit-x" / "part.parquet", cache[part])],
    }
    (tmp / "lmeraser-audit-x").mkdir()
    os.utime(tmp / "lmeraser-audit-x", (0, 0))
    assert scene.residue(needles) == {}
    for store, planted in leftovers_of.items():
        assert planted, store
        for path, content in planted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if store == "temporary files":
                os.utime(path.parent, (0, 0))
            assert set(scene.residue(needles)) == {store}, (store, path.name)
            path.unlink()
    assert scene.residue(needles) == {}
    (scene.root / "export.csv").write_text("a canary of the user's own\n")
    told = scan.audit_stores(scene.layout, ["a canary of the user's own"])
    assert {row["store"] for row in told["stores"] if row["residue"]} == {"workspace"}


def test_the_scan_gets_no_needle_as_an_argument(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = subprocess.run

    def watch(command: list[str], **given: Any) -> Any:
        seen.append(command)
        return real(command, **given)

    _, needles = scene.plan()
    monkeypatch.setattr(subprocess, "run", watch)
    scan.scan_stores(scene.layout, needles)
    assert [command[1:] for command in seen if "flows.scan" in command] == [["-m", "flows.scan", str(scene.root)]]


@pytest.mark.parametrize("versions", ["Suspended", "Enabled"])
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
    planned, needles = scene.plan()
    condemned = {f"some/prefix/files/md5/{md5[:2]}/{md5[2:]}" for md5 in planned.journal["objects"]}
    pushed = {one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}
    hidden = min(condemned & pushed)
    client.delete_object(Bucket=bucket, Key=hidden)  # with versions it is only hidden
    assert {"condemned object", "condemned run entry"} <= scene.residue(needles)["remote far"]
    scene.dvc("remote", "modify", "--local", "far", "endpointurl", "http://127.0.0.1:9")
    with pytest.raises(StepFailedError, match=r"^remote far cannot be reached \(\w+\); .*lmeraser resume"):
        purge.carry_out(scene.layout, planned.journal)
    assert set(scene.local_residue(needles)) == set(), "the others were cleared"
    scene.dvc("remote", "modify", "--local", "--unset", "far", "endpointurl")
    purge.carry_out(scene.layout, planned.journal)
    assert scene.residue(needles) == {}
    told = client.list_object_versions(Bucket=bucket)
    left = {one["Key"] for one in (*told["Versions"], *told.get("DeleteMarkers", ()))}
    assert left == pushed - condemned - {key for key in pushed if key.startswith("some/prefix/runs/") and key not in left}
    done = pulls(scene, "other", s3, bucket)
    assert done.returncode == 0, done.stderr
