"""Every version of the locks: what stood together in one commit is one state, also where it lies in several files."""

import subprocess
from pathlib import Path

import pytest

from flows.purge.lineage import current_stages, live_names
from flows.purge.lock_history import WORKING, all_stages, parse_lock, versions
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.taint import condemn


def lock(**stages: tuple[dict[str, str], dict[str, str]]) -> str:
    """A dvc.lock: stage to its deps and outs, path to md5."""
    lines = ["schema: '2.0'", "stages:"]
    for name, sides in stages.items():
        lines += [f"  {name}:", "    cmd: x"]
        for side, paths in zip(("deps", "outs"), sides, strict=True):
            lines += [f"    {side}:", *(f"    - path: {path}\n      md5: '{md5}'" for path, md5 in paths.items())]
    return "\n".join(lines) + "\n"


def write(layout: Layout, state: str) -> None:
    """One state: `cluster` and `evaluate` in the root's lock, a slot in another one. Nothing names what `artifacts/tune` held."""
    root = lock(
        cluster=({"artifacts/split": f"split-{state}"}, {"artifacts/cluster": f"cluster-{state}"}),
        evaluate=({"artifacts/tune": f"tune-{state}.dir"}, {"metrics": f"metrics-{state}"}),
    )
    layout.lock.write_text(root)
    beside = lock(tune=({"artifacts/cluster": f"cluster-{state}"}, {"artifacts/tune/c64.safetensors": f"c64-{state}"}))
    (layout.root / "tune" / "02" / "dvc.lock").write_text(beside)


def commit(layout: Layout, *names: str) -> None:
    git = ["git", "-C", str(layout.root), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run([*git, "add", "--", *names], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "state"], check=True)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project with one file of slots, in git, with the committed states a and b and an uncommitted c."""
    made = Layout(tmp_path)
    for name in ("dvc.yaml", "tune/02/dvc.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("stages: {}\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    for state in ("a", "b"):
        write(made, state)
        commit(made, "dvc.yaml", "dvc.lock", "tune")
    write(made, "c")
    return made


def states(layout: Layout) -> set[frozenset[str]]:
    """The outs of each known version."""
    return {
        frozenset(md5 for path, text in version.files for stage in parse_lock(text, path) for _, md5 in stage.outs)
        for version in versions(layout).known
    }


def whole(state: str) -> frozenset[str]:
    return frozenset(f"{kind}-{state}" for kind in ("cluster", "metrics", "c64"))


def test_locks_of_one_commit_are_one_state_and_mix_with_no_other(layout: Layout) -> None:
    assert states(layout) == {whole("a"), whole("b"), whole("c")}
    assert sum(version.origin == WORKING for version in versions(layout).known) == 1


def test_lock_that_a_commit_left_alone_still_belongs_to_its_state(layout: Layout) -> None:
    kept = (layout.root / "tune" / "02" / "dvc.lock").read_text()
    write(layout, "d")
    (layout.root / "tune" / "02" / "dvc.lock").write_text(kept)
    commit(layout, "dvc.lock")
    commit(layout, "tune")
    mixed = frozenset({"cluster-d", "metrics-d", "c64-c"})
    assert mixed in states(layout)
    assert frozenset({"cluster-d", "metrics-d", "c64-b"}) in states(layout), "the commit between, with the slot of before"


def test_state_of_a_branch_of_the_index_and_of_a_kept_copy_is_known(layout: Layout) -> None:
    git = ["git", "-C", str(layout.root)]
    subprocess.run([*git, "stash", "--quiet"], check=True)
    write(layout, "index")
    subprocess.run([*git, "add", "dvc.lock", "tune"], check=True)
    copy = layout.private_state / "batch.locks"
    for name in ("dvc.lock", "tune/02/dvc.lock"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
    write(Layout(copy), "kept")
    write(layout, "now")
    assert states(layout) == {whole(state) for state in ("a", "b", "c", "index", "kept", "now")}


def test_taint_crosses_from_one_lock_to_the_other_within_a_state_only(layout: Layout) -> None:
    """What `artifacts/tune` held is told by no manifest: only that the slot stood beside it in the same commit."""
    known = all_stages(versions(layout).known)
    condemned = condemn(known, {}, {"split-a"}, live=())
    assert {"cluster-a", "c64-a", "tune-a.dir", "metrics-a"} <= condemned.objects
    assert not any("-b" in md5 or "-c" in md5 for md5 in condemned.objects)


@pytest.mark.parametrize("broken", ["", "stages:\n", None])
def test_what_is_live_is_not_known_while_a_lock_is_missing_or_damaged(layout: Layout, broken: str | None) -> None:
    """Else a purge would take what that lock names for something that nobody names."""
    assert len(current_stages(layout)) == 3
    assert "c64-c" in live_names(layout, {})
    path = layout.root / "tune" / "02" / "dvc.lock"
    path.unlink() if broken is None else path.write_text(broken)
    with pytest.raises(ProjectError, match=r"tune/02/dvc\.lock"):
        live_names(layout, {})
