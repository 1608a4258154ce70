"""Periods: what is past its own goes, what audits need stays as long as they need it, and no event of the ledger ever goes."""

import stat
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from builders import make_params
from clocks import DAY, Clock
from fake_pipeline import CANARY, FakePipeline
from prefect.settings import Settings

from flows.service.maintenance import upkeep as flow
from flows.service.upkeep import clear, vacuum
from lmeraser.core.errors import StepFailedError

PERSON = f"{CANARY}-2"
WHO = "A. Officer"


def set_periods(pipeline: FakePipeline, **values: int | None) -> None:
    path = pipeline.root / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw["retention"] |= values
    path.write_text(yaml.safe_dump(raw))


def logs(pipeline: FakePipeline) -> dict[str, str]:
    folder = pipeline.layout.private_state / "logs"
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def tidy(pipeline: FakePipeline) -> tuple[int, int]:
    with pipeline.process() as project:
        cleared = clear(project)
        return cleared.logs, cleared.words


@pytest.fixture
def logged(pipeline: FakePipeline, clock: Clock) -> FakePipeline:
    folder = pipeline.layout.private_state / "logs"
    folder.mkdir(mode=0o700)
    (folder / "worker.log").write_text("first\n")
    (folder / "audit-due.log").write_text("audited\n")
    (folder / "notes.txt").write_text("not ours\n")
    return pipeline


def test_nothing_has_a_period_unless_params_say_so(logged: FakePipeline, clock: Clock) -> None:
    before = logs(logged)
    clock.now += 4_000 * DAY
    assert tidy(logged) == (0, 0)
    assert logs(logged) == before
    assert vacuum(make_params().retention) == {}


def test_logs_go_after_their_days_and_those_of_audits_after_theirs(logged: FakePipeline, clock: Clock) -> None:
    set_periods(logged, logs_days=5, audit_days=30)
    folder = logged.layout.private_state / "logs"
    first = clock.day(0)
    with (folder / "worker.log").open("a") as service:  # as a worker has it open
        assert tidy(logged) == (0, 0)
        service.write("second\n")
    assert logs(logged) == {
        "audit-due.log": "",
        f"audit-due.log.{first}": "audited\n",
        "notes.txt": "not ours\n",
        "worker.log": "second\n",
        f"worker.log.{first}": "first\n",
    }
    assert stat.S_IMODE((folder / f"worker.log.{first}").stat().st_mode) == 0o600
    assert tidy(logged) == (0, 0)
    assert logs(logged)[f"worker.log.{first}"] == "first\nsecond\n", "the same day twice loses nothing"
    clock.now += 5 * DAY
    assert tidy(logged) == (0, 0)
    clock.now += DAY
    assert tidy(logged) == (1, 0)
    assert f"audit-due.log.{first}" in logs(logged)
    clock.now += 25 * DAY
    assert tidy(logged) == (1, 0)
    assert logs(logged) == {"audit-due.log": "", "notes.txt": "not ours\n", "worker.log": ""}


def test_a_link_among_the_logs_is_not_followed(logged: FakePipeline, clock: Clock, tmp_path: Path) -> None:
    set_periods(logged, logs_days=1)
    (tmp_path / "elsewhere").write_text("CANARY")
    folder = logged.layout.private_state / "logs"
    (folder / "linked.log").symlink_to(tmp_path / "elsewhere")
    (folder / f"worker.log.{clock.day(0)}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StepFailedError, match="cannot be set aside"):
        tidy(logged)
    assert (tmp_path / "elsewhere").read_text() == "CANARY"
    assert logs(logged)["worker.log"] == "first\n"


def test_words_go_after_their_days_approvals_stay_for_audits_and_no_event_ever_goes(
    pipeline: FakePipeline, clock: Clock, tmp_path: Path
) -> None:
    set_periods(pipeline, words_days=10, audit_days=30)
    (tmp_path / "feed.csv").write_text(f"subject\n{PERSON}\n")
    [identity] = pipeline.json("propose", "--feed", str(tmp_path / "feed.csv"))["proposed"]
    pipeline.json("approve", identity, "--by", WHO)
    pipeline.json("extend", identity, "--days", "5", "--reason", "file 42")
    pipeline.json("hold", identity, "--until", clock.day(1), "--reason", "file 43")
    pipeline.json("release", identity)
    clock.now += 20 * DAY
    assert tidy(pipeline) == (0, 1), "the hold is over, the request is not"
    pipeline.json("cancel", identity)
    with pipeline.process() as project:
        events = project.ledger.verify_chain()
        assert len(project.ledger.words(identity)) == 2
    clock.now += 11 * DAY
    assert tidy(pipeline) == (0, 1)
    assert pipeline.json("status", identity)["approved_by"] == WHO
    clock.now += 20 * DAY
    assert tidy(pipeline) == (0, 1)
    with pipeline.process() as project:
        assert project.ledger.words(identity) == []
        assert project.ledger.verify_chain() == events
    files = pipeline.layout.private_state.glob("ledger.db*")
    assert all(WHO.encode() not in path.read_bytes() for path in files)


def test_command_and_flow_do_both_and_tell_counts_alone(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = pipeline.root / "people" / "manifest.csv"
    manifest.write_text("".join(line for line in manifest.read_text().splitlines(True) if f",{PERSON}," not in line))
    answer = pipeline.json("upkeep")
    assert (answer["cleared"], answer["by_cause"]) == ({"logs": 0, "words": 0}, {"gone from the source": 1})
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    assert flow.fn() == "0 logs and 0 words deleted; 0 requests proposed"


def test_prefects_server_understands_what_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of its settings are Prefect's: one that it does not know would change nothing, silently."""
    for name, value in vacuum(make_params({"retention.runs_days": 3}).retention).items():
        monkeypatch.setenv(name, value)
    settings = Settings().server.services.db_vacuum
    assert settings.retention_period == timedelta(days=3)
    assert settings.enabled_vacuum_types >= {"events", "flow_runs"}
