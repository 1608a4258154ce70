"""The door for what OpenDSR has no word for: images, corrections, decisions about requests, questions. As the commands do it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import png
from clocks import DAY, Clock
from doorway import FIRST, SECOND, Doorway, a_request, bodies, doorway
from fake_pipeline import CANARY, FakePipeline, everybody
from histories import is_served
from hypothesis import given
from hypothesis import strategies as st

from flows.door import deciding
from flows.door.bodies import Correction, Extension, Hold, Images, Question, Strict, read_own
from flows.door.requests import own_request, take_up
from lmeraser.core.digest import sha256
from lmeraser.core.errors import RequestError
from lmeraser.erase.ledger_proposals import WITHDRAWN
from lmeraser.erase.states import BLOCKED, CERTIFIED, PROPOSED, REJECTED
from lmeraser.prove.keys import load_public
from lmeraser.prove.lookup import check_answer

PERSON, OTHER, NOBODY = f"{CANARY}-2", f"{CANARY}-3", f"{CANARY}-nobody"
IMAGE, OTHERS, FOREIGN = sha256(png(20)), sha256(png(30)), sha256(b"of nobody")  # the first is PERSON's, labelled `one`
PUBLIC = sha256(png(100))


@pytest.fixture
def patient_way(patient: FakePipeline) -> Iterator[Doorway]:
    with patient.process() as project, doorway(project) as made:
        yield made


def post(way: Doorway, path: str, body: Any = None, *scopes: str, client: str = "acme") -> Any:
    return way.ask("POST", path, way.token(client, *scopes), **({} if body is None else {"json": body}))


def decide(way: Doorway, verb: str, body: Any = None, request_id: str = FIRST) -> Any:
    return post(way, f"/requests/{request_id}/{verb}", body, "approve", client="officer")


def images(*digests: str, request_id: str = FIRST) -> dict[str, Any]:
    return {"subject_request_id": request_id, "sha256": list(digests)}


def correction(digest: str = IMAGE, request_id: str = FIRST, **values: str) -> dict[str, Any]:
    return {"subject_request_id": request_id, "sha256": [digest], **(values or {"label": "two"})}


def extension(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()["extensions"]["door.example"]
    return told


def propose(pipeline: FakePipeline, folder: Path, *people: str) -> list[str]:
    (folder / "feed.csv").write_text("\n".join(["subject", *people]) + "\n")
    ids: list[str] = pipeline.json("propose", "--feed", str(folder / "feed.csv"))["proposed"]
    return ids


# Single images


def test_image_is_out_of_what_is_served_when_its_request_is_answered_and_goes_the_whole_way(
    way: Doorway, pipeline: FakePipeline
) -> None:
    answer = post(way, "/images", images(IMAGE.upper(), IMAGE), "submit", "read")
    assert answer.status_code == 201, answer.text
    way.require_signed(answer)
    assert answer.json().keys() == {"controller_id", "expected_completion_time", "received_time", "subject_request_id"}
    assert way.states == {FIRST: "quarantined"}
    assert way.door.home.layout.quarantine.exists()
    pipeline.sweep()
    assert way.status()["request_status"] == "completed"
    envelope = way.ask("GET", f"/requests/{FIRST}/certificate", way.token("acme", "read"))
    assert IMAGE not in envelope.text
    assert pipeline.json("lookup", "--sha256", IMAGE)["answer"] == "erased"
    assert pipeline.json("lookup", "--subject", PERSON)["answer"] == "present", "nobody was named"


def test_same_request_for_images_twice_has_one_effect_and_another_one_is_refused(way: Doorway) -> None:
    first, second = (post(way, "/images", images(IMAGE, OTHERS), "submit") for _ in range(2))
    assert (first.status_code, second.content) == (201, first.content)
    head = way.door.home.ledger.head()
    for path, body in (("/images", images(IMAGE)), ("/requests", a_request(PERSON)), ("/corrections", correction())):
        assert "another kind" in way.line(post(way, path, body, "submit", "read"), 409)
    assert "in use" in way.line(post(way, "/images", images(IMAGE, OTHERS), "submit", client="other"), 409)
    assert [event.kind for event in way.door.home.ledger.events()].count("received") == 1
    assert way.door.home.ledger.head()[0] >= head[0]


def test_client_that_may_only_submit_cannot_tell_which_images_are_there(way: Doorway) -> None:
    ids = [f"5eed0000-0000-4000-8000-00000000000{number}" for number in range(3)]
    answers = [
        post(way, "/images", images(digest, request_id=request_id), "submit")
        for digest, request_id in zip((IMAGE, FOREIGN, PUBLIC), ids, strict=True)
    ]
    assert {answer.status_code for answer in answers} == {201}
    assert len({frozenset(answer.json()) for answer in answers}) == 1
    assert way.web.portal
    way.web.portal.call(way.door.finish)
    assert way.states == dict(zip(ids, ("quarantined", REJECTED, BLOCKED), strict=True)), "they do differ"


def test_images_that_could_not_take_effect_are_taken_up_later(way: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.door.guard.BUSY", 0.01)
    with way.door._one:
        assert post(way, "/images", images(IMAGE), "submit", "read").status_code == 201
    assert way.states == {FIRST: "received"}
    take_up(way.door)
    assert way.states == {FIRST: "quarantined"}


# Corrections


@pytest.mark.parametrize("values", [{"label": "two"}, {"subject": OTHER}, {"label": "two", "of": PERSON}])
def test_correction_is_in_effect_when_it_is_answered_and_is_certified_as_one(
    values: dict[str, str], way: Doorway, pipeline: FakePipeline
) -> None:
    answer = post(way, "/corrections", correction(**values), "submit", "read")
    assert answer.status_code == 201, answer.text
    way.require_signed(answer)
    assert CANARY not in answer.text
    assert post(way, "/corrections", correction(**values), "submit", "read").content == answer.content
    assert way.states == {FIRST: "quarantined"}
    pipeline.sweep()
    assert (pipeline.request(FIRST).type, way.status()["request_status"]) == ("rectified", "completed")
    assert post(way, "/corrections", correction(**values), "submit", "read").content == answer.content


def test_correction_that_contradicts_another_is_received_and_cancelled(way: Doorway) -> None:
    assert post(way, "/corrections", correction(), "submit", "read").status_code == 201
    assert post(way, "/corrections", correction(request_id=SECOND, subject=OTHER), "submit", "read").status_code == 201
    assert way.states == {FIRST: "quarantined", SECOND: REJECTED}
    assert "contradict" in str(way.status(SECOND)["extensions"]["door.example"]["reason"])


def test_correction_that_cannot_be_carried_out_is_one_line_and_stores_nothing(way: Doorway) -> None:
    refused = [
        (correction(FOREIGN), 400, "image 1 of 1 is unknown"),
        (correction(PUBLIC), 400, "public records"),
        (correction(label="one"), 400, "this value already"),
        (correction(label=CANARY), 400, "no private record has the label"),
        (correction(subject=NOBODY), 400, "`subject`: subject 1 of 1 is unknown"),
        (correction(label="two", of=OTHER), 400, "leave `of` out"),
        (correction(label="two", subject=OTHER), 400, "one of `label` and `subject`"),
        (correction(of=OTHER), 400, "one of `label` and `subject`"),
    ]
    for body, code, part in refused:
        answer = post(way, "/corrections", body, "submit", "read")
        line = way.line(answer, code)
        assert part in line
        assert CANARY not in line
        assert "--" not in line, "options are the command line's"
    assert way.states == {}
    assert post(way, "/corrections", correction(), "submit", "read").status_code == 201, "the id is the client's still"
    assert "another kind" in way.line(post(way, "/corrections", correction(subject=OTHER), "submit", "read"), 409)


def test_correction_where_erasures_clear_the_source_is_made_there_first(way: Doorway) -> None:
    path = way.door.home.layout.params
    raw = yaml.safe_load(path.read_text())
    raw["source"]["erase"] = True
    path.write_text(yaml.safe_dump(raw))
    assert "written there first" in way.line(post(way, "/corrections", correction(), "submit", "read"), 409)
    assert way.states == {}


# Decisions


def test_what_is_proposed_is_listed_without_a_name_and_accepted_or_declined(
    way: Doorway, pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = propose(pipeline, tmp_path, PERSON, OTHER)
    answer = way.ask("GET", "/proposals", way.token("officer", "approve"))
    way.require_signed(answer)
    assert answer.json() == way.ask("GET", "/proposals", way.token("auditor", "audit")).json()
    told = answer.json()
    assert told["total"] == 2
    assert {each["subject_request_id"]: each["proposed_for"] for each in told["proposals"]} == dict.fromkeys(ids, WITHDRAWN)
    assert {each["expected_completion_time"] for each in told["proposals"]} == {pipeline.request(each).due_at for each in ids}
    shown = [row.subject for row in everybody()] + [name for each in ids for name in pipeline.request(each).pseudonyms]
    assert not [name for name in shown if name in answer.text]

    accepted, declined = decide(way, "approve", request_id=ids[0]), decide(way, "decline", request_id=ids[1])
    assert (accepted.json()["request_status"], declined.json()["request_status"]) == ("in_progress", "cancelled")
    assert extension(declined)["reason"] == "cancelled by officer"
    assert way.states == {ids[0]: "quarantined", ids[1]: REJECTED}
    assert pipeline.json("status", ids[0])["approved_by"] == "officer"
    for verb in ("approve", "decline"):
        for request_id in ids:
            assert "nothing was done" in way.line(decide(way, verb, request_id=request_id), 409)
    assert way.ask("GET", "/proposals", way.token("officer", "approve")).json() == {"total": 0, "proposals": []}
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]


def test_of_many_proposals_those_that_are_due_first_are_listed(
    way: Doorway, pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = propose(pipeline, tmp_path, PERSON, OTHER, f"{CANARY}-4")
    pipeline.json("extend", ids[0], "--days", "5", "--reason", "file 42")
    monkeypatch.setattr(deciding, "SHOWN", 2)
    told = way.ask("GET", "/proposals", way.token("officer", "approve")).json()
    assert (told["total"], [each["subject_request_id"] for each in told["proposals"]]) == (3, ids[1:])


def test_proposal_is_accepted_though_nobody_can_tell_yet_whether_it_is_valid(
    way: Doorway, pipeline: FakePipeline, tmp_path: Path
) -> None:
    [request_id] = propose(pipeline, tmp_path, PERSON)
    sizes = way.door.home.layout.sizes
    kept = sizes.read_bytes()
    sizes.unlink()
    assert decide(way, "approve", request_id=request_id).json()["request_status"] == "pending"
    sizes.write_bytes(kept)
    take_up(way.door)
    assert way.states == {request_id: "quarantined"}


def test_decline_ends_nothing_that_was_accepted_meanwhile(
    way: Doorway, pipeline: FakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [request_id] = propose(pipeline, tmp_path, PERSON)

    def then_accepted(*given: Any) -> Any:
        seen = own_request(*given)
        pipeline.json("approve", request_id, "--by", "A. Officer")
        return seen

    monkeypatch.setattr(deciding, "own_request", then_accepted)
    assert "only one that is proposed" in way.line(decide(way, "decline", request_id=request_id), 409)
    assert way.states == {request_id: "quarantined"}


def test_proposal_is_no_clients_to_send_or_to_end(way: Doorway, pipeline: FakePipeline, tmp_path: Path) -> None:
    [request_id] = propose(pipeline, tmp_path, PERSON)
    token = way.token("acme", "submit", "read")
    assert way.ask("GET", f"/requests/{request_id}", token).status_code == 404
    assert way.ask("DELETE", f"/requests/{request_id}", token).status_code == 404
    for path, body in (("/requests", a_request(PERSON, request_id)), ("/images", images(IMAGE, request_id=request_id))):
        assert "in use" in way.line(post(way, path, body, "submit", "read"), 409)
    assert way.states == {request_id: PROPOSED}


def test_request_that_waits_for_approval_can_be_declined(way: Doorway) -> None:
    path = way.door.home.layout.params
    raw = yaml.safe_load(path.read_text())
    raw["service"]["approval"] = True
    path.write_text(yaml.safe_dump(raw))
    post(way, "/images", images(IMAGE), "submit", "read")
    post(way, "/corrections", correction(OTHERS, SECOND), "submit", "read")
    assert way.states == {FIRST: "validated", SECOND: "validated"}
    assert decide(way, "decline").json()["request_status"] == "cancelled"
    assert decide(way, "approve", request_id=SECOND).json()["request_status"] == "in_progress"
    assert way.states == {FIRST: REJECTED, SECOND: "quarantined"}


def test_held_request_is_in_effect_and_not_carried_out_until_it_is_released(
    clock: Clock, way: Doorway, pipeline: FakePipeline
) -> None:
    way.send(a_request(PERSON))
    answer = decide(way, "hold", {"until": clock.day(30), "reason": "file 42"})
    way.require_signed(answer)
    told = extension(answer)
    assert (told["state"], f"until {clock.day(30)}" in told["reason"], "42" in answer.text) == (BLOCKED, True, False)
    assert pipeline.sweep() == pipeline.resume() == []
    assert not is_served(pipeline, PERSON)
    assert pipeline.json("status", FIRST)["hold_reason"] == "file 42"
    assert extension(decide(way, "release"))["state"] == "quarantined"
    assert "no hold is on" in way.line(decide(way, "release"), 409)
    assert [request.state for request in pipeline.sweep()] == [CERTIFIED]
    assert "nothing is left to hold" in way.line(decide(way, "hold", {"until": clock.day(30), "reason": "x"}), 409)


def test_hold_on_a_person_is_not_released_by_their_request(clock: Clock, way: Doorway, pipeline: FakePipeline) -> None:
    pipeline.json("hold", "--subject", PERSON, "--until", clock.day(9), "--reason", "file 42")
    way.send(a_request(PERSON))
    assert "on a person of request" in way.line(decide(way, "release"), 409)
    assert way.states == {FIRST: BLOCKED}


def test_due_date_moves_once_and_its_reason_is_told_to_no_client(clock: Clock, way: Doorway, pipeline: FakePipeline) -> None:
    before = way.send(a_request(PERSON)).json()["expected_completion_time"]
    answer = decide(way, "extend", {"days": 60, "reason": "many at once"})
    assert answer.json()["expected_completion_time"] > before
    assert "many" not in answer.text + json.dumps(way.status())
    assert pipeline.json("status", FIRST)["extension_reason"] == "many at once"
    assert "extended already" in way.line(decide(way, "extend", {"days": 1, "reason": "x"}), 409)
    way.send(a_request(OTHER, SECOND))
    clock.now += 400 * DAY
    assert "before the due date" in way.line(decide(way, "extend", {"days": 1, "reason": "x"}, SECOND), 409)


def test_reason_or_date_that_cannot_be_kept_is_refused_without_a_value(clock: Clock, way: Doorway) -> None:
    way.send(a_request(PERSON))
    whole = {"until": clock.day(1), "reason": "file 42"}
    refused = [
        ("hold", whole | {"reason": f"the case of {PERSON.upper()}"}, "names a person"),
        ("extend", {"days": 1, "reason": f"as {OTHER} asked"}, "names a person"),
        ("hold", whole | {"reason": "\x00"}, "`reason` holds no reason"),
        ("hold", whole | {"until": "2001-01-01"}, "from today"),
        ("hold", whole | {"until": "2030-02-31"}, "no date"),
    ]
    for verb, body, part in refused:
        answer = decide(way, verb, body)
        line = way.line(answer, 400)
        assert part in line
        assert CANARY not in answer.text.lower()
        assert "--" not in line
        assert "2001" not in line
    assert way.states == {FIRST: "quarantined"}


def test_decision_about_nobodys_request_is_refused(way: Doorway) -> None:
    for path, body in bodies(PERSON, IMAGE).items():
        if "{request_id}" in path:
            answer = post(way, path.format(request_id=SECOND), body, "approve")
            assert "no request" in way.line(answer, 404)
    for verb in ("approve", "decline", "release"):
        assert "no request" in way.line(decide(way, verb, request_id=SECOND), 404)
        assert "UUID" in way.line(decide(way, verb, request_id=CANARY), 400)


# Taking back


def test_request_in_its_grace_is_withdrawn_by_its_client_and_by_nobody_else(
    patient_way: Doorway, patient: FakePipeline, clock: Clock
) -> None:
    way, mine = patient_way, ("submit", "read")
    way.send(a_request(PERSON))
    post(way, "/images", images(OTHERS, request_id=SECOND), *mine)
    until = way.status()["extensions"]["door.example"]["waits_until"]
    assert until > way.status()["received_time"]
    assert way.ask("DELETE", f"/requests/{FIRST}", way.token("other", *mine)).status_code == 404
    assert way.ask("DELETE", f"/requests/{FIRST}", way.token("acme", *mine)).status_code == 202
    assert is_served(patient, PERSON)
    assert way.status()["request_status"] == "cancelled"
    assert way.status()["extensions"]["door.example"] == {"state": REJECTED, "reason": "withdrawn", "waits_until": None}
    clock.now += DAY + 1
    assert "within its grace" in way.line(way.ask("DELETE", f"/requests/{SECOND}", way.token("acme", *mine)), 409)
    assert way.states == {FIRST: REJECTED, SECOND: "quarantined"}
    assert [request.request_id for request in patient.sweep()] == [SECOND]


# Questions


def test_lookup_tells_of_who_is_asked_for_and_of_nobody_else(way: Doorway, pipeline: FakePipeline) -> None:
    done = pipeline.forget(OTHER)
    way.door.home.drop_roster()
    before = way.door.home.ledger.head()
    asked = {
        "present": {"subject": f" {PERSON} "},
        "absent": {"subject": NOBODY},
        "erased": {"subject": OTHER},
    }
    for answer, body in asked.items():
        told = post(way, "/lookup", body, "audit")
        way.require_signed(told)
        assert (told.json()["answer"], told.json()["kind"]) == (answer, "subject")
        assert told.json()["request_id"] == (done.request_id if answer == "erased" else None)
        assert not [row.subject for row in everybody() if row.subject in told.text]
        predicate, _ = check_answer(
            json.dumps(told.json()["signed"]).encode(), load_public(way.door.home.layout.public_keys), "the answer"
        )
        assert predicate["answer"] == answer
    picture = post(way, "/lookup", {"sha256": IMAGE.upper()}, "audit").json()
    assert (picture["answer"], picture["kind"], picture["train"]) == ("present", "image", 1)
    assert way.door.home.ledger.head() == before


@pytest.mark.parametrize("body", [{}, {"subject": NOBODY, "sha256": FOREIGN}, {"subject": f"{NOBODY}\u200b"}, {"sha256": NOBODY}])
def test_question_that_asks_for_none_or_both_or_nonsense_is_refused(body: dict[str, str], way: Doorway) -> None:
    answer = post(way, "/lookup", body, "audit")
    assert way.line(answer, 400)
    assert CANARY not in answer.text


# Whatever comes


BODIES: tuple[tuple[type[Strict], dict[str, Any]], ...] = (
    (Images, images(IMAGE)),
    (Correction, correction(label="two", of=PERSON)),
    (Hold, {"until": "2030-01-31", "reason": "file 42"}),
    (Extension, {"days": 30, "reason": "file 42"}),
    (Question, {"subject": PERSON, "sha256": IMAGE}),
)
words = st.sampled_from([None, True, 0, 61, -1.5, 30.0, "", "\x00", CANARY, "2030-01-31\n", "a" * 64, "A" * 64, "a" * 64 + "\n"])
trees = st.recursive(
    words, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.just(CANARY), inner)), max_leaves=5
)
FIELDS = sorted({name for _, whole in BODIES for name in whole} | {CANARY, "label", "subject"})


@given(st.sampled_from(BODIES), st.dictionaries(st.sampled_from(FIELDS), trees), st.sets(st.sampled_from(FIELDS)))
def test_any_change_of_a_body_is_read_or_refused_in_one_line_without_a_value(
    of: tuple[type[Strict], dict[str, Any]], changes: dict[str, Any], left_out: set[str]
) -> None:
    model, whole = of
    body = {name: value for name, value in (whole | changes).items() if name not in left_out}
    line = ""
    try:
        read = read_own(json.dumps(body).encode(), model)
        assert all(body[name] == value for name, value in read if value is not None)
        assert body.keys() <= model.model_fields.keys()
    except RequestError as error:
        line = str(error)
        assert "expected" in line or "leave it out" in line
    assert CANARY not in line
    assert "\n" not in line
    assert len(line) < 300


@pytest.mark.parametrize(("model", "whole"), BODIES)
def test_whole_body_is_read(model: type[Strict], whole: dict[str, Any]) -> None:
    assert {name: value for name, value in read_own(json.dumps(whole).encode(), model) if value is not None} == whole


def test_no_name_or_digest_stays_in_the_doors_file_or_log(
    clock: Clock, way: Doorway, pipeline: FakePipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    post(way, "/images", images(IMAGE), "submit", "read")
    post(way, "/corrections", correction(OTHERS, SECOND, label="two", of=OTHER), "submit", "read")
    post(way, "/lookup", {"subject": PERSON}, "audit")
    decide(way, "hold", {"until": clock.day(3), "reason": f"of {PERSON}"})
    pipeline.sweep()
    assert set(way.states.values()) == {CERTIFIED}
    output = capsys.readouterr()
    kept = way.door.store.path.read_bytes()
    for secret in (CANARY, IMAGE, OTHERS):
        assert secret not in output.out + output.err
        assert secret.encode() not in kept
    assert "/corrections" in output.err
