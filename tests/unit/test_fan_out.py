"""What builds and erasures hand to workers, what they get back, and what happens when workers die. No server: runs are faked."""

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from builders import Row, write_source
from fake_pipeline import CANARY, FakePipeline, dvc_of, everybody
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed

from flows.dvc import command as dvc
from flows.project import Project, workspace
from flows.run import build, clones, handout
from flows.run.waves import HANDED_OUT, Wave, shares
from flows.service import fan_out, maintenance
from flows.service.run_stages import run_stages
from flows.service.tune_cluster import tune_cluster
from lmeraser.clusters.files import load_members, load_sizes
from lmeraser.clusters.global_head import load_sums, save_sums
from lmeraser.core.errors import ProjectError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import StageName
from lmeraser.pipeline.locks import read_outs

NEW = (Row(f"{CANARY}-new", "one", seed=201), Row(f"{CANARY}-new", "two", seed=202))
Run = dict[str, Any]


class Pool:
    """The pool gpu in this process. Attributes: runs: parameters of each, with its key; deaths: runs to come that will die."""

    def __init__(self, act: Callable[[Run], None]) -> None:
        self.act = act
        self.runs: list[Run] = []
        self.deaths = 0
        self.online = 1
        self.silent = 0  # questions that the server does not answer
        self._one_by_one = threading.Lock()
        self._known: dict[str, FlowRun] = {}

    def deploy(self, name: str, parameters: Run, idempotency_key: str, **_: Any) -> FlowRun:
        with self._one_by_one:
            if self.silent:
                self.silent -= 1
                raise httpx.ConnectError("away")
            if idempotency_key in self._known:  # as Prefect has it
                return self._known[idempotency_key]
            self.runs.append({"deployment": name, "key": idempotency_key, **parameters})
            state: State[Any] = Completed()
            if self.deaths:
                self.deaths -= 1
                state = Crashed()
            else:
                self.act(parameters)
            self._known[idempotency_key] = FlowRun(flow_id="0" * 32, state=state)
            return self._known[idempotency_key]

    @property
    def handed_out(self) -> list[str]:
        return [name for run in self.runs for name in run["stages"]]


@pytest.fixture
def pool(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Workers of the pipeline's own folder."""

    def act(run: Run) -> None:
        monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
        run_stages.fn(**run)

    made = Pool(act)
    monkeypatch.setattr(fan_out, "run_deployment", made.deploy)
    monkeypatch.setattr(fan_out, "_online", lambda: made.online)
    monkeypatch.setattr(fan_out, "PATIENCE_S", (0, 0))
    return made


def unbuilt(pipeline: FakePipeline) -> None:
    """Take away all that was built."""
    pipeline.layout.lock.unlink()
    for folder in (pipeline.layout.artifacts, pipeline.layout.metrics, pipeline.root / ".dvc" / "cache"):
        shutil.rmtree(folder)


def build_over(pipeline: FakePipeline, where: str = "workers") -> None:
    """As the flow `build` does it."""
    with pipeline.process() as project, workspace(project):
        text = project.layout.params.read_text().replace("fan_out: here", f"fan_out: {where}")
        project.layout.params.write_text(text)
        build.build(project.layout, fan_out.workers_of(Project(project.layout), handout.BUILD))


def come(pipeline: FakePipeline) -> list[Row]:
    """Somebody new comes into the source."""
    rows = [*everybody(), *NEW]
    shutil.rmtree(pipeline.root / "people")
    write_source(pipeline.root / "people", rows)
    return rows


def test_first_build_hands_out_every_part_and_slot_and_nothing_else_with_the_same_bytes(
    pipeline: FakePipeline, pool: Pool
) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    build_over(pipeline)
    params = dvc_of(pipeline.layout).params
    assert sorted(pool.handed_out) == sorted(
        [*(f"embed@{part}" for part in params.parts), *(f"tune@{slot}" for slot in params.slots)]
    )
    assert read_outs(pipeline.layout.lock) == outs
    assert pipeline.status() == {}
    assert {run["deployment"] for run in pool.runs} == {"run-stages/run-stages"}
    assert not pipeline.layout.handed_out.exists()


def test_nothing_is_handed_out_where_params_say_here(pipeline: FakePipeline, pool: Pool) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    build_over(pipeline, "here")
    assert (pool.runs, read_outs(pipeline.layout.lock)) == ([], outs)


def test_command_builds_here_whatever_params_say(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def listed(layout: Layout, *workers: Any, **_: Any) -> None:
        asked.append(workers)
        (layout.metrics / "metrics.json").write_text('{"accuracy": {"served": 1}}')

    monkeypatch.setattr(build, "build", listed)
    pipeline.layout.params.write_text(pipeline.layout.params.read_text().replace("fan_out: here", "fan_out: workers"))
    pipeline.json("build")
    assert asked == [()]


def test_build_after_people_came_hands_out_the_slots_that_they_touched(pipeline: FakePipeline, pool: Pool) -> None:
    rows = come(pipeline)
    build_over(pipeline)
    assert pool.handed_out, "a new person touches a cluster"
    assert {StageName.parse(name).kind for name in pool.handed_out} == {"tune"}, "parts are updated from the state before"
    assert read_outs(pipeline.layout.lock) == read_outs(FakePipeline.build(pipeline.root.parent / "fresh", rows).layout.lock)
    assert not list(pipeline.layout.private_state.glob("build.*"))


def test_build_that_failed_on_workers_leaves_the_locks_of_before_and_a_rerun_finishes(pipeline: FakePipeline, pool: Pool) -> None:
    before = pipeline.layout.lock.read_bytes()
    rows = come(pipeline)
    pool.deaths = 1000
    with pytest.raises(StepFailedError, match=r"^tune@c0\d.* failed on workers in 3 attempts"):
        build_over(pipeline)
    assert pipeline.layout.lock.read_bytes() == before
    assert not pipeline.layout.handed_out.exists()
    pool.deaths = 0
    build_over(pipeline)
    assert read_outs(pipeline.layout.lock) == read_outs(FakePipeline.build(pipeline.root.parent / "fresh", rows).layout.lock)


def test_first_build_that_failed_goes_on_with_what_was_finished(pipeline: FakePipeline, pool: Pool) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    act = pool.act

    def fail(run: Run) -> None:
        act(run)
        pool.deaths = 1000  # whoever comes after the parts

    pool.act = fail
    with pytest.raises(StepFailedError):
        build_over(pipeline)
    assert {"split", "recipe", "embed@p00", "validate"} <= dvc_of(pipeline.layout).recorded().keys()
    pool.deaths, pool.runs, pool.act = 0, [], act
    build_over(pipeline)
    assert {StageName.parse(name).kind for name in pool.handed_out} == {"tune"}
    assert read_outs(pipeline.layout.lock) == outs


def test_rerun_after_embedding_failed_hands_the_parts_out_again(pipeline: FakePipeline, pool: Pool) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    pool.deaths = 1000
    with pytest.raises(StepFailedError, match="embed@p0"):
        build_over(pipeline)
    pool.deaths, pool.runs = 0, []
    build_over(pipeline)
    assert {StageName.parse(name).kind for name in pool.handed_out} == set(HANDED_OUT)
    assert read_outs(pipeline.layout.lock) == outs


def test_share_of_a_worker_that_died_is_tried_again_under_another_key(pipeline: FakePipeline, pool: Pool) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    pool.deaths = 2
    build_over(pipeline)
    keys = [run["key"] for run in pool.runs]
    assert len(keys) == len(set(keys))
    assert len(pool.handed_out) == len(set(pool.handed_out)) + sum(len(run["stages"]) for run in pool.runs[:2])
    assert read_outs(pipeline.layout.lock) == outs


def test_server_that_is_away_for_a_moment_is_asked_for_the_same_run(pipeline: FakePipeline, pool: Pool) -> None:
    unbuilt(pipeline)
    pool.silent = 2
    build_over(pipeline)
    assert len(pool.handed_out) == len(set(pool.handed_out))
    assert pipeline.status() == {}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            ObjectNotFound(Exception("no")),
            r"^the Prefect server has no deployment run-stages/run-stages; run `prefect .*deploy --all`",
        ),
        (httpx.ReadTimeout("late"), r"^the Prefect server gave no answer for a run of run-stages/run-stages \(ReadTimeout\)"),
    ],
)
def test_server_that_cannot_start_runs_is_one_line(
    error: Exception, line: str, pipeline: FakePipeline, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> FlowRun:
        raise error

    monkeypatch.setattr(fan_out, "run_deployment", fail)
    unbuilt(pipeline)
    with pytest.raises(StepFailedError, match=line):
        build_over(pipeline)


def test_erasure_hands_out_its_clusters_alone(pipeline: FakePipeline, pool: Pool) -> None:
    calm = pipeline.copy(pipeline.root.parent.parent / "calm")
    person = f"{CANARY}-2"
    calm.forget(person)
    pipeline.layout.params.write_text(pipeline.layout.params.read_text().replace("fan_out: here", "fan_out: workers"))
    from flows.requests import coordinator, intake
    from flows.service.forget import PrefectRunner

    class Runner(coordinator.Runner):
        workers = PrefectRunner.workers

    request = pipeline.submit(person, solved=False)
    intake.refuse(request)
    with pipeline.process() as project, workspace(project):
        coordinator.run_open(project, Runner())
    assert pipeline.request(request.request_id).state == "certified"
    assert pool.handed_out
    assert {StageName.parse(name).kind for name in pool.handed_out} == {"tune"}
    assert {handout.name_of(run["job_id"]) for run in pool.runs} == {pipeline.request(request.request_id).batch_id}
    assert read_outs(pipeline.layout.lock) == read_outs(calm.layout.lock)


def test_worker_of_another_environment_is_found_when_the_build_ends(
    pipeline: FakePipeline, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    act = pool.act

    def elsewhere(run: Run) -> None:
        act(run)
        if "embed@p00" in run["stages"]:
            path = pipeline.layout.sums("p00")
            save_sums(path, load_sums(path), {"machine": "another"})

    unbuilt(pipeline)
    pipeline.layout.params.write_text(pipeline.layout.params.read_text().replace("fan_out: here", "fan_out: workers"))
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    pool.act = elsewhere
    with pytest.raises(StepFailedError, match="the model is of 2 environments: "):
        maintenance.build.fn()
    pool.act = act
    unbuilt(pipeline)
    maintenance.build.fn()


def test_parameters_of_runs_are_a_job_and_names_of_stages_and_name_nobody(pipeline: FakePipeline, pool: Pool) -> None:
    unbuilt(pipeline)
    build_over(pipeline)
    for run in pool.runs:
        assert run.keys() == {"deployment", "key", "job_id", "stages", "clone"}
        handout.check_job(run["job_id"], run["stages"], dvc_of(pipeline.layout).params)
    assert CANARY not in json.dumps(pool.runs)


@pytest.mark.parametrize(
    ("stages", "workers", "runs"),
    [
        (1, 1, 1),
        (2, 2, 2),
        (3, 1, 1),  # a second run would only import torch again
        (8, 2, 2),
        (3, 100, 3),
        (16, 1, 2),
        (64, 2, 8),
        (1000, 2, 8),
        (100_000, 2, 200),  # Prefect stores the names
    ],
)
def test_every_worker_has_a_run_and_up_to_four_where_there_is_enough_to_do(stages: int, workers: int, runs: int) -> None:
    assert fan_out.runs_for(stages, workers) == runs


def test_parts_and_slots_of_a_small_build_are_a_run_each_for_one_worker(pipeline: FakePipeline, pool: Pool) -> None:
    unbuilt(pipeline)
    build_over(pipeline)
    assert len(pool.runs) == len(HANDED_OUT)
    unbuilt(pipeline)
    pool.runs, pool.online = [], 2
    build_over(pipeline)
    assert len(pool.runs) == 2 * len(HANDED_OUT)


# the worker's side


def stages(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, job_id: str, *names: str) -> None:
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    run_stages.fn(job_id=job_id, stages=list(names))


@pytest.mark.parametrize("name", ["split", "evaluate", "tune@c99", "embed@c00", "tune@p00", "head", "interim_head@x"])
def test_worker_runs_no_other_stage(name: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = handout.new_job(handout.BUILD)
    with handout.open_job(pipeline.layout, job_id), pytest.raises(StepFailedError, match="not `embed` of a part"):
        stages(pipeline, monkeypatch, job_id, "tune@c00", name)


@pytest.mark.parametrize("job_id", ["build", "../x.00000000", "build.xyz", f"{CANARY} Anna.00000000", "build.00000000\n"])
def test_worker_refuses_a_malformed_job_without_saying_it(
    job_id: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StepFailedError, match="job id is not valid") as refusal:
        stages(pipeline, monkeypatch, job_id, "tune@c00")
    assert CANARY not in str(refusal.value)


def test_worker_that_comes_late_runs_nothing(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its coordinator gave up, or was killed and somebody else works on the project now."""
    late = handout.new_job(handout.BUILD)
    tuned = pipeline.layout.tuned("c00")
    tuned.unlink()
    with pytest.raises(StepFailedError, match=r"^the job is over"):
        stages(pipeline, monkeypatch, late, "tune@c00")
    with (
        handout.open_job(pipeline.layout, handout.new_job(handout.BUILD)),
        pytest.raises(StepFailedError, match=r"^the job is over"),
    ):
        stages(pipeline, monkeypatch, late, "tune@c00")
    pipeline.layout.handed_out.write_text(late)  # of a coordinator that was killed
    with pipeline.process() as project, workspace(project), pytest.raises(StepFailedError, match=r"^the job is over"):
        stages(pipeline, monkeypatch, late, "tune@c00")
    assert not tuned.exists()
    with handout.open_job(pipeline.layout, late):
        stages(pipeline, monkeypatch, late, "tune@c00")
    assert tuned.exists()


def test_run_of_the_older_deployment_that_was_scheduled_before_an_update_still_ends(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.layout.tuned("c00").unlink()
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    tune_cluster.fn(batch_id="00000000-0000-4000-8000-000000000001", slot="c00")
    assert pipeline.layout.tuned("c00").exists()
    with pytest.raises(StepFailedError):
        tune_cluster.fn(batch_id="../..", slot="c00")


# waves


def test_wave_goes_out_only_if_it_stands_apart_and_runs_whole() -> None:
    assert Wave(["tune@c00"], apart=True).may_go_out
    assert not Wave(["tune@c00"]).may_go_out
    assert not Wave([], apart=True).may_go_out
    assert not Wave(["embed@p00"], apart=True, before=Path("state")).may_go_out


def test_shares_hold_each_stage_once_and_the_largest_cluster_leads(pipeline: FakePipeline) -> None:
    slots = list(dvc_of(pipeline.layout).params.slots)
    divided = shares([f"tune@{slot}" for slot in slots], pipeline.layout, 2)
    assert sorted(name for share in divided for name in share) == [f"tune@{slot}" for slot in slots]
    records = {f"tune@{size.slot}": size.records for size in load_sizes(pipeline.layout.clusters)}
    assert records[divided[0][0]] == max(records.values()) > records["tune@c00"]
    parts = [f"embed@p{number:02d}" for number in range(5)]
    assert shares(parts, Layout(pipeline.root / "nothing"), 2) == [parts[0::2], parts[1::2]]


# clones


class Remote:
    """Of DVC's commands with a remote: what was asked, and a clone's results by running them here."""

    def __init__(self, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.damaged: Path | None = None
        real = dvc.run

        def run(layout: Layout, command: str, *arguments: str) -> None:
            self.asked.append((command, *arguments))
            if command == "repro" and "--pull" in arguments:
                real(layout, "repro", *(argument for argument in arguments if argument != "--pull"))
                if self.damaged:
                    self.damaged.write_bytes(b"rotten")
            elif command not in ("push", "pull"):
                real(layout, command, *arguments)

        monkeypatch.setattr(dvc, "run", run)
        monkeypatch.setattr(dvc, "targets", lambda _, names: list(names))


@pytest.fixture
def remote(pipeline: FakePipeline, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Remote:
    config = pipeline.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("[core]\n", "[core]\n    remote = disk\n"))
    pool.act = lambda _: None  # a clone works elsewhere
    return Remote(pipeline.layout, monkeypatch)


def test_clones_are_given_what_each_wave_reads_and_the_job_is_withdrawn(
    pipeline: FakePipeline, pool: Pool, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    outs = read_outs(pipeline.layout.lock)
    unbuilt(pipeline)
    jobs: list[dict[str, Any]] = []

    def look(run: Run) -> None:
        [job] = (pipeline.remote / "lmeraser-jobs").glob("*.json")
        jobs.append(json.loads(job.read_bytes()) | {"name": job.name})

    pool.act = look
    build_over(pipeline, "clones")
    assert read_outs(pipeline.layout.lock) == outs
    pushed = [asked[2:] for asked in remote.asked if asked[0] == "push"]
    assert pushed == [("split", "pretrain", "skeleton"), ("split", "pretrain", "skeleton", "recipe", "cluster", "validate")]
    assert {job["name"] for job in jobs} == {"build.json"}
    assert {job["id"] for job in jobs} == {run["job_id"] for run in pool.runs}
    assert all(run["clone"] for run in pool.runs)
    assert not list((pipeline.remote / "lmeraser-jobs").glob("*"))
    assert CANARY not in json.dumps(pool.runs)


def test_result_that_is_not_what_its_worker_recorded_is_refused(pipeline: FakePipeline, remote: Remote) -> None:
    unbuilt(pipeline)
    remote.damaged = pipeline.layout.leaves("p00")
    with pytest.raises(StepFailedError, match=r"^artifacts/embed/p00 is not what its worker recorded \(1 such artifacts\)"):
        build_over(pipeline, "clones")
    assert not list((pipeline.remote / "lmeraser-jobs").glob("*")), "the job is withdrawn where the build fails, too"


def test_clones_need_a_default_remote(pipeline: FakePipeline, pool: Pool, remote: Remote) -> None:
    config = pipeline.root / ".dvc" / "config"
    config.write_text(config.read_text().replace("    remote = disk\n", ""))
    unbuilt(pipeline)
    with pytest.raises(ProjectError, match="DVC has no default remote"):
        build_over(pipeline, "clones")
    assert pool.runs == []


@pytest.mark.parametrize("names", [["embed@p00"], ["tune@c00", "tune@c01"], ["embed@p01", "tune@c00"]])
def test_clone_pulls_what_its_stages_read_and_no_other_part(names: Sequence[str], pipeline: FakePipeline, remote: Remote) -> None:
    clones._pull(pipeline.layout, names)
    pulled = {path for asked in remote.asked if asked[0] == "pull" for path in asked[2:]}
    layout = pipeline.layout
    items = [StageName.parse(name) for name in names]
    held = {member.part for stage in items if stage.kind == "tune" for member in load_members(layout.members(stage.item))}
    parts = {stage.item for stage in items if stage.kind == "embed"} | held
    expected = {layout.backbone, layout.skeleton, *map(layout.part, parts)}
    expected |= {layout.members(stage.item) for stage in items if stage.kind == "tune"}
    expected |= {layout.recipe, layout.validation / "passed.json"} if held else set()
    assert pulled == {path.relative_to(layout.root).as_posix() for path in expected}


def test_clone_refuses_a_job_of_an_earlier_try(pipeline: FakePipeline, remote: Remote) -> None:
    with pipeline.process() as project:
        first, second = handout.new_job(handout.BUILD), handout.new_job(handout.BUILD)
        clones.publish(project, first, ["embed@p00"])
        clones.publish(project, second, ["embed@p00"])
        with pytest.raises(StepFailedError, match="coordinator gave up"):
            clones._read_job(project, first)
        assert clones._read_job(project, second)["id"] == second
        clones.withdraw(project, second)
        with pytest.raises(StepFailedError, match="coordinator gave up"):
            clones._read_job(project, second)
