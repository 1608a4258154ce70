"""Rebuilds that the audit key chose, by the commands: told when due, noted when done, and never in the way of a request."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import yaml
from builders import Row, write_source
from clocks import Clock
from fake_pipeline import CANARY, FakePipeline, everybody
from prefect.exceptions import ObjectNotFound

from flows import processes
from flows.audit import giving_way
from flows.audit.due import due
from flows.audit.giving_way import somebody_waits
from flows.cli import audit
from flows.requests.certify import erasure_of
from flows.service import maintenance, sweep
from lmeraser.erase.retained import retained_pseudonyms
from lmeraser.pipeline.locks import Comparison
from lmeraser.prove.absence import Tree, check_absence
from lmeraser.prove.selection import REBUILT

PERSON, OTHER = f"{CANARY}-2", f"{CANARY}-3"
EQUAL, UNEQUAL = Comparison(32, []), Comparison(32, ["artifacts/head"])


def set_service(pipeline: FakePipeline, **values: object) -> None:
    raw = yaml.safe_load(pipeline.layout.params.read_text())
    raw["service"] |= values
    pipeline.layout.params.write_text(yaml.safe_dump(raw))


def rebuilds_give(monkeypatch: pytest.MonkeyPatch, comparison: Comparison) -> list[None]:
    """Let a rebuild give this; returns a list that grows with each."""
    done: list[None] = []

    def rebuild(_: object) -> Comparison:
        done.append(None)
        return comparison

    monkeypatch.setattr("flows.audit.rebuild.rebuild", rebuild)
    return done


def selection(pipeline: FakePipeline, status: int, *more: str) -> dict[str, Any]:
    exit_status, output, complaint = pipeline.command("audit", "--selection", "--json", *more)
    assert (exit_status, CANARY in output + complaint) == (status, False)
    answer: dict[str, Any] = json.loads(output)["selection"]
    return answer


@pytest.fixture
def chosen(pipeline: FakePipeline) -> tuple[FakePipeline, str]:
    """A project in which every erasure is chosen, after one of them, and its request's id."""
    set_service(pipeline, rebuild_share=1)
    answer = pipeline.json("forget", "--subject", PERSON)
    assert answer["rebuild_due"] is True
    return pipeline, answer["request_id"]


def test_a_chosen_erasure_is_due_until_a_rebuild_is_noted(
    chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, request_id = chosen
    told = selection(pipeline, 1)
    assert (told["chosen"], told["missing"], told["complete"]) == ([request_id], [request_id], False)
    certificate = pipeline.json("verify", *map(str, pipeline.layout.certificates.glob("*.json")))["certificates"][0]
    assert certificate["audit_key_id"] == sha256(pipeline.layout.audit_key.read_bytes()).hexdigest() == told["keys"][0]
    assert pipeline.json("status")["rebuilds_due"] == 1
    done = rebuilds_give(monkeypatch, EQUAL)
    assert pipeline.json("audit", "--due")["rebuilt"] == [request_id]
    assert "rebuilds_due" not in pipeline.json("status")
    assert selection(pipeline, 0)["complete"]
    assert pipeline.json("audit", "--due")["rebuilt"] == []
    assert len(done) == 1, "nothing was due any more"
    with pipeline.process() as project:
        last = project.ledger.last_event(REBUILT)
        assert last is not None
        assert (last.request_id, last.data) == (request_id, {"equal": True, "artifacts": 32})
        assert project.ledger.verify_chain() > 0


def test_a_rebuild_that_differs_stays_due_for_people_and_is_not_begun_again_by_the_server(
    chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, request_id = chosen
    rebuilds_give(monkeypatch, UNEQUAL)
    assert pipeline.command("audit", "--due")[0] == 1
    assert selection(pipeline, 1)["unequal"] == [request_id]
    with pipeline.process() as project:
        assert due(project) == (request_id,)
        assert not sweep.start_due(project)
    rebuilds_give(monkeypatch, EQUAL)
    assert pipeline.json("audit", "--rebuild")["rebuilt"] == [request_id], "any rebuild settles what is due"
    assert selection(pipeline, 0)["complete"]


def test_a_replaced_key_is_told_and_judged_with_both_keys_alone(
    chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, first = chosen
    rebuilds_give(monkeypatch, EQUAL)
    pipeline.json("audit", "--due")
    old = pipeline.root.parent / f"{CANARY}.key"
    old.write_bytes(pipeline.layout.audit_key.read_bytes())
    pipeline.layout.audit_key.unlink()
    second = pipeline.json("forget", "--subject", OTHER)["request_id"]
    told = selection(pipeline, 1)
    old_id, new_id = told["keys"]
    assert (told["unjudged"], told["chosen"], told["missing"]) == ({old_id: 1}, [second], [second])
    pipeline.json("audit", "--due")
    assert not selection(pipeline, 1)["complete"], "the first request was not judged"
    keys = ("--key", str(old), "--key", str(pipeline.layout.audit_key))
    assert selection(pipeline, 0, *keys)["chosen"] == [first, second]
    status, lines, _ = pipeline.command("audit", "--selection", *keys)
    assert status == 0
    assert f"the audit key was replaced: {old_id[:16]}, then {new_id[:16]}" in lines


def test_where_nothing_is_chosen_nothing_is_due_and_the_selection_says_so(pipeline: FakePipeline) -> None:
    assert "rebuild_due" not in pipeline.json("forget", "--subject", PERSON)
    told = selection(pipeline, 0)
    assert (told["chosen"], told["shares"]) == ([], {"0": 1})


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["audit", "--selection", "--key", f"/{CANARY}"], "cannot be read"),
        (["audit", "--rebuild", "--key", "x"], "--key is a part of --selection"),
        (["audit", "--rebuild", "--give-way"], "--give-way is a part of --due"),
        (["audit"], "at least one of"),
    ],
)
def test_bad_input_is_refused_with_one_line(pipeline: FakePipeline, words: Sequence[str], part: str) -> None:
    assert part in pipeline.refused(2, *words)


def test_a_selection_without_any_key_is_refused(pipeline: FakePipeline) -> None:
    assert "audit key .lmeraser/audit.key is missing" in pipeline.refused(2, "audit", "--selection")


# giving way


def test_a_rebuild_ends_as_soon_as_a_request_is_open(chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, _ = chosen
    monkeypatch.setattr(giving_way, "LOOKS_EVERY_S", 0.01)

    def rebuild(_: object) -> Comparison:
        pipeline.submit(OTHER)
        time.sleep(20)
        return EQUAL

    monkeypatch.setattr("flows.audit.rebuild.rebuild", rebuild)
    started = time.monotonic()
    status, _, complaint = pipeline.command("audit", "--due", "--give-way")
    assert (status, time.monotonic() - started < 15) == (130, True), complaint
    with pipeline.process() as project:
        assert project.ledger.last_event(REBUILT) is None
        assert len(due(project)) == 1, "another time"


def test_nobody_is_waited_for_who_waits_for_a_person(pipeline: FakePipeline) -> None:
    set_service(pipeline, approval=True)
    request = pipeline.submit(PERSON)
    with pipeline.process() as project:
        assert request.state == "validated"
        assert not somebody_waits(project)
        project.ledger.approve(request.request_id, "somebody")
        assert somebody_waits(project)


def test_nobody_is_waited_for_who_is_on_hold(pipeline: FakePipeline, clock: Clock) -> None:
    """A hold may last for months, and rebuilds that are due do not wait for it."""
    identity = pipeline.submit(PERSON).request_id
    with pipeline.process() as project:
        assert somebody_waits(project)
    pipeline.json("hold", identity, "--until", clock.day(30), "--reason", "file 42")
    with pipeline.process() as project:
        assert not somebody_waits(project)


class Ended:
    """A process that has ended. Attributes: status: as it did."""

    def __init__(self, status: int) -> None:
        self.pid, self.status = 0, status

    def wait(self, _: float | None = None) -> int:
        return self.status


def test_the_deployment_says_what_came_of_it_and_lets_requests_go_first(
    chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, _ = chosen
    monkeypatch.setenv("LMERASER_PROJECT", str(pipeline.root))
    run, status = maintenance.audit_due.fn, 130
    monkeypatch.setattr(processes, "start", lambda *_, **__: Ended(status))
    assert "a request came" in run()
    status = 1
    with pytest.raises(Exception, match="could not be done"):
        run()
    rebuilds_give(monkeypatch, UNEQUAL)
    pipeline.command("audit", "--due")
    with pytest.raises(Exception, match="artifacts differ"):
        run()
    pipeline.submit(OTHER)
    assert "go first" in run()
    pipeline.sweep()
    rebuilds_give(monkeypatch, EQUAL)
    pipeline.command("audit", "--due")
    assert "no rebuild is due" in run()


class Server:
    """A Prefect server's answers. Attributes: runs: how many runs it tells for each question, in turn."""

    def __init__(self, *runs: int) -> None:
        self.runs = list(runs)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_runs(self, **_: object) -> list[None]:
        return [None] * self.runs.pop(0)


def test_the_sweep_starts_a_rebuild_that_is_due_once_and_not_again_soon_after_a_failure(
    chosen: tuple[FakePipeline, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, _ = chosen
    started: list[str] = []
    monkeypatch.setattr(sweep, "run_deployment", lambda name, **_: started.append(name))
    with pipeline.process() as project:
        for runs, expected in (((1,), False), ((0, 1), False), ((0, 0), True)):
            monkeypatch.setattr(sweep, "get_client", lambda runs=runs, **_: Server(*runs))
            assert sweep.start_due(project) == expected
        assert started == ["audit-due/audit-due"]

        def missing(*_: object, **__: object) -> None:
            raise ObjectNotFound(LookupError())

        monkeypatch.setattr(sweep, "get_client", lambda **_: Server(0, 0))
        monkeypatch.setattr(sweep, "run_deployment", missing)
        assert not sweep.start_due(project), "a server of before the update keeps nobody's erasure"
    pipeline.submit(OTHER)
    with pipeline.process() as project:
        assert not sweep.start_due(project), "requests go first"


# the people of a certificate


def people(pipeline: FakePipeline) -> object:
    with pipeline.process() as project:
        return audit._people(project, None)[0]  # type: ignore[arg-type]


def test_each_certificate_of_a_batch_proves_its_own_people_absent_also_where_an_older_version_checked(
    pipeline: FakePipeline,
) -> None:
    requests = [pipeline.submit(PERSON), pipeline.submit(OTHER)]
    pipeline.sweep()
    with pipeline.process() as project:
        retained = retained_pseudonyms(project.layout, project.params, project.subject_key())
        for request in map(project.ledger.get, [request.request_id for request in requests]):
            batch = project.ledger.get_batch(request.batch_id or "")
            absence = erasure_of(project, batch, request).absence
            check_absence(absence, request.pseudonyms)
            assert absence.root == Tree(retained).root()
            assert erasure_of(project, replace(batch, absence={}), request).absence == absence


def test_an_audit_computes_the_root_of_the_last_certificate_again(pipeline: FakePipeline) -> None:
    assert people(pipeline) == {}, "before the first certificate there is none"
    pipeline.forget(PERSON)
    assert people(pipeline) == {"people": {"certificate": 1, "same": True}}
    rows = [row.named(index) for index, row in enumerate(everybody())]
    write_source(pipeline.root / "people", [*rows, Row(f"{CANARY}-new", "one", seed=99)])
    pipeline.repro()
    assert people(pipeline) == {"people": {"certificate": 1, "same": False}}
    next(pipeline.layout.certificates.glob("00001-*")).unlink()
    told = people(pipeline)
    assert "missing" in str(told)
    assert CANARY not in str(told)
