"""Proposals: nobody is left out for one until it is accepted, one cause proposes once, what is accepted goes the usual way."""

import base64
import csv
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import Row, contents, write_source
from clocks import DAY, Clock
from fake_pipeline import CANARY, FakePipeline, everybody
from histories import is_served, state_of
from hypothesis import given
from hypothesis import strategies as st
from kills import killing

from flows.requests.proposals import before_build, propose
from lmeraser.core.digest import sha256
from lmeraser.erase.ledger import Ledger, sqlite_url
from lmeraser.erase.ledger_proposals import EXPIRED, RETURNED, VANISHED, WITHDRAWN, Proposal
from lmeraser.erase.states import BLOCKED, CERTIFIED, PROPOSED, REJECTED, may_follow, status

PERSON, OTHER, NOBODY = f"{CANARY}-2", f"{CANARY}-3", f"{CANARY}-nobody"


def feed(folder: Path, *lines: str) -> str:
    (folder / "feed.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "feed.csv")


def change(pipeline: FakePipeline, section: str, **values: Any) -> None:
    path = pipeline.root / "params.yaml"
    raw = yaml.safe_load(path.read_text())
    raw[section] |= values
    path.write_text(yaml.safe_dump(raw))


def add_column(pipeline: FakePipeline, name: str, value_of: dict[str, str], by: str = "subject") -> None:
    """Give the manifest a further column: by a row's subject, or by its path."""
    path = pipeline.root / "people" / "manifest.csv"
    rows = list(csv.DictReader(path.read_text().splitlines()))
    lines = [",".join([*rows[0], name]), *(",".join([*row.values(), value_of.get(row[by], "")]) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def proposed(pipeline: FakePipeline, *arguments: str) -> dict[str, Any]:
    return pipeline.json("propose", *arguments)


def without(pipeline: FakePipeline, *people: str) -> None:
    """The source has these people no more."""
    path = pipeline.root / "people" / "manifest.csv"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not any(f",{who}," in line for who in people)))


def test_proposed_is_in_effect_for_nobody_and_accepted_goes_the_whole_way(
    pipeline: FakePipeline, clock: Clock, tmp_path: Path
) -> None:
    before = contents(pipeline.layout.artifacts)
    file = feed(tmp_path, "subject,date", f"{PERSON},{clock.day(-3)}", f"{NOBODY},", f"{OTHER},{clock.day(1)}")
    answer = proposed(pipeline, "--feed", file)
    assert (answer["by_cause"], answer["unknown"], answer["later"]) == ({WITHDRAWN: 1}, 1, 1)
    [identity] = answer["proposed"]
    request = pipeline.request(identity)
    assert (request.state, request.is_open, request.ready_at, request.due_at[:10]) == (PROPOSED, False, None, clock.day(27))
    assert pipeline.sweep() == pipeline.resume() == []
    assert contents(pipeline.layout.artifacts) == before
    assert is_served(pipeline, PERSON)
    assert not pipeline.layout.quarantine.exists()
    told = pipeline.json("status")
    assert (told["proposed"], told["requests"][0]["proposed_for"], told["requests"][0]["request_status"]) == (
        1,
        WITHDRAWN,
        "pending",
    )
    answer = pipeline.json("approve", identity, "--by", "A. Officer")
    assert (answer["state"], answer["approved_by"], is_served(pipeline, PERSON)) == ("quarantined", "A. Officer", False)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]
    assert is_served(pipeline, OTHER)


def test_same_feed_twice_proposes_nothing_new_whatever_became_of_it(pipeline: FakePipeline, clock: Clock, tmp_path: Path) -> None:
    file = feed(tmp_path, "subject,date", f"{PERSON},{clock.day(-3)}", f"{OTHER},", f"{PERSON},")
    first = proposed(pipeline, "--feed", file)
    assert (len(first["proposed"]), first["waiting"]) == (2, 1)
    assert proposed(pipeline, "--feed", file)["waiting"] == 3
    by_person = {pipeline.request(identity).pseudonyms[0]: identity for identity in first["proposed"]}
    with pipeline.process() as project:
        mine, theirs = (by_person[project.subject_key().pseudonym(who)] for who in (PERSON, OTHER))
    pipeline.json("cancel", theirs)
    pipeline.json("approve", mine, "--by", "A")
    pipeline.sweep()
    assert (state_of(pipeline, mine), state_of(pipeline, theirs)) == (CERTIFIED, REJECTED)
    again = proposed(pipeline, "--feed", file)
    assert (again["proposed"], again["erased"], again["ended"]) == ([], 2, 1)
    later = proposed(pipeline, "--feed", feed(tmp_path, "subject,date", f"{OTHER},{clock.day(0)}"))
    assert len(later["proposed"]) == 1, "a withdrawal of another day is another cause"
    assert len(pipeline.requests()) == 3


def test_rule_accepts_once_the_days_are_over_and_not_before(pipeline: FakePipeline, clock: Clock, tmp_path: Path) -> None:
    change(pipeline, "consent", accept="after-grace", grace_days=2, most_share=0.5)
    [identity] = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))["proposed"]
    change(pipeline, "consent", grace_days=0)
    clock.now += 2 * DAY - 1
    assert pipeline.sweep() == []
    assert is_served(pipeline, PERSON)
    clock.now += 1
    assert [request.request_id for request in pipeline.sweep()] == [identity]
    assert state_of(pipeline, identity) == CERTIFIED
    assert "is certified; only one that nothing was done for" in pipeline.refused(2, "cancel", identity)


def test_where_a_person_accepts_no_day_does(pipeline: FakePipeline, clock: Clock, tmp_path: Path) -> None:
    [identity] = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))["proposed"]
    clock.now += 400 * DAY
    assert pipeline.sweep() == []
    assert state_of(pipeline, identity) == PROPOSED
    with pipeline.process() as project:
        assert project.ledger.get(identity).late(datetime.fromtimestamp(clock.now, UTC)), "it is told as late"


def test_broken_feed_that_names_nearly_everybody_is_left_to_a_person(
    pipeline: FakePipeline, clock: Clock, tmp_path: Path
) -> None:
    change(pipeline, "consent", accept="after-grace", grace_days=1, most_share=0.1)
    first = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))
    assert not first["left_to_person"]
    answer = proposed(pipeline, "--feed", feed(tmp_path, "subject", *(f"{CANARY}-{number}" for number in range(6))))
    assert (len(answer["proposed"]), answer["left_to_person"]) == (5, True)
    clock.now += 30 * DAY
    assert pipeline.sweep() == []
    assert {request.state for request in pipeline.requests()} == {PROPOSED}, "the one of before waits too"


def test_all_that_is_proposed_is_accepted_at_once_or_none(pipeline: FakePipeline, tmp_path: Path) -> None:
    ids = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON, OTHER))["proposed"]
    sent = pipeline.submit(f"{CANARY}-4").request_id
    assert "only a validated" in pipeline.refused(2, "approve", sent, "--by", "A")
    assert "--by holds no name" in pipeline.refused(2, "approve", *ids, "--by", " ")
    assert {state_of(pipeline, identity) for identity in ids} == {PROPOSED}
    answer = pipeline.json("approve", "--proposed", "--by", "A")
    assert [request["state"] for request in answer["requests"]] == ["quarantined"] * 2
    assert "no UUID was given" in pipeline.refused(2, "approve", "--proposed", "--by", "A")
    assert "no UUID was given" in pipeline.refused(2, "approve", "--by", "A")
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED] * 3


def test_accepting_is_the_approval_where_requests_need_one(pipeline: FakePipeline, tmp_path: Path) -> None:
    change(pipeline, "service", approval=True)
    [identity] = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))["proposed"]
    assert pipeline.json("approve", identity, "--by", "A")["state"] == "quarantined"
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_proposal_about_public_records_is_blocked_when_accepted_and_one_that_was_held_waits(
    pipeline: FakePipeline, clock: Clock, tmp_path: Path
) -> None:
    pipeline.json("hold", "--subject", PERSON, "--until", clock.day(9), "--reason", "file 42")
    public, mine = proposed(pipeline, "--feed", feed(tmp_path, "subject", "stock-0", PERSON))["proposed"]
    answer = pipeline.json("approve", public, mine, "--by", "A")
    assert [request["state"] for request in answer["requests"]] == [BLOCKED, BLOCKED]
    assert "public" in answer["requests"][0]["reason"]
    assert pipeline.sweep() == []
    pipeline.json("release", "--subject", PERSON)
    assert [request.request_id for request in pipeline.sweep()] == [mine]


def test_withdrawn_and_cancelled_proposals_end_and_erase_nobody(pipeline: FakePipeline, tmp_path: Path) -> None:
    ids = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON, OTHER))["proposed"]
    pipeline.json("withdraw", ids[0])
    pipeline.json("cancel", ids[1])
    assert {state_of(pipeline, identity) for identity in ids} == {REJECTED}
    assert "only a validated" in pipeline.refused(2, "approve", ids[0], "--by", "A")
    assert pipeline.sweep() == []


def test_who_sent_a_request_or_is_erased_is_proposed_no_more(pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.forget(PERSON)
    pipeline.submit(OTHER)
    answer = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON, OTHER))
    assert (answer["proposed"], answer["erased"], answer["waiting"]) == ([], 1, 1)


def test_person_erased_by_another_request_meanwhile_is_not_erased_twice(pipeline: FakePipeline, tmp_path: Path) -> None:
    [identity] = proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))["proposed"]
    assert pipeline.forget(PERSON).state == CERTIFIED
    answer = pipeline.json("approve", identity, "--by", "A")
    assert (answer["state"], "already erased" in answer["reason"]) == (REJECTED, True)


# Columns


def test_column_of_the_manifest_says_who_withdrew_and_nothing_says_nothing(pipeline: FakePipeline) -> None:
    add_column(pipeline, "consent", {PERSON: "Withdrawn", OTHER: "yes", f"{CANARY}-4": " no "})
    change(pipeline, "consent", column="consent")
    answer = proposed(pipeline)
    assert (answer["by_cause"], answer["unknown"]) == ({WITHDRAWN: 2}, 0)
    assert proposed(pipeline)["waiting"] == 2


@pytest.mark.parametrize(
    ("section", "values", "cell", "line"),
    [
        ("consent", {"column": "consent"}, "perhaps", "column consent: 2 of 18 rows say neither (first at line"),
        ("consent", {"column": "constent"}, "yes", "has column constent 0 times"),
        ("retention", {"column": "consent"}, "24.12.2026", "2 of 18 rows hold no date (first at line"),
        ("retention", {"column": "consent"}, "2026-02-30", "2 of 18 rows hold no date"),
    ],
)
def test_column_that_is_missing_or_says_something_else_is_refused_and_nothing_is_proposed(
    pipeline: FakePipeline, section: str, values: dict[str, Any], cell: str, line: str
) -> None:
    add_column(pipeline, "consent", {PERSON: cell, OTHER: ""})
    change(pipeline, section, **values)
    assert line in pipeline.refused(2, "propose")
    assert pipeline.requests() == []


def test_source_without_columns_of_its_own_says_so(pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    change(pipeline, "consent", column="consent")
    change(pipeline, "source", kind="digits", path="people/manifest.csv")
    assert "set them to null" in pipeline.refused(2, "propose")


def test_negative_days_and_a_share_above_one_are_refused(pipeline: FakePipeline) -> None:
    for section, values in (("consent", {"grace_days": -1}), ("retention", {"days": -1}), ("consent", {"most_share": 1.5})):
        change(pipeline, section, **values)
        assert f"{section}.{next(iter(values))}" in pipeline.refused(2, "propose")
        change(pipeline, section, **dict.fromkeys(values, 1))


# Retention


def test_person_whose_records_are_all_expired_goes_whole_and_of_others_the_images_that_are(
    pipeline: FakePipeline, clock: Clock
) -> None:
    old, young = clock.day(-8), clock.day(-7)
    rows = list(csv.DictReader((pipeline.root / "people" / "manifest.csv").read_text().splitlines()))
    mine = [row["path"] for row in rows if row["subject"] == PERSON]
    theirs = [row["path"] for row in rows if row["subject"] == OTHER]
    add_column(pipeline, "taken", {**dict.fromkeys(mine, old), theirs[0]: old, theirs[1]: young}, by="path")
    change(pipeline, "retention", column="taken", days=7)
    pipeline.repro()
    answer = proposed(pipeline)
    assert answer["by_cause"] == {EXPIRED: 2}
    with pipeline.process() as project:
        key = project.subject_key()
        named = {name for request in project.ledger.all() for name in request.pseudonyms}
        image = key.image_pseudonym(sha256((pipeline.root / "people" / theirs[0]).read_bytes()))
    assert named == {key.pseudonym(PERSON), image}
    assert proposed(pipeline)["waiting"] == 2
    pipeline.json("approve", "--proposed", "--by", "A")
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED] * 2
    assert not is_served(pipeline, PERSON)
    assert is_served(pipeline, OTHER)
    assert proposed(pipeline)["by_cause"] == {}
    clock.now += DAY
    assert proposed(pipeline)["by_cause"] == {EXPIRED: 1}, "the other image has its day now"


def test_expired_image_that_somebody_else_still_has_stays_and_is_counted(
    tmp_path: Path, pipeline: FakePipeline, clock: Clock
) -> None:
    rows = [*everybody(), Row(OTHER, "one", seed=20)]  # the bytes of PERSON's first image
    write_source(pipeline.root / "people", rows)
    pipeline.repro()
    path = next(f"image-{index}.png" for index, row in enumerate(rows) if (row.subject, row.seed) == (PERSON, 20))
    add_column(pipeline, "taken", {path: clock.day(-1)}, by="path")
    change(pipeline, "retention", column="taken")
    answer = proposed(pipeline)
    assert (answer["proposed"], answer["shared"]) == ([], 1)


def test_expired_image_that_the_person_has_in_a_record_that_is_not_stays_too(pipeline: FakePipeline, clock: Clock) -> None:
    rows = [*everybody(), Row(PERSON, "two", split="test", seed=20)]  # the bytes of PERSON's first image, and another record
    write_source(pipeline.root / "people", rows)
    pipeline.repro()
    index = next(index for index, row in enumerate(rows) if (row.subject, row.seed) == (PERSON, 20))
    add_column(pipeline, "taken", {f"image-{index}.png": clock.day(-1)}, by="path")
    change(pipeline, "retention", column="taken")
    answer = proposed(pipeline)
    assert (answer["proposed"], answer["shared"]) == ([], 1)
    add_column(pipeline, "till", {f"image-{index}.png": clock.day(-1), f"image-{len(rows) - 1}.png": clock.day(-1)}, by="path")
    change(pipeline, "retention", column="till")
    answer = proposed(pipeline)
    assert (answer["by_cause"], answer["shared"]) == ({EXPIRED: 1}, 0), "both of them are past their time"


def test_certificate_says_why_it_was_proposed(pipeline: FakePipeline, tmp_path: Path) -> None:
    proposed(pipeline, "--feed", feed(tmp_path, "subject", PERSON))
    pipeline.json("approve", "--proposed", "--by", "A")
    [request] = pipeline.sweep()
    certificate = pipeline.root / str(request.certificate)
    statement = json.loads(base64.b64decode(json.loads(certificate.read_bytes())["payload"]))
    assert WITHDRAWN in json.dumps(statement)
    assert pipeline.json("verify", str(certificate))["valid"]


@pytest.mark.parametrize("at", [1, 2, 3, 5, 8, 13, 21, 34, 55])
def test_killed_anywhere_from_proposing_to_the_certificate_the_same_acts_again_finish_it(
    pipeline: FakePipeline, tmp_path: Path, at: int
) -> None:
    file = feed(tmp_path, "subject", PERSON, OTHER)
    with killing(pipeline.root.parent, at):
        pipeline.command("propose", "--feed", file)
        pipeline.command("approve", "--proposed", "--by", "A")
        pipeline.sweep()
    pipeline.command("propose", "--feed", file)
    pipeline.command("approve", "--proposed", "--by", "A")
    pipeline.resume()
    assert [request.state for request in pipeline.requests()] == [CERTIFIED] * 2
    assert all(PERSON.encode() not in content for content in contents(pipeline.layout.artifacts).values())


# Gone from the source, and back in it


def test_who_is_gone_from_the_source_is_proposed_before_a_build_and_leaves_the_stores_after_it(pipeline: FakePipeline) -> None:
    without(pipeline, PERSON)
    with pipeline.process() as project:
        outcome = before_build(project)
        assert outcome is not None
        assert outcome.by_cause == {VANISHED: 1}
        again = before_build(project)
        assert again is not None
        assert (again.proposed, again.waiting) == ([], 1)
    pipeline.repro()
    assert not is_served(pipeline, PERSON), "the build left them out"
    stored = contents(pipeline.remote)
    pipeline.json("approve", "--proposed", "--by", "A")
    [request] = pipeline.sweep()
    assert request.state == CERTIFIED
    assert all(PERSON.encode() not in content for content in contents(pipeline.root.parent).values())
    assert contents(pipeline.remote) != stored
    with pipeline.process() as project:
        again = before_build(project)
        assert again is not None
        assert again.proposed == []


def test_who_is_gone_from_the_source_may_be_accepted_before_the_build_too(pipeline: FakePipeline) -> None:
    without(pipeline, PERSON)
    [identity] = proposed(pipeline)["proposed"]
    assert pipeline.json("approve", identity, "--by", "A")["state"] == "quarantined"
    assert not is_served(pipeline, PERSON)
    pipeline.repro()
    assert [request.state for request in pipeline.resume()] == [CERTIFIED]
    assert all(PERSON.encode() not in content for content in contents(pipeline.root.parent).values())


def test_build_proposes_nobody_where_params_say_so(pipeline: FakePipeline) -> None:
    without(pipeline, PERSON)
    change(pipeline, "consent", vanished=False)
    with pipeline.process() as project:
        assert before_build(project) is None
        assert propose(project, None).proposed == []


def test_erased_person_who_is_imported_again_is_proposed_each_time_and_cleared(tmp_path: Path, pipeline: FakePipeline) -> None:
    change(pipeline, "source", erase=True)
    pipeline.repro()
    assert pipeline.forget(PERSON).state == CERTIFIED
    assert proposed(pipeline)["proposed"] == []
    for _ in range(2):
        write_source(pipeline.root / "people", everybody())
        pipeline.repro()
        assert not is_served(pipeline, PERSON)
        answer = proposed(pipeline)
        assert answer["by_cause"] == {RETURNED: 1}
        assert proposed(pipeline)["waiting"] == 1
        pipeline.json("approve", "--proposed", "--by", "A")
        assert [request.state for request in pipeline.sweep()] == [CERTIFIED]
        assert PERSON not in (pipeline.root / "people" / "manifest.csv").read_text()
    assert proposed(pipeline)["proposed"] == []


# The ledger


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Ledger:
    return Ledger.open(sqlite_url(tmp_path / "ledger.db"))


def proposals(count: int, ready_at: float | None = None) -> list[Proposal]:
    at = date(2027, 1, 1).isoformat() + "T00:00:00+00:00"
    return [
        Proposal(f"00000000-0000-4000-8000-{number:012}", (f"{number:064x}",), WITHDRAWN, at, ready_at) for number in range(count)
    ]


def test_proposals_are_stored_once_each_in_transactions_that_let_others_write(ledger: Ledger) -> None:
    many = proposals(1_200)
    assert len(ledger.propose(many[:700])) == 700
    assert len(ledger.propose(many)) == 500, "a crash left the rest"
    assert ledger.propose(many) == []
    assert ledger.verify_chain() == 1_200
    assert ledger.all(open_only=True) == []


def test_accepting_one_that_is_no_proposal_accepts_none(ledger: Ledger) -> None:
    ids = ledger.propose(proposals(2))
    ledger.accept_proposals(ids[:1], "A")
    with pytest.raises(Exception, match="only a proposed one"):
        ledger.accept_proposals([ids[1], ids[0]], "A")
    assert [request.state for request in ledger.all()] == ["received", PROPOSED]
    assert ledger.words(ids[0]) == [("approved by", "A")]


@given(st.lists(st.sampled_from(["propose", "accept", "cancel", "settle", "day"]), max_size=12))
def test_no_order_of_acts_brings_a_proposal_into_effect_without_its_acceptance(
    tmp_path_factory: pytest.TempPathFactory, acts: Sequence[str]
) -> None:
    clock = Clock()
    ledger = Ledger.open(sqlite_url(tmp_path_factory.mktemp("acts") / "ledger.db"), clock)
    [proposal] = proposals(1, clock.now + 2 * DAY)
    accepted = ended = False
    known = False
    for act in acts:
        state = next((request.state for request in ledger.all()), None)
        if act == "propose":
            ledger.propose([proposal])
            known = True
        elif act == "day":
            clock.now += DAY
        elif act == "settle":
            accepted |= bool(ledger.settle_proposals())
        elif known and act == "accept" and state == PROPOSED:
            ledger.accept_proposals([proposal.request_id], "A")
            accepted = True
        elif known and act == "cancel" and state != REJECTED:
            ledger.cancel(proposal.request_id)
            ended = True
        claimed = ledger.claim("here", 60, states=["quarantined"]).requests
        assert claimed == ()
        now = next((request.state for request in ledger.all()), None)
        assert now == (REJECTED if ended else "received" if accepted else PROPOSED if known else None)
    ledger.verify_chain()
    ledger.close()


def test_a_proposal_becomes_received_or_rejected_and_nothing_becomes_one() -> None:
    from lmeraser.erase.states import STATES

    assert {new for new in STATES if may_follow(PROPOSED, new)} == {"received", REJECTED}
    assert not any(may_follow(old, PROPOSED) for old in STATES)
    assert status(PROPOSED) == "pending"
