"""Parts of several files with DVC itself: a new number trains nothing, an erasure moves one file, and what it was is nowhere."""

import json
import shutil
from pathlib import Path

import pytest
from sandbox import CANARY, Sandbox, files
from sharing import shared

from lmeraser.core.digest import part_of, shard_of
from lmeraser.core.layout import Layout
from lmeraser.pipeline.locks import md5_of_file, outs_by_stage, read_files, read_outs

pytestmark = pytest.mark.slow

SHARDS = 4


def divide(built: Sandbox, folder: Path) -> None:
    """The small project with a remote, before and after its parts were divided; both states are pushed, the second in git."""
    shutil.copytree(built.root, folder / "project", symlinks=True)
    (folder / "remote").mkdir()
    project = Sandbox(folder / "project")
    project.dvc("remote", "add", "--default", "disk", "../remote")
    before, tuned = outs_by_stage(project.root / "dvc.lock"), inodes(project.root / "artifacts" / "tune")
    told = project.json("parts", str(SHARDS))
    assert (told["shards"], told["was"]) == (SHARDS, 1)
    done = project.lmeraser("build")
    assert done.returncode == 0, done.stderr
    after = outs_by_stage(project.root / "dvc.lock")
    assert {stage for stage in after if after[stage] != before[stage]} == {"split"}, "what is made of the parts keeps its bytes"
    assert inodes(project.root / "artifacts" / "tune") == tuned, "no cluster is trained"
    ran = [line for line in done.stderr.splitlines() if line.startswith("Running stage")]
    assert not [line for line in ran if "tune" in line or "pretrain" in line], ran
    project.dvc("push", "--quiet")


@pytest.fixture(scope="session")
def prepared_parts(built: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "parts", lambda folder: divide(built, folder))


@pytest.fixture
def divided(prepared_parts: Path, tmp_path: Path) -> Sandbox:
    """A copy of the project whose parts have several files, and of its remote."""
    shutil.copytree(prepared_parts, tmp_path / "divided", symlinks=True)
    return Sandbox(tmp_path / "divided" / "project")


def inodes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def objects(folder: Path) -> set[str]:
    """MD5s of what a cache or a remote holds."""
    return {path.parent.name + path.name for path in (folder / "files" / "md5").glob("*/*")}


def shards(project: Sandbox) -> dict[str, str]:
    """MD5 of each shard, by its path in the folder of the parts."""
    private = Layout(project.root).private
    return {name: md5_of_file(private / name) for name in inodes(private)}


def test_erasure_moves_one_file_and_what_it_was_is_nowhere(divided: Sandbox) -> None:
    cache, remote = divided.root / ".dvc" / "cache", divided.root.parent / "remote"
    person = divided.people()[3]
    own = f"p{part_of(person, 2):02d}.parquet/{shard_of(person, SHARDS):04d}.parquet"
    before, stored = shards(divided), objects(cache)
    assert len(before) == 2 * SHARDS
    summary = divided.json("forget", "--subject", person)
    assert summary["state"] == "certified"
    after, came = shards(divided), objects(cache) - stored
    assert {name for name in before if after[name] != before[name]} == {own}
    assert came & {*after.values()} == {after[own]}, "one file of records came into the cache, and a manifest that names it"
    sizes = {md5: (cache / "files" / "md5" / md5[:2] / md5[2:]).stat().st_size for md5 in came}
    private = [path for path in Layout(divided.root).private.rglob("*") if path.is_file()]
    assert sizes[after[own]] < sum(path.stat().st_size for path in private) / 2
    for store in (cache, remote):
        held = objects(store)
        assert before[own] not in held
        assert {*before.values()} - {before[own]} <= held, "other people's files stay where they are"
    for store in (cache, remote):
        assert not [name for name, content in files(store).items() if person.encode() in content]
    assert divided.json("verify", summary["certificate"])["valid"] is True
    audit = divided.json("audit", "--rebuild")
    artifacts, people = len(read_outs(divided.root / "dvc.lock")), {"certificate": 1, "same": True}
    assert audit == {"equal": True, "artifacts": artifacts, "differing": [], "people": people}
    assert divided.json("audit", "--stores")["clean"] is True
    assert CANARY not in json.dumps(summary)


UPDATE_AND_RECORD = """
import json, sys
from pathlib import Path
from dvc_data.hashfile import build
from flows.dvc.record import record
from flows.run import before
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.erase.erased import ErasedList, key_path, load_or_create_key
from lmeraser.pipeline.before import open_before
from lmeraser.pipeline.locks import read_outs
from stages.update.split import update

layout, person, part = Layout(Path.cwd()), *sys.argv[1:]
folder = before.keep(layout, "batch", read_outs(layout.lock), [part])
key = load_or_create_key(key_path(layout.private_state))
ErasedList.known(layout).add([key.pseudonym(person)], key).write(layout.erased)
assert update(open_before(folder, layout), layout, load_params(layout.params), [])
hashed, real = [], build.hash_file
build.hash_file = lambda path, *rest, **named: (hashed.append(path), real(path, *rest, **named))[1]
record(["split"])
print(json.dumps([path.partition("split/private/")[2] for path in hashed if "split/private/" in path]))
"""


def test_recording_of_an_erasure_reads_the_one_file_that_is_new(divided: Sandbox) -> None:
    divided.dvc("status")  # this copy's files are new to DVC: it reads them once
    person = divided.people()[3]
    part = f"p{part_of(person, 2):02d}"
    done = divided.python("-c", UPDATE_AND_RECORD, person, part)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [f"{part}.parquet/{shard_of(person, SHARDS):04d}.parquet"]
    assert read_files(divided.root, ["artifacts/split/private"]).items() <= read_outs(divided.root / "dvc.lock").items()


def test_dvc_itself_keeps_checks_and_brings_back_folders_of_shards(divided: Sandbox, tmp_path: Path) -> None:
    assert "up to date" in divided.dvc("status")
    part = Layout(divided.root).part("p01")
    before = shards(divided)
    (part / "0002.parquet").unlink()
    assert "split" in divided.dvc("status")
    shutil.rmtree(part)
    divided.dvc("checkout", "--quiet")
    assert shards(divided) == before
    recorded = read_outs(divided.root / "dvc.lock")
    assert read_files(divided.root, recorded) == recorded
    clone = Sandbox(tmp_path / "clone")
    shutil.copytree(divided.root, clone.root, ignore=shutil.ignore_patterns("artifacts", "cache", "tmp", ".lmeraser"))
    shutil.copytree(divided.root.parent / "remote", tmp_path / "remote")
    clone.dvc("pull", "--quiet", "artifacts/split/private/p01.parquet")  # as a worker in a clone does
    there = {name: md5_of_file(Layout(clone.root).private / name) for name in inodes(Layout(clone.root).private)}
    assert there == {name: md5 for name, md5 in before.items() if name.startswith("p01")}


def test_shard_that_is_missing_is_told_in_one_line_and_not_left_out(divided: Sandbox) -> None:
    (Layout(divided.root).part("p01") / "0003.parquet").unlink()
    done = divided.python("-m", "stages.embed", "p01")
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    assert "p01.parquet" in lines[0]


@pytest.mark.campaign("half a minute; in process: unit/test_updates.py and unit/test_additions.py")
def test_build_after_people_came_embeds_them_alone(divided: Sandbox) -> None:
    manifest = divided.manifest
    person = divided.people()[5]
    rows = manifest[manifest["subject"] == person]
    manifest.loc[rows.index[0], "subject"] = f"{CANARY}-newcomer"
    manifest.to_csv(divided.root / "people" / "manifest.csv", index=False)
    done = divided.lmeraser("build")
    assert done.returncode == 0, done.stderr
    assert "slots were other" in done.stderr, "not from nothing"
    assert divided.json("audit", "--rebuild")["equal"] is True
