"""The door: what a request by HTTP does to the ledger, and who may do what."""

import errno
import itertools
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import png
from doorway import FIRST, HOST, SECOND, Doorway, a_request, bodies, resolve
from fake_pipeline import CANARY, FakePipeline
from starlette.testclient import TestClient

from flows.door import guard
from flows.door.asgi import make_door
from flows.door.guard import Door
from flows.door.requests import take_up
from flows.door.routes import ROUTES
from flows.door.tokens import FAILURES, SCOPES, SUBMIT
from flows.requests import intake
from lmeraser.core.digest import sha256
from lmeraser.core.errors import StepFailedError

ANNA, BERTA, NOBODY = f"{CANARY}-1", f"{CANARY}-2", f"{CANARY}-nobody"


def set_params(way: Doorway, **service: Any) -> None:
    path = way.door.home.layout.params
    raw = yaml.safe_load(path.read_text())
    raw["service"] |= service
    path.write_text(yaml.safe_dump(raw))


# One effect


def test_the_same_request_twice_has_one_effect_and_one_answer(way: Doorway) -> None:
    body = a_request(ANNA)
    first, second = way.send(body), way.send(body)
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    assert first.headers["X-OpenDSR-Signature"] == second.headers["X-OpenDSR-Signature"]
    assert way.states == {FIRST: "quarantined"}
    assert [event.kind for event in way.door.home.ledger.events()] == ["received", "validated", "quarantined"]


def test_the_same_id_for_another_identity_is_refused_and_changes_nothing(way: Doorway) -> None:
    way.send(a_request(ANNA))
    before = way.door.home.ledger.head()
    assert "another identity" in way.line(way.send(a_request(BERTA)), 409)
    assert way.door.home.ledger.head() == before


def test_id_that_came_by_the_command_line_is_no_clients(way: Doorway, pipeline: FakePipeline) -> None:
    pipeline.submit(ANNA, request_id=FIRST)
    assert "in use" in way.line(way.send(a_request(ANNA)), 409)


def test_of_many_who_send_one_id_at_once_one_is_taken(way: Doorway) -> None:
    people, clients = [f"{CANARY}-{number}" for number in range(1, 5)], ["acme", "other"]
    for client in clients:
        way.token(client, "submit")
    both = list(itertools.product(people, clients)) * 2
    with ThreadPoolExecutor(len(both)) as pool:
        codes = list(pool.map(lambda of: way.send(a_request(of[0]), "submit", client=of[1]).status_code, both))
    taken = {of for of, code in zip(both, codes, strict=True) if code == 201}
    assert set(codes) == {201, 409}
    assert len(taken) == 1
    assert codes.count(201) == 2, "the same client with the same request is answered twice"
    way.send(a_request(f"{CANARY}-5", SECOND))
    assert list(way.states) == [FIRST, SECOND]


def test_id_in_capitals_is_the_same_id(way: Doorway) -> None:
    request_id = "ABCDEF00-0000-4000-8000-000000000001"
    assert way.send(a_request(ANNA, request_id)).status_code == 201
    assert way.send(a_request(ANNA, request_id.lower())).status_code == 201
    assert list(way.states) == [request_id.lower()]


def test_request_is_in_effect_when_it_is_answered(way: Doorway) -> None:
    way.send(a_request(ANNA))
    assert way.door.home.layout.quarantine.exists()
    assert way.status()["request_status"] == "in_progress"


def test_what_an_ended_door_had_received_is_taken_up_by_the_next(way: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(intake, "accept", lambda *_, **__: (_ for _ in ()).throw(KeyError("killed")))
        assert way.send(a_request(ANNA)).status_code == 201
    assert way.states == {FIRST: "received"}
    again = Door(way.door.home, way.door.signer, resolver=resolve)
    with TestClient(make_door(again.home, again), base_url=HOST):
        for _ in range(100):
            if way.states[FIRST] == "quarantined":
                break
            time.sleep(0.02)
    assert way.states == {FIRST: "quarantined"}


# Who is known


def test_unknown_person_is_cancelled_and_never_completed(way: Doorway, pipeline: FakePipeline) -> None:
    assert way.send(a_request(NOBODY)).status_code == 201
    pipeline.sweep()
    told = way.status()
    assert told["request_status"] == "cancelled"
    assert "unknown" in told["extensions"]["door.example"]["reason"]
    assert "results_url" not in told


def test_client_that_may_only_submit_cannot_tell_who_is_known(way: Doorway, pipeline: FakePipeline) -> None:
    pipeline.forget(f"{CANARY}-3")
    way.door.home.drop_roster()
    ids = [f"5eed0000-0000-4000-8000-00000000000{number}" for number in range(3)]
    answers = [way.send(a_request(*who), "submit") for who in zip((ANNA, NOBODY, f"{CANARY}-3"), ids, strict=True)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({frozenset(answer.json()) for answer in answers}) == 1
    deadline = time.monotonic() + 30  # such a client is answered before anybody looks
    while len({way.states[request_id] for request_id in ids}) == 1:
        assert time.monotonic() < deadline, "they do differ"
        time.sleep(0.02)
    token = way.token("acme", "submit")
    others = [route for route in ROUTES if frozenset({SUBMIT}) not in route.needs]
    for request_id in ids:  # nor by any other route
        codes = {way.ask(route.method, route.path.format(request_id=request_id), token).status_code for route in others}
        assert codes == {403}
    with_callback = a_request(ANNA, SECOND, status_callback_urls=["https://public.example/"])
    assert "scope read" in way.line(way.send(with_callback, "submit"), 403)
    assert way.send(a_request(ANNA, ids[0]), "submit").status_code == way.send(a_request(NOBODY, ids[1]), "submit").status_code


def test_such_a_client_waits_for_nothing_that_would_tell_it(way: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for its answer, nor for the next one on the same connection."""
    go_on, order = threading.Event(), list[str]()

    def slow(*_: Any, **__: Any) -> None:
        assert go_on.wait(30)
        order.append("effect")

    monkeypatch.setattr(intake, "accept", slow)
    assert way.send(a_request(ANNA), "submit").status_code == 201
    assert way.send(a_request(BERTA, SECOND), "submit").status_code == 201
    assert order == []
    go_on.set()
    third = "5eed0000-0000-4000-8000-000000000003"
    assert way.send(a_request(BERTA, third), "submit", "read").status_code == 201
    assert "effect" in order, "who may read gets the answer when it is in effect"


# Scopes and tokens


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_client_without_a_scope_can_do_nothing_of_it(way: Doorway, route: Any) -> None:
    set_params(way, approval=True)
    way.send(a_request(ANNA))
    path = route.path.format(request_id=FIRST)
    known = bodies(BERTA, sha256(png(20)), SECOND)
    body = {"json": known[route.path]} if route.body else {}
    sets = [combination for size in range(1, 5) for combination in itertools.combinations(SCOPES, size)]
    allowed = [scopes for scopes in sets if any(needed <= set(scopes) for needed in route.needs)]
    before, listed = way.door.home.ledger.head(), way.states
    for scopes in [scopes for scopes in sets if scopes not in allowed]:
        assert "scope" in way.line(way.ask(route.method, path, way.token("acme", *scopes), **body), 403)
    for token in (None, "", "nonsense", "lmeraser_00000000_" + "A" * 43):
        assert way.ask(route.method, path, token, **body).status_code == 401
        assert way.ask(route.method, f"/v2{path}", token, **body).status_code in (401, 429)
        way.door.failures._seen.clear()
    assert (way.door.home.ledger.head(), way.states) == (before, listed)
    codes = {way.ask(route.method, path, way.token("acme", *scopes), **body).status_code for scopes in allowed}
    assert codes <= {200, 201, 202, 404, 409}
    assert allowed


def test_another_clients_request_is_answered_like_nobodys(way: Doorway) -> None:
    way.send(a_request(ANNA))
    token = way.token("other", "submit", "read")
    for method, end in (("GET", ""), ("GET", "/certificate"), ("DELETE", "")):
        answers = [way.ask(method, f"/requests/{request_id}{end}", token) for request_id in (FIRST, SECOND)]
        assert answers[0].content == answers[1].content
        assert answers[0].status_code == 404
    assert way.states == {FIRST: "quarantined"}


def test_who_audits_sees_every_request_and_who_sent_it(way: Doorway, pipeline: FakePipeline) -> None:
    way.send(a_request(ANNA))
    pipeline.submit(BERTA, request_id=SECOND)
    token = way.token("controller", "audit")
    told = [way.ask("GET", f"/requests/{request_id}", token).json()["controller_id"] for request_id in (FIRST, SECOND)]
    assert told == ["acme", "operator"]
    sequence, digest = way.door.home.ledger.head()
    assert way.ask("GET", "/ledger/head", token).json() == {"sequence": sequence, "sha256": digest}


def test_failed_tries_are_limited_and_a_valid_token_is_not(way: Doorway) -> None:
    codes = [way.ask("GET", "/ledger/head", "wrong").status_code for _ in range(FAILURES + 2)]
    assert codes == [401] * FAILURES + [429] * 2
    assert int(way.ask("GET", "/ledger/head", "wrong").headers["Retry-After"]) <= 60
    assert way.ask("GET", "/ledger/head", way.token("auditor", "audit")).status_code == 200


# Approval, cancelling, blocked


def test_request_that_waits_for_approval_is_approved_by_the_client(way: Doorway) -> None:
    set_params(way, approval=True)
    way.send(a_request(ANNA))
    assert way.status()["request_status"] == "pending"
    answer = way.ask("POST", f"/requests/{FIRST}/approve", way.token("officer", "approve"))
    assert answer.json()["request_status"] == "in_progress"
    assert way.door.home.ledger.words(FIRST) == [("approved by", "officer")]
    assert "does not wait" in way.line(way.ask("POST", f"/requests/{FIRST}/approve", way.token("officer", "approve")), 409)


def test_pending_request_can_be_cancelled_and_one_in_progress_cannot(way: Doorway) -> None:
    set_params(way, approval=True)
    way.send(a_request(ANNA))
    assert way.ask("DELETE", f"/requests/{FIRST}", way.token("acme", "submit", "read")).status_code == 202
    assert way.status()["request_status"] == "cancelled"
    set_params(way, approval=False)
    way.send(a_request(BERTA, SECOND))
    assert "in_progress" in way.line(way.ask("DELETE", f"/requests/{SECOND}", way.token("acme", "submit", "read")), 409)
    assert way.states == {FIRST: "rejected", SECOND: "quarantined"}


def test_person_with_public_records_stays_pending_until_the_operator_decides(way: Doorway) -> None:
    way.send(a_request("stock-0"))
    told = way.status()
    assert (told["request_status"], told["extensions"]["door.example"]["state"]) == ("pending", "blocked")


# Proof


def test_every_answer_to_a_client_is_signed(way: Doorway, pipeline: FakePipeline) -> None:
    way.require_signed(way.send(a_request(ANNA)))
    way.require_signed(way.ask("GET", "/discovery"))
    pipeline.sweep()
    told = way.ask("GET", f"/requests/{FIRST}", way.token("acme", "read"))
    way.require_signed(told)
    assert told.json()["request_status"] == "completed"
    path = told.json()["results_url"].removeprefix(HOST)
    envelope = way.ask("GET", path, way.token("acme", "read"))
    way.require_signed(envelope)
    assert envelope.content == (pipeline.root / str(pipeline.request(FIRST).certificate)).read_bytes()


def test_no_name_stays_in_the_doors_own_file(way: Doorway, pipeline: FakePipeline, capsys: pytest.CaptureFixture[str]) -> None:
    way.send(a_request(ANNA, status_callback_urls=["https://public.example/told"]))
    way.send(a_request(NOBODY, SECOND))
    assert CANARY.encode() not in way.door.store.path.read_bytes()
    pipeline.sweep()
    output = capsys.readouterr()
    assert CANARY not in output.out + output.err
    assert "/requests" in output.err


# Bad input and bad days


BAD: dict[str, tuple[int, Any, str]] = {
    "no JSON": (400, b"{", "not valid JSON"),
    "a field twice": (400, b'{"regulation": "gdpr", "regulation": "gdpr"}', "each field once"),
    "NaN": (400, b'{"extensions": {"a": NaN}}', "not valid JSON"),
    "nested deeply": (400, b"[" * 60_000, "not valid JSON"),
    "not UTF-8": (400, b'{"a": "\xff"}', "not valid JSON"),
    "a list": (400, b"[]", "not a JSON object"),
    "too large": (413, b'"' + b"a" * 70_000 + b'"', "larger"),
    "empty": (400, b"", "not valid JSON"),
    "an unknown field": (400, {CANARY: CANARY}, "does not define"),
    "no UUID": (400, {"subject_request_id": CANARY}, "subject_request_id"),
    "a number for an id": (400, {"subject_request_id": 7}, "subject_request_id"),
    "access": (400, {"subject_request_type": "access"}, "erasure"),
    "portability": (400, {"subject_request_type": "portability"}, "erasure"),
    "another regulation": (400, {"regulation": "lgpd"}, "gdpr or ccpa"),
    "no regulation": (400, {"regulation": None}, "regulation is missing"),
    "version 1": (400, {"api_version": "1.0"}, "api_version"),
    "next year": (400, {"submitted_time": "2999-01-01T00:00:00Z"}, "future"),
    "long ago": (400, {"submitted_time": "1999-01-01T00:00:00Z"}, "ten years"),
    "no time": (400, {"submitted_time": "2026-13-41T99:00:00Z"}, "submitted_time"),
    "a time of no place": (400, {"submitted_time": "2026-01-01T00:00:00"}, "offset"),
    "nobody": (400, {"subject_identities": []}, "one identity"),
    "two": (400, {"subject_identities": [{"identity_type": "controller_customer_id"}] * 2}, "identit"),
    "a thousand": (400, {"subject_identities": [{"identity_value": CANARY}] * 1000}, "identit"),
    "an e-mail": (
        400,
        {"subject_identities": [{"identity_type": "email", "identity_value": f"{CANARY}@x.org", "identity_format": "raw"}]},
        "controller_customer_id",
    ),
    "a hash": (
        400,
        {
            "subject_identities": [
                {"identity_type": "controller_customer_id", "identity_value": CANARY, "identity_format": "sha256"}
            ]
        },
        "raw",
    ),
    "an invisible letter": (
        400,
        {
            "subject_identities": [
                {"identity_type": "controller_customer_id", "identity_value": f"{CANARY}\u200b", "identity_format": "raw"}
            ]
        },
        "U+200B",
    ),
    "plain http": (400, {"status_callback_urls": [f"http://public.example/{CANARY}"]}, "https"),
    "a private address": (400, {"status_callback_urls": ["https://private.example/"]}, "public internet"),
    "one of two private": (400, {"status_callback_urls": ["https://both.example/"]}, "public internet"),
    "no such host": (400, {"status_callback_urls": ["https://gone.example/"]}, "does not resolve"),
    "a port of mail": (400, {"status_callback_urls": ["https://public.example:25/"]}, "port"),
    "six callbacks": (400, {"status_callback_urls": ["https://public.example/"] * 6}, "at most 5"),
    "a callback with the name": (400, {"status_callback_urls": [f"https://public.example/?who={ANNA.upper()}"]}, "identity"),
    "a callback with a password": (400, {"status_callback_urls": ["https://a:b@public.example/"]}, "password"),
}


def test_bad_input_is_one_line_that_names_no_value(way: Doorway) -> None:
    token = way.token("acme", "submit", "read")
    for name, (code, change, part) in BAD.items():
        raw = change if isinstance(change, bytes) else json.dumps(a_request(ANNA, **change)).encode()
        answer = way.ask("POST", "/requests", token, content=raw, headers={"Content-Type": "application/json"})
        assert part in way.line(answer, code), name
        assert CANARY not in answer.text.lower(), name
    assert way.states == {}
    assert len(BAD) > 30


def test_content_that_is_declared_as_something_else_is_refused(way: Doorway) -> None:
    for header in ({"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}, {"Content-Type": ""}):
        whole = {"Content-Type": "application/json"} | header
        answer = way.ask("POST", "/requests", way.token("acme", "submit"), content=b"{}", headers=whole)
        assert "not supported" in way.line(answer, 415)


def test_method_that_is_not_for_the_address_is_refused(way: Doorway) -> None:
    for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "BREW", "GET"):
        answer = way.ask(method, "/requests", way.token("acme", "submit"))
        assert answer.status_code == 405
        assert answer.headers["Allow"] == "POST"


def test_address_that_is_none_is_told_without_being_repeated(way: Doorway) -> None:
    answer = way.ask("GET", f"/people/{CANARY}?{CANARY}")
    assert CANARY not in answer.text
    assert way.line(answer, 404)
    assert "UUID" in way.line(way.ask("GET", f"/requests/{CANARY}", way.token("acme", "read")), 400)


def unbuilt(way: Doorway, patch: pytest.MonkeyPatch) -> None:
    way.door.home.layout.sizes.unlink()
    (way.door.home.layout.root / "dvc.lock").unlink()


def misspelt(way: Doorway, patch: pytest.MonkeyPatch) -> None:
    way.door.home.layout.params.write_text("service: [")


def busy(way: Doorway, patch: pytest.MonkeyPatch) -> None:
    def receive(*_: Any) -> None:
        raise StepFailedError("the ledger was busy for 30 s; retry")

    patch.setattr(intake, "receive", receive)


def full(way: Doorway, patch: pytest.MonkeyPatch) -> None:
    def receive(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/people/{CANARY}")

    patch.setattr(intake, "receive", receive)


def open_file(way: Doorway, patch: pytest.MonkeyPatch) -> None:
    way.token("acme", "submit", "read")
    way.door.store.path.chmod(0o644)


@pytest.mark.parametrize("day", [unbuilt, misspelt, busy, full, open_file])
def test_on_a_bad_day_the_client_is_told_to_come_back_and_nothing_is_stored(
    way: Doorway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], day: Any
) -> None:
    way.token("acme", "submit", "read")
    day(way, monkeypatch)
    answer = way.send(a_request(ANNA))
    assert "retry later" in way.line(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert way.door.home.ledger.all() == []
    output = capsys.readouterr().err
    assert CANARY not in output + answer.text


def test_request_that_others_hold_up_is_received_and_taken_up_later(way: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BUSY", 0.01)
    with way.door._one:
        assert way.send(a_request(ANNA)).status_code == 201
        answer = way.ask("DELETE", f"/requests/{FIRST}", way.token("acme", "submit", "read"))
        assert "retry later" in way.line(answer, 503)
    assert way.states == {FIRST: "received"}
    take_up(way.door)
    assert way.states == {FIRST: "quarantined"}


def test_global_head_is_solved_after_the_answer_and_by_one_at_a_time(way: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, under_way = threading.Event(), list[str]()

    def slow(project: Any) -> None:
        under_way.append("begun")
        assert go_on.wait(30)

    monkeypatch.setattr("flows.door.requests.solve_newest", slow)
    for number in range(6):
        answer = way.send(a_request(ANNA, f"5eed0000-0000-4000-8000-00000000001{number}"))
        assert answer.status_code == 201
    assert len(under_way) <= 1
    go_on.set()
    assert way.web.portal
    way.web.portal.call(way.door.finish)
    assert 2 <= len(under_way) <= 3, "the one that was under way, one for all that came meanwhile, and who came after"


def test_stale_pipeline_keeps_the_request_received(way: Doorway, pipeline: FakePipeline) -> None:
    with (pipeline.root / "people" / "manifest.csv").open("a") as manifest:
        manifest.write("\n")
    assert way.send(a_request(NOBODY)).status_code == 201
    assert way.states == {FIRST: "received"}
    assert way.status()["request_status"] == "pending"


def test_fault_of_ours_is_contained(way: Doorway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: Any) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr(intake, "receive", fails)
    answer = way.send(a_request(ANNA))
    assert way.line(answer, 500)
    output = capsys.readouterr()
    assert CANARY not in output.err + output.out + answer.text
    assert "KeyError" in output.err


def test_openapi_names_every_route_with_its_refusals(way: Doorway) -> None:
    document = way.ask("GET", "/openapi.json").json()
    for route in ROUTES:
        told = document["paths"][route.path][route.method.lower()]["responses"]
        assert {str(code) for code in (route.code, 401, 403, 429, 503)} <= set(told)
        if route.body:
            schema = document["paths"][route.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
            assert "$ref" not in str(schema)
            assert schema["additionalProperties"] is False
            assert {"400", "408", "413", "415"} <= set(told)
    assert not [path for path in document["paths"] if path.startswith("/v2")]


def test_layout_of_the_file_is_private(way: Doorway) -> None:
    way.token("acme", "read")
    assert Path(way.door.store.path).stat().st_mode & 0o777 == 0o600
