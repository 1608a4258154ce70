"""One sweep at a time, whatever became of the one before, and those that waited for a worker need not run."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from fake_pipeline import FakePipeline
from prefect.client.schemas.objects import StateType

from flows.project import Project, locked_if_free
from flows.service import sweep


class Server:
    """What a sweep asks of Prefect's server: which runs there are, and to cancel them."""

    def __init__(self) -> None:
        self.late = [uuid4(), uuid4()]
        self.cancelled: list[UUID] = []

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_runs(self, flow_run_filter: Any, flow_filter: Any, **_: object) -> list[Any]:
        assert flow_filter.name.any_ == ["sweep"]
        assert flow_run_filter.state.type.any_ == [StateType.SCHEDULED], "none that works or is over"
        assert flow_run_filter.expected_start_time.before_ is not None, "none of the minutes to come"
        return [type("Run", (), {"id": run}) for run in self.late]

    def set_flow_run_state(self, run: UUID, state: Any) -> None:
        assert state.type == StateType.CANCELLED
        self.cancelled.append(run)


def test_a_sweep_works_alone_and_the_next_one_does_what_waited(
    pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, swept = Server(), list[Project]()

    def swept_once(project: Project) -> int:
        swept.append(project)
        return 1

    monkeypatch.setattr(sweep, "get_client", lambda **_: server)
    monkeypatch.setattr(sweep, "_swept", swept_once)
    with pipeline.process() as project:
        monkeypatch.setattr(Project, "find", lambda: project)
        with locked_if_free(project.layout.private_state / "sweep.lock") as alone:
            assert alone
            assert sweep.sweep.fn() == 0
        assert (swept, server.cancelled) == ([], [])
        assert "another one is under way" in capsys.readouterr().err
        assert sweep.sweep.fn() == 1
        assert (len(swept), server.cancelled) == (1, server.late)
