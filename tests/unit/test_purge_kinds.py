"""Purge neither too much nor too little: what is known goes or stays by its lineage, what is unknown stays and is told, and a
history that cannot be read is no empty one. Tiny projects whose locks and stores are written by hand."""

import fcntl
import hashlib
import json
import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest
from builders import make_record, png, refused

from flows.purge import git_history, leftovers
from flows.purge import step as purge
from flows.purge.lock_history import versions
from lmeraser.core.errors import BlockedError, ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.data.records import Record, write_records
from lmeraser.stores.folder import FolderStore

HER, OLD_NAME, BOB = "CANARY-anna-7f3", "CANARY-Anna-7f3", "bobby-tables"


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@dataclass
class Yard:
    """A project with a cache of its own and a remote, and nothing built but what a test puts there."""

    root: Path

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def cache(self) -> Path:
        return self.root / ".dvc" / "cache"

    @property
    def remote(self) -> Path:
        return self.root.parent / "remote"

    def git(self, *arguments: str) -> None:
        git = ["git", "-C", str(self.root), "-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run([*git, *arguments], check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "state")

    def store(self, content: bytes, *stores: Path, folder: bool = False) -> str:
        """Put an object into the cache and the remote, or where it is said; returns its MD5."""
        md5 = md5_of(content) + (".dir" if folder else "")
        for place in stores or (self.cache, self.remote):
            path = place / "files" / "md5" / md5[:2] / md5[2:]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return md5

    def folder(self, members: Mapping[str, str], *stores: Path) -> str:
        return self.store(
            json.dumps([{"md5": md5, "relpath": path} for path, md5 in members.items()]).encode(), *stores, folder=True
        )

    def part(self, *records: tuple[Record, bytes]) -> bytes:
        path = self.root / "draft.parquet"
        write_records(path, records)
        content = path.read_bytes()
        path.unlink()
        return content

    def lock(self, name: str, **stages: tuple[Mapping[str, str], Mapping[str, str]]) -> None:
        lines = ["schema: '2.0'", "stages:"]
        for stage, sides in stages.items():
            lines += [f"  {stage}:", "    cmd: x"]
            for side, paths in zip(("deps", "outs"), sides, strict=True):
                lines += (
                    [f"    {side}:", *(f"    - path: {path}\n      md5: {md5}" for path, md5 in paths.items())] if paths else []
                )
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text("\n".join(lines) + "\n")

    def build(self, *records: tuple[Record, bytes], model: bytes) -> dict[str, str]:
        """Write, store and lock one state: a part, and a model made of it."""
        part = self.part(*records)
        self.layout.part("p00").parent.mkdir(parents=True, exist_ok=True)
        self.layout.part("p00").write_bytes(part)
        made = {"part": self.store(part), "model": self.store(model)}
        made["private"] = self.folder({"p00.parquet": made["part"]})
        self.lock(
            "dvc.lock",
            split=({"people": "1" * 32}, {"artifacts/split/private": made["private"]}),
            tune=({"artifacts/split/private/p00.parquet": made["part"]}, {"artifacts/tune/c00.safetensors": made["model"]}),
        )
        return made

    def objects_in(self, store: Path) -> set[str]:
        return {path.parent.name + path.name for path in (store / "files" / "md5").glob("*/*")}

    def purge(self) -> purge.PurgePlan:
        planned = purge.plan(self.layout, lambda subject: subject == HER)
        purge.carry_out(self.layout, planned.journal)
        return planned


HERS = (make_record(HER, image=png(1)), png(1))
BOBS = (make_record(BOB, image=png(2)), png(2))


def make_yard(root: Path, git: bool = True) -> Yard:
    made = Yard(root)
    (root / ".dvc").mkdir(parents=True)
    made.remote.mkdir(exist_ok=True)
    (root / ".dvc" / "config").write_text(f"['remote \"disk\"']\n    url = {made.remote}\n")
    (root / ".gitignore").write_text("/.dvc/cache\n/artifacts\n")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text("")
    if git:
        made.git("init", "--quiet")
    return made


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Yard:
    """She was in the first, committed state; the working tree holds the one without her."""
    for name in ("PREFECT_HOME", "XDG_CONFIG_HOME", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return make_yard(tmp_path / "project")


def two_states(yard: Yard) -> tuple[dict[str, str], dict[str, str]]:
    old = yard.build(HERS, BOBS, model=b"a model of everybody")
    yard.commit()
    return old, yard.build(BOBS, model=b"a model without her")


PLACES = ["extra", "a/b/c", "tune", "dvc.lock.d"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("where", ["committed", "branch", "stash", "index", "tree", "ignored"])
def test_what_another_pipeline_made_stays_wherever_git_or_the_tree_has_its_lock(yard: Yard, place: str, where: str) -> None:
    report = yard.store(b"a month of work, about nobody")
    added = yard.store(b"somebody's data")
    _old, new = two_states(yard)
    if where == "branch":
        yard.git("checkout", "--quiet", "-b", "other")
    yard.lock(f"{place}/dvc.lock", report=({}, {"report.txt": report}))
    (yard.root / place / "data.dvc").write_text(f"outs:\n- md5: {added}\n  path: data\n")
    if where in ("committed", "branch"):
        yard.git("add", place)
        yard.git("commit", "--quiet", "--message", "another pipeline")
        yard.git("rm", "-r", "--quiet", place)
    elif where == "stash":
        yard.git("add", place)
        yard.git("stash", "--quiet", "--", place)
    elif where == "index":
        yard.git("add", place)
        for name in ("dvc.lock", "data.dvc"):
            (yard.root / place / name).unlink()
    elif where == "ignored":
        with (yard.root / ".gitignore").open("a") as ignored:
            ignored.write(f"/{place}/\n")
    planned = yard.purge()
    for store in (yard.cache, yard.remote):
        assert yard.objects_in(store) == {report, added, *new.values()}
    assert planned.unknown == {}


def test_what_another_pipeline_made_of_tainted_content_goes(yard: Yard) -> None:
    old, new = two_states(yard)
    derived, folder, clean = yard.store(b"a table of its answers"), yard.store(b"a sum over models"), yard.store(b"about nobody")
    yard.git("stash", "--quiet")
    yard.lock(
        "extra/dvc.lock",
        answers=({"../artifacts/tune/c00.safetensors": old["model"]}, {"answers.csv": derived}),
        total=({"../artifacts/tune": "7" * 32 + ".dir"}, {"total.csv": folder}),
        report=({"notes": "8" * 32}, {"report.csv": clean}),
    )
    yard.commit()
    yard.git("stash", "pop", "--quiet")
    yard.purge()
    for store in (yard.cache, yard.remote):
        assert yard.objects_in(store) == {clean, *new.values()}


def test_a_copy_that_was_added_by_hand_vouches_for_nothing(yard: Yard) -> None:
    old, new = two_states(yard)
    (yard.root / "export.dvc").write_text(f"outs:\n- md5: {old['model']}\n  path: export\n")
    yard.purge()
    assert yard.objects_in(yard.remote) == set(new.values())


def test_a_neighbour_s_lock_in_a_monorepo_is_known(tmp_path: Path, yard: Yard) -> None:
    mono = make_yard(tmp_path / "mono" / "team" / "ours", git=False)
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "mono")], check=True)
    theirs = mono.store(b"the neighbour's model")
    mono.lock("../theirs/dvc.lock", train=({}, {"model": theirs}))
    _old, new = two_states(mono)
    planned = mono.purge()
    assert mono.objects_in(mono.remote) == {theirs, *new.values()}
    assert planned.unknown == {}


def test_locks_of_other_worktrees_are_known(tmp_path: Path, yard: Yard) -> None:
    two_states(yard)
    yard.git("worktree", "add", "--quiet", str(tmp_path / "second"), "-b", "second")
    second = Yard(tmp_path / "second")
    theirs = yard.store(b"of the other worktree, committed nowhere")
    second.lock("dvc.lock", other=({}, {"model": theirs}))
    assert yard.purge().unknown == {}
    assert theirs in yard.objects_in(yard.remote)


def test_what_is_only_unknown_is_deleted_from_the_own_cache_and_nowhere_else(yard: Yard) -> None:
    _, new = two_states(yard)
    everywhere = yard.store(b"of nobody knows what")
    planned = yard.purge()
    assert yard.objects_in(yard.cache) == set(new.values())
    assert yard.objects_in(yard.remote) == {everywhere, *new.values()}
    assert planned.unknown == {"remote disk": 1}
    assert everywhere not in purge.remembered(yard.layout).objects


def test_a_cache_outside_the_project_is_shared(yard: Yard, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    with (yard.root / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {shared}\n")
    _, new = two_states(yard)
    for md5 in new.values():
        path = yard.cache / "files" / "md5" / md5[:2] / md5[2:]
        yard.store(path.read_bytes(), shared, folder=md5.endswith(".dir"))
    theirs = yard.store(b"another project's", shared)
    (shared / "files" / "md5" / "aa").mkdir()
    (shared / "files" / "md5" / "aa" / "readme").write_text("another program's")
    planned = yard.purge()
    assert theirs in yard.objects_in(shared)
    assert (shared / "files" / "md5" / "aa" / "readme").exists()
    assert planned.unknown == {"cache": 1}


def test_a_colleague_s_push_of_a_model_of_everybody_is_refused_and_told(yard: Yard) -> None:
    two_states(yard)
    part = yard.part(HERS, BOBS, (make_record("cem", image=png(3)), png(3)))
    pushed = [yard.store(part, yard.remote), yard.store(b"a model of everybody, tuned otherwise", yard.remote)]
    other = yard.store(yard.part(BOBS, (make_record("cem", image=png(3)), png(3))), yard.remote)
    yard.folder({"p00.parquet": pushed[0], "p01.parquet": other}, yard.remote)
    assert purge.unknown_in_remotes(yard.layout) == {"remote disk": 4}
    planned = purge.plan(yard.layout, lambda subject: subject == HER)
    assert planned.unknown == {"remote disk": 2}, "the model, and a part of others"
    message = refused(BlockedError, lambda: purge.refuse_unknown(planned.unknown, False))
    assert "remote disk: 2" in message
    assert "--accept-unknown" in message
    purge.refuse_unknown(planned.unknown, True)
    purge.refuse_unknown({}, True)
    purge.carry_out(yard.layout, planned.journal)
    assert {pushed[1], other} <= yard.objects_in(yard.remote)
    assert pushed[0] not in yard.objects_in(yard.remote), "it was seen to hold her"


@pytest.mark.parametrize("form", ["bytes", "json"])
def test_an_unknown_file_that_is_seen_to_hold_her_goes_from_a_remote(yard: Yard, form: str) -> None:
    _, new = two_states(yard)
    content = b"...." + png(1) + b"...." if form == "bytes" else json.dumps({"who": HER}).encode()
    yard.store(content, yard.remote)
    yard.purge()
    assert yard.objects_in(yard.remote) == set(new.values())


def test_parts_from_before_a_name_was_corrected_go_by_their_images(yard: Yard) -> None:
    misspelt = (make_record(OLD_NAME, image=png(1)), png(1))
    first = yard.build(misspelt, BOBS, model=b"the first")
    yard.commit()
    second = yard.build(HERS, BOBS, model=b"the second")
    yard.commit()
    new = yard.build(BOBS, model=b"without her")
    planned = purge.plan(yard.layout, lambda subject: subject == HER)
    search_terms = planned.search_terms
    assert {misspelt[0].id, HERS[0].id} <= search_terms.ids
    assert search_terms.names == {HER, OLD_NAME}
    assert BOBS[0].id not in search_terms.ids
    purge.carry_out(yard.layout, planned.journal)
    for store in (yard.cache, yard.remote):
        assert yard.objects_in(store) == set(new.values())
    assert {*first.values(), *second.values()} <= set(planned.journal.objects)


def test_a_part_is_read_once_for_what_people_are_known_by_and_once_for_what_it_holds(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts may lie in a bucket, and most hold nobody who is erased."""
    cem = yard.store(yard.part(BOBS, (make_record("cem", image=png(3)), png(3))))
    old, _ = two_states(yard)
    yard.lock("before/dvc.lock", split=({}, {"artifacts/split/private/p00.parquet": cem}))
    opened: Counter[str] = Counter()
    real = FolderStore.open

    def counting(store: FolderStore, key: str) -> BinaryIO:
        opened[key.removeprefix("files/md5/").replace("/", "")] += 1
        return real(store, key)

    monkeypatch.setattr(FolderStore, "open", counting)
    search_terms = purge.plan(yard.layout, lambda subject: subject == HER).search_terms
    assert search_terms.ids == {HERS[0].id}
    assert search_terms.images == {png(1)}
    copies = 2  # that hold nothing are each looked into
    assert opened[cem] == 1 + copies
    assert opened[old["part"]] == 2 + 1, "its images too"


def test_a_part_with_an_image_that_a_retained_person_has_too_stays(yard: Yard) -> None:
    same = (make_record(BOB, image=png(1)), png(1))
    yard.build(HERS, same, model=b"both")
    yard.commit()
    other = yard.build(same, (make_record("cem", image=png(4)), png(4)), model=b"with cem")
    yard.commit()
    yard.build(same, model=b"without her")
    planned = yard.purge()
    assert set(other.values()) <= yard.objects_in(yard.remote)
    assert png(1) not in planned.search_terms.images, "he has it too"


def test_a_shallow_clone_with_a_remote_is_refused_before_anything_goes(tmp_path: Path, yard: Yard) -> None:
    _old, new = two_states(yard)
    yard.commit()
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{yard.root}", str(tmp_path / "clone")], check=True)
    clone = Yard(tmp_path / "clone")
    yard.cache.rename(clone.cache)
    before = clone.objects_in(clone.cache)
    for act in (clone.purge, lambda: purge.unknown_in_remotes(clone.layout)):
        message = refused(ProjectError, act)
        assert "git fetch --unshallow" in message
        assert "remote disk" in message
    assert clone.objects_in(clone.cache) == before
    (clone.root / ".dvc" / "config").write_text("")
    assert clone.purge().lineage.problem == git_history.SHALLOW
    assert clone.objects_in(clone.cache) == set(new.values())


@pytest.mark.parametrize("how", ["broken", "file", "dubious", "absent", "blobs"])
def test_a_history_that_cannot_be_read_is_no_empty_one(yard: Yard, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    two_states(yard)
    expected = git_history.BROKEN
    if how == "broken":
        (yard.root / ".git" / "HEAD").unlink()
    elif how == "file":
        (yard.root / ".git").rename(yard.root.parent / "moved")
        (yard.root / ".git").write_text("gitdir: nowhere\n")
    elif how == "dubious":
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        expected = git_history.FOREIGN
    elif how == "absent":
        monkeypatch.setattr(git_history, "_run", lambda *_: (_ for _ in ()).throw(FileNotFoundError("git")))
        expected = git_history.ABSENT
    else:
        printed = subprocess.run(
            ["git", "-C", str(yard.root), "rev-parse", "HEAD:dvc.lock"], capture_output=True, text=True, check=True
        )
        identity = printed.stdout.strip()
        (yard.root / ".git" / "objects" / identity[:2] / identity[2:]).unlink()
        expected = git_history.PARTIAL
    assert versions(yard.layout).problem == expected
    before = yard.objects_in(yard.cache)
    assert expected in refused(ProjectError, yard.purge)
    assert yard.objects_in(yard.cache) == before


def test_a_project_without_git_is_no_problem(tmp_path: Path, yard: Yard) -> None:
    plain = make_yard(tmp_path / "plain", git=False)
    report = plain.store(b"a report")
    plain.lock("extra/dvc.lock", report=({}, {"report.txt": report}))
    new = plain.build(BOBS, model=b"without her")
    assert versions(plain.layout).problem == ""
    plain.purge()
    assert plain.objects_in(plain.cache) == {report, *new.values()}


def test_a_file_of_a_store_that_cannot_be_read_is_one_line(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    two_states(yard)
    md5 = yard.store(b"unknown, and closed", yard.remote)
    real = os.open

    def closed(path: object, *given: int, **more: int) -> int:  # modes do not stop root
        if str(path).endswith(md5[2:]):
            raise PermissionError(13, "Permission denied")
        return real(path, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(StepFailedError, match=r"^remote disk: a file or folder cannot be read"):
        yard.purge()


def test_a_killed_audit_s_copy_is_left_over_though_its_number_lives_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "audits", lambda: sorted(tmp_path.glob("audit-*")))
    layout = Layout(tmp_path)
    for name in ("audit-runs", "audit-killed", "audit-of-another"):
        (tmp_path / name).mkdir()
    leftovers.mark_audit(tmp_path / "audit-runs", layout)
    for name, root in (("audit-killed", tmp_path), ("audit-of-another", tmp_path / "x")):
        (tmp_path / name / leftovers.OWNER).write_text(json.dumps({"pid": os.getpid(), "root": str(root)}))
    assert leftovers.abandoned_audits(layout) == [tmp_path / "audit-killed"]
    fcntl.flock(leftovers.MARKS.pop(), fcntl.LOCK_UN)
    assert leftovers.abandoned_audits(layout) == [tmp_path / "audit-killed", tmp_path / "audit-runs"]
