"""A project of an older release, with a request at each state, goes on under today's code: the request ends certified, truly.

The older release builds the project here, because artifacts belong to the environment that made them (docs/decisions/0008); it is
taken from git, so without git's history there is nothing to test. What older releases wrote is read by tests/unit/test_frozen.py.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sandbox import CANARY, REPOSITORY, Sandbox, refused

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "frozen"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))
from interruptions import falsehoods, finish, git
from make import KILLS, OPEN, OTHER, build, freeze, has_release, ledger_states

from lmeraser.pipeline.locks import read_outs

pytestmark = pytest.mark.campaign

RELEASES = ("24f4f35",)
CODE = ("flows", "lmeraser", "stages", "dvc.yaml")  # what a release brings into a project


@pytest.fixture(scope="session", params=RELEASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    """A project as a release built it; never change it."""
    if not has_release(request.param):
        pytest.skip(f"git knows no commit {request.param} here: fetch the whole history (`git fetch --unshallow`)")
    return build(tmp_path_factory.mktemp("frozen") / "base", request.param)


def upgrade(project: Sandbox) -> None:
    """Let the project run today's code, as merging the release does: new params come with it, its own stay."""
    for name in CODE:
        path = project.root / name
        if path.is_dir():
            shutil.rmtree(path)
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name and (REPOSITORY / name).is_file():
            (project.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, project.root / name)
    fresh, own = (yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")) for root in (REPOSITORY, project.root))
    merged = {
        name: value | own.get(name, {}) if isinstance(value, dict) else own.get(name, value) for name, value in fresh.items()
    }
    (project.root / "params.yaml").write_text(yaml.safe_dump(merged, sort_keys=False), encoding="utf-8")
    git(project, "add", "--all", "--", *CODE, "params.yaml")
    git(project, "commit", "-q", "-m", "the next release", "--", *CODE, "params.yaml")


@pytest.fixture
def frozen(base: Sandbox, tmp_path: Path, request: pytest.FixtureRequest) -> Sandbox:
    """A project whose request the release left at the state that the test names, under today's code."""
    project = freeze(base, request.param, tmp_path / "project")
    upgrade(project)
    return project


@pytest.fixture(scope="session")
def undisturbed(base: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The outs of an erasure that began and ended under today's code, and that a rebuild from the retained records confirmed."""
    project = Sandbox(tmp_path_factory.mktemp("undisturbed") / "project")
    shutil.copytree(base.root, project.root, symlinks=True)
    upgrade(project)
    assert project.lmeraser("build").returncode == 0
    project.json("forget", "--subject", project.people()[1], "--request-id", OPEN)
    assert list(falsehoods(project, OPEN, project.people()[1])) == []
    return read_outs(project.root / "dvc.lock")


def at(*states: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("frozen", states, indirect=True)


@at(*KILLS, "quarantined")
def test_a_request_that_an_older_release_left_at_any_state_is_certified_truly(
    base: Sandbox, frozen: Sandbox, undisturbed: dict[str, str]
) -> None:
    two = OTHER in ledger_states(frozen)  # of one batch, and the first is certified already
    signed = any(
        (frozen.root / "certificates").glob(f"*-{OPEN}.json")
    )  # of what the older release made; today's code makes others
    taken, line = finish(frozen, OPEN)
    assert not line
    assert taken == 1, "the way out that the refusal names is one: `dvc repro` takes the new code in"
    false = list(falsehoods(frozen, OPEN, base.people()[1], ["--rebuild", "--stores"] if two else ["--stores"]))
    assert false == (["artifacts are not those that it names"] if signed else [])
    assert two or read_outs(frozen.root / "dvc.lock") == undisturbed


@at("validated")
def test_a_request_that_waits_for_approval_still_waits_and_goes_on_with_it(frozen: Sandbox) -> None:
    assert frozen.lmeraser("build").returncode == 0
    assert frozen.lmeraser("resume").returncode == 0
    assert ledger_states(frozen)[OPEN] == "validated"
    assert frozen.json("approve", OPEN, "--by", "somebody")["state"] == "quarantined"
    assert finish(frozen, OPEN) == (0, "")
    assert list(falsehoods(frozen, OPEN, frozen.people()[1])) == []


@at("blocked")
def test_a_blocked_request_goes_on_once_the_rebuild_is_accepted(frozen: Sandbox) -> None:
    person = frozen.people("public")[0]
    again = ("forget", "--request-id", OPEN, "--subject", person, "--include-public", "--json")
    assert "dvc repro" in refused(frozen.lmeraser(*again), 2)
    assert frozen.lmeraser("build").returncode == 0
    assert frozen.json(*again)["state"] == "certified"
    assert list(falsehoods(frozen, OPEN, person)) == []


@at("set aside")
def test_a_request_that_was_set_aside_is_taken_up_when_the_other_is_cancelled(frozen: Sandbox) -> None:
    person = frozen.people()[2]
    frozen.json("cancel", OTHER)
    assert finish(frozen, OPEN) == (1, "")
    assert ledger_states(frozen)[OTHER] == "rejected"
    assert list(falsehoods(frozen, OPEN, person)) == []


@at("rejected", "certified")
def test_what_was_over_stays_over_and_the_chain_goes_on(frozen: Sandbox) -> None:
    before = ledger_states(frozen)
    certificates = {path.name: path.read_bytes() for path in (frozen.root / "certificates").glob("*.json")}
    assert len(certificates) == list(before.values()).count("certified")
    assert frozen.lmeraser("build").returncode == 0
    frozen.json("forget", "--subject", frozen.people()[3], "--request-id", OTHER)
    assert list(falsehoods(frozen, OTHER, frozen.people()[3])) == []
    assert ledger_states(frozen) == before | {OTHER: "certified"}
    assert certificates.items() < {path.name: path.read_bytes() for path in (frozen.root / "certificates").glob("*.json")}.items()


@at("removed")
def test_nothing_is_said_of_anybody_when_an_older_release_s_request_is_refused(frozen: Sandbox) -> None:
    line = refused(frozen.lmeraser("resume"), 2)
    assert "the source, params.yaml or the code changed" in line
    assert CANARY not in line
