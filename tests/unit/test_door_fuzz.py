"""Hundreds of requests drawn from the OpenAPI document: none fails the door, and none brings a name back."""

import itertools
from collections import Counter

import httpx
import pytest
from builders import png
from doorway import FIRST, SECOND, doorway
from fake_pipeline import CANARY, FakePipeline

from bench.door.fuzz import Fuzzer, Sent, fault
from flows.door.tokens import WINDOW, Failures
from lmeraser.core.digest import sha256

SUBJECTS = [f"{CANARY}-1", f"{CANARY}-nobody"]
IMAGES = [sha256(png(seed)) for seed in (20, 31, 100)]


def test_whatever_is_sent_is_answered_by_one_line_or_as_documented(
    pipeline: FakePipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    with pipeline.process() as project, doorway(project) as way:
        document = way.ask("GET", "/openapi.json").json()
        tokens = [
            way.token("acme", "submit", "read"),
            way.token("acme", "submit"),
            way.token("officer", "approve", "audit"),
            "nonsense",
        ]
        fuzzer = Fuzzer(document, 0, CANARY, [FIRST, SECOND, FIRST.upper()], tokens, SUBJECTS, IMAGES, ["one", "two"])
        way.door.failures = Failures(itertools.count(0.0, WINDOW / 5).__next__)
        codes: Counter[int] = Counter()
        for _ in range(600):
            sent = fuzzer.draw()
            answer = way.web.request(sent.method, sent.path, headers=sent.headers, content=sent.content)
            assert fault(sent, answer, CANARY) is None
            codes[answer.status_code] += 1
        assert {200, 201, 400, 401, 403, 404, 405, 409, 413, 415} <= set(codes), codes
        assert CANARY.encode() not in way.door.store.path.read_bytes()
    output = capsys.readouterr()
    assert CANARY not in output.out + output.err
    assert set(way.states) <= {FIRST, SECOND}


def test_fuzzer_notices_what_it_looks_for() -> None:
    sent = Sent("POST", "/requests", {}, b"{}")
    planted = {
        "status 500": httpx.Response(500, json={}),
        "canary": httpx.Response(200, json={"a": CANARY.upper()}),
        "without one line": httpx.Response(404, json={"detail": "x"}),
        "is not what was sent": httpx.Response(201, json={"encoded_request": "AAAA"}),
        "a canary in": httpx.Response(200, headers={"X-A": CANARY}),
    }
    for part, answer in planted.items():
        assert part in str(fault(sent, answer, CANARY))
    assert fault(sent, httpx.Response(201, json={"encoded_request": "e30="}), CANARY) is None
