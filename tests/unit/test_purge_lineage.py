"""What a lock explains goes or stays by its lineage, wherever the lock is."""

import subprocess
from pathlib import Path

import pytest
from builders import make_record, png

from flows.purge import step as purge
from unit.yard import BOB, BOBS, HER, HERS, Yard, make_yard, two_states

OLD_NAME = "CANARY-Anna-7f3"
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
