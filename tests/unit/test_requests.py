"""How a request comes in: what it needs is taken, the rest is dropped unread, and a refusal repeats no value."""

import json
import uuid
from typing import Any

import pytest
from builders import CANARY_SUBJECT, refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import RequestError
from lmeraser.core.names import MAX_LENGTH
from lmeraser.erase.facts import normalise_subjects
from lmeraser.erase.requests import MAX_BODY, MAX_SUBJECTS, check_request_id, read_event
from lmeraser.erase.states import FINAL, OPENDSR, STATES, WAY, may_follow, status

ID = "0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c"
SHORT: dict[str, Any] = {"request_id": ID, "subjects": [CANARY_SUBJECT, "ben"]}
FULL: dict[str, Any] = {
    "subject_request_id": ID,
    "subject_request_type": "erasure",
    "regulation": "gdpr",
    "subject_identities": [
        {"identity_type": "controller_customer_id", "identity_value": CANARY_SUBJECT, "identity_format": "raw"},
        {"identity_type": "email", "identity_value": "ben"},
    ],
}


def read(message: Any) -> Any:
    return read_event(json.dumps(message).encode())


@pytest.mark.parametrize("text", ["", "CANARY-anna", "../../CANARY", ID[:-1], f"{ID}/..", "0" * 33])
def test_id_that_is_no_uuid_is_refused(text: str) -> None:
    refused(RequestError, lambda: check_request_id(text))


def test_every_spelling_of_a_uuid_is_one_id() -> None:
    spellings = [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"]
    assert {check_request_id(spelling) for spelling in spellings} == {ID}


def test_request_without_an_id_gets_a_fresh_one() -> None:
    assert uuid.UUID(check_request_id(None)) != uuid.UUID(check_request_id(None))


@pytest.mark.parametrize("message", [SHORT, FULL], ids=["short", "OpenDSR"])
def test_both_spellings_of_a_request_say_the_same(message: dict[str, Any]) -> None:
    event = read(message)
    assert (event.request_id, event.subjects, event.include_public) == (ID, (CANARY_SUBJECT, "ben"), False)
    assert read(message | {"include_public": True}).include_public


@pytest.mark.parametrize("message", [SHORT, FULL], ids=["short", "OpenDSR"])
def test_what_a_message_holds_beyond_its_fields_is_dropped(message: dict[str, Any]) -> None:
    extra = {"name": "CANARY-name", "photo": "CANARY" * 1000, "nested": {"mail": ["CANARY@example.org"]}}
    assert read(message | extra) == read(message)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subject_request_id": None}, "subject_request_id"),
        ({"subject_request_id": 7}, "subject_request_id"),
        ({"subject_request_id": "CANARY"}, "UUID"),
        ({"subject_request_type": "access"}, "subject_request_type"),
        ({"subject_request_type": None}, "subject_request_type"),
        ({"subject_identities": []}, "subject_identities"),
        ({"subject_identities": "CANARY"}, "subject_identities"),
        ({"subject_identities": ["CANARY"]}, "entry 1 of 1"),
        ({"subject_identities": [{"identity_value": "x"}, {"identity_value": 3}]}, "entry 2 of 2"),
        ({"subject_identities": [{"identity_value": "CANARY", "identity_format": "sha256"}]}, "identity_format"),
        ({"include_public": "CANARY"}, "include_public"),
    ],
)
def test_refusal_names_the_field_and_no_value(change: dict[str, Any], field: str) -> None:
    assert field in refused(RequestError, lambda: read(FULL | change))


@pytest.mark.parametrize("field", [name for name in FULL if name != "regulation"])
def test_missing_field_is_refused(field: str) -> None:
    refused(RequestError, lambda: read({name: value for name, value in FULL.items() if name != field}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"CANARY",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"request_id": NaN, "subjects": ["CANARY"]}',
        f'{{"request_id": "{ID}", "subjects": ["CANARY"], "subjects": ["other"]}}'.encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    refused(RequestError, lambda: read_event(data))


def test_a_million_subjects_in_one_request_are_refused_at_once() -> None:
    many = [f"CANARY-{number}" for number in range(1_000_000)]
    assert str(MAX_SUBJECTS) in refused(RequestError, lambda: read(SHORT | {"subjects": many}))
    assert str(MAX_SUBJECTS) in refused(RequestError, lambda: normalise_subjects(many))
    assert str(MAX_BODY) in refused(RequestError, lambda: read_event(b" " * (MAX_BODY + 1)))


@pytest.mark.parametrize("subject", ["CANARY" * 200_000, "CANARY\x00", "CANARY\nx", "CANARY\x1b[31m", "\ud800CANARY"])
def test_subject_of_a_megabyte_or_with_control_characters_is_refused(subject: str) -> None:
    assert "subject 2 of 2" in refused(RequestError, lambda: normalise_subjects(["ben", subject]))


def test_subject_of_the_greatest_length_is_taken() -> None:
    assert normalise_subjects(["é" * MAX_LENGTH]) == ["é" * MAX_LENGTH]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*FULL, *SHORT]) | st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON | st.binary())
def test_any_message_is_read_or_refused_in_one_line(message: Any) -> None:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    try:
        taken = len(read_event(data).subjects)
    except RequestError as error:
        taken = -str(error).count("\n")
    assert taken >= 0, "a refusal of more than one line"


@given(st.sampled_from(STATES), st.sampled_from(STATES))
def test_no_step_is_left_out_and_an_ended_request_stays(old: str, new: str) -> None:
    allowed = may_follow(old, new)
    if old in FINAL:
        assert not allowed
    if old in WAY and new in WAY and allowed:
        assert WAY.index(new) - WAY.index(old) == 1 or (old, new) == ("validated", "quarantined")


def test_every_state_has_a_status_that_a_controller_knows() -> None:
    assert {status(state) for state in STATES} == {"pending", "in_progress", "completed", "cancelled"}
    assert set(OPENDSR) <= set(STATES)
