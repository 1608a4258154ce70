"""The record of requests: the same id twice is one request; a damaged record is refused; subjects are pseudonyms."""

import json
import uuid
from pathlib import Path

import pytest
from builders import CANARY_SUBJECT, refused

from lmeraser.core.errors import ProjectError, RequestError
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.requests import STATES, RequestStore, check_request_id, new_request

KEY = SubjectKey(b"k" * 32)
ID = "0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c"
ANNA, BEN = KEY.pseudonym(CANARY_SUBJECT), KEY.pseudonym("ben")


def test_request_reads_back_as_it_was_stored(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "requests")
    saved = store.save(new_request(ID, [ANNA], include_public=False), state="validated", plan={"a": 1}, before={"x": "y"})
    assert store.get(ID) == saved == store.find(ID)
    assert (saved.state, saved.plan, saved.before, saved.is_open) == ("validated", {"a": 1}, {"x": "y"}, True)


def test_record_of_a_request_is_private_and_names_nobody(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "requests")
    store.save(new_request(ID, [ANNA], include_public=False))
    path = tmp_path / "requests" / f"{ID}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "CANARY" not in path.read_text()


def test_same_id_twice_is_one_request(tmp_path: Path) -> None:
    store = RequestStore(tmp_path)
    store.save(new_request(ID, [ANNA, BEN], include_public=False), state="removed")
    known = store.find(check_request_id(ID.upper()))
    assert known is not None
    store.require_same(known, [BEN, ANNA, BEN])
    store.save(known)
    assert [(request.request_id, request.state) for request in store.all()] == [(ID, "removed")]


def test_other_subjects_under_a_known_id_are_refused(tmp_path: Path) -> None:
    store = RequestStore(tmp_path)
    known = store.save(new_request(ID, [ANNA], include_public=False))
    for others in ([BEN], [ANNA, BEN], []):
        message = refused(RequestError, lambda others=others: store.require_same(known, others))
        assert ANNA not in message
        assert BEN not in message


@pytest.mark.parametrize("text", ["", "CANARY-anna", "../../CANARY", ID[:-1], f"{ID}/..", "0" * 33])
def test_id_that_is_no_uuid_is_refused(text: str) -> None:
    refused(RequestError, lambda: check_request_id(text))


def test_every_spelling_of_a_uuid_is_one_id() -> None:
    spellings = [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]
    assert {check_request_id(spelling) for spelling in spellings} == {ID}


def test_request_without_an_id_gets_a_fresh_one() -> None:
    assert uuid.UUID(check_request_id(None)) != uuid.UUID(check_request_id(None))


def test_states_are_reached_in_order_and_the_last_closes_the_request() -> None:
    request = new_request(ID, [ANNA], include_public=False)
    assert request.state == "received"
    for place, state in enumerate(STATES):
        moved = type(request)(**(vars(request) | {"state": state}))
        assert [moved.reached(other) for other in STATES] == [other <= place for other in range(len(STATES))]
        assert moved.is_open == (state != "verified")


def test_unknown_request_is_refused(tmp_path: Path) -> None:
    store = RequestStore(tmp_path / "nothing")
    assert store.find(ID) is None
    assert store.all() == []
    assert "unknown" in refused(RequestError, lambda: store.get(ID))


@pytest.mark.parametrize(
    "data", [b"", b"CANARY", b"[]", b"null", b"{}", b'{"pseudonyms": null}', b'{"pseudonyms": [], "CANARY": 1}']
)
def test_damaged_record_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / f"{ID}.json").write_bytes(data)
    store = RequestStore(tmp_path)
    assert ID in refused(ProjectError, lambda: store.find(ID))
    refused(ProjectError, store.all)


def test_requests_are_told_oldest_first(tmp_path: Path) -> None:
    store = RequestStore(tmp_path)
    ids = sorted(str(uuid.UUID(int=number)) for number in (3, 1, 2))
    for identity, when in zip(ids, ("2026-03", "2026-01", "2026-02"), strict=True):
        store.save(new_request(identity, [ANNA], include_public=False), received_at=when)
    assert [request.request_id for request in store.all()] == [ids[1], ids[2], ids[0]]


@pytest.mark.parametrize("change", [{"state": "CANARY"}, {"pseudonyms": "CANARY"}, {"request_id": "another"}, {"plan": "CANARY"}])
def test_record_with_impossible_fields_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    store = RequestStore(tmp_path)
    store.save(new_request(ID, [ANNA], include_public=False))
    path = tmp_path / f"{ID}.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    refused(ProjectError, lambda: store.get(ID).reached("removed"))
