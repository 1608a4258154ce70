"""OpenDSR 2.0: whatever comes in is an erasure of one person or one line, and what goes out is what the protocol asks for."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from doorway import FIRST, a_request
from hypothesis import given
from hypothesis import strategies as st

from flows.door import opendsr
from flows.door.bodies import schema_of
from flows.door.opendsr import Erasure, read_request
from lmeraser.core.errors import RequestError
from lmeraser.erase.requests import Request
from lmeraser.erase.states import STATES

NOW = datetime(2026, 5, 1, tzinfo=UTC)
CANARY = "kanarienvogel"

words = st.sampled_from([None, True, 0, -1.5, "", "gdpr", "\x00", CANARY])
trees = st.recursive(
    words, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.just(CANARY), inner)), max_leaves=5
)
FIELDS = [*opendsr.EXPECTED, CANARY]


def whole(**changes: Any) -> dict[str, Any]:
    return a_request(f"{CANARY}-1", submitted_time="2026-04-30T12:00:00+02:00") | changes


def test_whole_request_is_read() -> None:
    urls = ["https://a.example/x", "https://a.example/x"]
    read = read_request(json.dumps(whole(api_version="2.0", extensions={"x": {}}, status_callback_urls=urls)).encode(), NOW)
    assert read == Erasure(FIRST, f"{CANARY}-1", ("https://a.example/x",))


@given(st.dictionaries(st.sampled_from(FIELDS), trees, min_size=1), st.sets(st.sampled_from(FIELDS)))
def test_any_change_of_a_request_is_read_or_refused_in_one_line_without_a_value(
    changes: dict[str, Any], left_out: set[str]
) -> None:
    body = {name: value for name, value in whole(**changes).items() if name not in left_out}
    line = ""
    try:
        assert isinstance(read_request(json.dumps(body).encode(), NOW), Erasure)
    except RequestError as error:
        line = str(error)
    assert CANARY not in line
    assert "\n" not in line
    assert len(line) < 300


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(RequestError, match="JSON"):
        read_request(data, NOW)


@given(st.timedeltas(timedelta(days=-20_000), timedelta(days=20_000)))
def test_time_within_ten_years_back_and_a_day_ahead_is_taken(shift: timedelta) -> None:
    body = json.dumps(whole(submitted_time=(NOW + shift).isoformat(timespec="seconds"))).encode()
    if -opendsr.BEHIND < shift < opendsr.AHEAD:
        read_request(body, NOW)
    elif shift < -opendsr.BEHIND - timedelta(seconds=1) or shift > opendsr.AHEAD + timedelta(seconds=1):
        with pytest.raises(RequestError, match="submitted_time"):
            read_request(body, NOW)


def a_stored(state: str) -> Request:
    times = ("2026-05-01T00:00:00+00:00", "2026-05-31T00:00:00+00:00")
    return Request(FIRST, *times, state, state, ("ab",), False, None, 0, 0.0, {}, None, "certificates/x.json", None, None, None)


@pytest.mark.parametrize("state", STATES)
def test_status_has_the_fields_that_the_protocol_requires_and_no_pseudonym(state: str) -> None:
    told = opendsr.request_status(a_stored(state), "acme", "d.example", "https://d.example")
    assert {"controller_id", "expected_completion_time", "subject_request_id", "request_status", "api_version"} <= told.keys()
    assert told["request_status"] in ("pending", "in_progress", "completed", "cancelled")
    assert ("results_url" in told) == (state == "certified") == (told["request_status"] == "completed")
    assert "ab" not in json.dumps(told).replace("cancelled", "").split('"')
    opendsr.RequestStatus.model_validate(told)
    opendsr.Received.model_validate(opendsr.received(a_stored(state), "acme", b"{}"))


def test_schema_that_is_published_is_the_one_that_is_asked_for() -> None:
    schema = schema_of(opendsr.DataSubjectRequest)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == set(opendsr.EXPECTED) - {"identity_type", "identity_value", "identity_format"}
    assert schema["properties"]["subject_identities"]["items"]["properties"].keys() == {
        "identity_type",
        "identity_value",
        "identity_format",
    }
    assert "$ref" not in json.dumps(schema)
