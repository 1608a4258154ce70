"""Issuing: one certificate a request, in a chain that a crash cannot break and that nobody can shorten unseen."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders import CANARY_LABEL, CANARY_PATH, CANARY_SUBJECT, example_plan, refused
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from lmeraser.core.errors import VerificationError
from lmeraser.core.files import write_atomically
from lmeraser.erase.erased import KEY_BYTES, SubjectKey
from lmeraser.prove import certificate
from lmeraser.prove.absence import Tree
from lmeraser.prove.certificate import issue, read_chain, read_head
from lmeraser.prove.keys import known_key
from lmeraser.prove.statement import LIMITS, Check, Counts, Erasure, Store, check_content, make_statement
from lmeraser.prove.verify import CertificateError, verify_files

SUBJECTS = SubjectKey(b"k" * KEY_BYTES)
TREE = Tree(SUBJECTS.pseudonym(f"retained {number}") for number in range(50))
PLAN = example_plan(
    records_removed=12,
    records_retrained=96,
    records_total=960,
    clusters_total=9,
    parts=["p01"],
    slots_retrained=["c07", "c03"],
)


def signer(letter: bytes) -> CryptoSigner:
    private = Ed25519PrivateKey.from_private_bytes(letter * 32)
    return CryptoSigner(private, known_key(private.public_key()))


OLD, NEW = signer(b"1"), signer(b"2")
KEYS = [OLD.public_key, NEW.public_key]


def erasure(number: int = 1, subject: str = CANARY_SUBJECT) -> Erasure:
    return Erasure(
        project="0123456789abcdef",
        locks="1" * 64,
        erased_list="2" * 64,
        request_id=f"00000000-0000-4000-8000-{number:012}",
        pseudonyms=(SUBJECTS.pseudonym(subject),),
        subject_key_id=SUBJECTS.id,
        received_at="2026-01-01T00:00:00+00:00",
        completed_at="2026-01-01T00:00:09+00:00",
        plan=Counts.of(PLAN),
        batch_requests=1,
        served={"artifacts/head/head.safetensors": "a" * 64},
        changed={
            "artifacts/tune/c03.safetensors": ("b" * 32, "c" * 32),
            "artifacts/split/private": ("b" * 32 + ".dir", "c" * 32 + ".dir"),
            "artifacts/cluster": ("d" * 32 + ".dir", None),
        },
        unchanged=20,
        environment={"device": "cpu"},
        fingerprint="e" * 16,
        code_revision="none (no commit)",
        checks=(Check("no retained record belongs to the erased subjects", "960 records"),),
        stores=(Store("workspace", 3, 0),),
        absence=TREE.absence([SUBJECTS.pseudonym(subject)]),
        source="outside the project's control",
        approved=False,
        audit_key_id="f" * 64,
        rebuild_share=0,
    )


def chain_of(folder: Path, count: int) -> list[Path]:
    return [issue(folder, erasure(number), OLD, KEYS) for number in range(1, count + 1)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def payload(path: Path) -> bytes:
    return base64.b64decode(json.loads(path.read_bytes())["payload"])


def predicate(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(payload(path))["predicate"]
    return content


# what it says


def test_certificate_says_what_was_done_and_what_it_does_not_show(tmp_path: Path) -> None:
    content = predicate(issue(tmp_path, erasure(), OLD, KEYS))
    assert content["plan"] == {
        "records_removed": 12,
        "records_retrained": 96,
        "records_total": 960,
        "clusters_total": 9,
        "parts": ["p01"],
        "slots_retrained": ["c03", "c07"],
        "slots_emptied": [],
        "rebuild": False,
        "exact": True,
    }
    assert content["subjects"] == [SUBJECTS.pseudonym(CANARY_SUBJECT)]
    assert content["artifacts"]["artifacts/cluster"] == {"before": "d" * 32 + ".dir", "after": None}
    assert content["limits"] == list(LIMITS)
    assert (content["sequence"], content["previous"]) == (1, None)
    assert "break" not in content


def test_certificate_names_nobody(tmp_path: Path) -> None:
    people = (CANARY_SUBJECT, "CANARY-ben")
    pseudonyms = tuple(map(SUBJECTS.pseudonym, people))
    facts = replace(erasure(), pseudonyms=pseudonyms, absence=TREE.absence(pseudonyms))
    path = issue(tmp_path, facts, OLD, KEYS)
    assert b"CANARY" not in payload(path) + path.read_bytes() + path.name.encode()
    for name in people:
        assert name.encode().hex().encode() not in payload(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"pseudonyms": (CANARY_SUBJECT,)},
        {"pseudonyms": ()},
        {"request_id": CANARY_SUBJECT},
        {"subject_key_id": CANARY_SUBJECT},
        {"served": {"../CANARY": "a" * 64}},
        {"served": {f"/home/{CANARY_PATH}": "a" * 64}},
        {"served": {"artifacts/x": CANARY_LABEL}},
        {"served": {}},
        {"changed": {"artifacts/x": (CANARY_LABEL, None)}},
        {"changed": {"images of CANARY": (None, None)}},
        {"source": "CANARY\nsecond line"},
        {"source": "CANARY" * 100},
        {"received_at": "2026-01-01T00:00:00"},
        {"received_at": "2026-01-01T00:00:00+02:00"},
        {"completed_at": "2025-12-31T23:59:59+00:00"},
        {"checks": ()},
        {"limits": ()},
        {"stores": (Store("CANARY-remote", 1, 1),)},
        {"stores": ()},
        {"project": CANARY_SUBJECT},
        {"changed": {}},
        {"changed": {"artifacts/tune/c04.safetensors": ("b" * 32, "c" * 32)}},
        {"unchanged": -1},
        {"batch_requests": 0},
        {"approved": None},
        {"absence": TREE.absence([])},
        {"absence": TREE.absence([SUBJECTS.pseudonym("ben")])},
        {"absence": replace(TREE.absence([SUBJECTS.pseudonym(CANARY_SUBJECT)]), root="0" * 64)},
        {"audit_key_id": CANARY_SUBJECT},
        {"rebuild_share": True},
        {"plan": replace(Counts.of(PLAN), records_total=True)},
        {"plan": replace(Counts.of(PLAN), slots_retrained=("c 3 CANARY",))},
    ],
    ids=str,
)
def test_value_that_breaks_its_rule_is_not_signed(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(VerificationError, lambda: issue(tmp_path, replace(erasure(), **changes), OLD, KEYS))
    assert contents(tmp_path) == {}


def test_statement_that_is_made_obeys_its_rules() -> None:
    check_content(make_statement(erasure(), 1, None))
    refused(VerificationError, lambda: make_statement(erasure(), 1, "a" * 64))
    refused(VerificationError, lambda: make_statement(erasure(), 2, None))


def test_request_that_is_too_large_for_a_certificate_is_not_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate, "MAX_BYTES", 1000)
    assert "fewer people" in refused(VerificationError, lambda: issue(tmp_path, erasure(), OLD, KEYS))
    assert contents(tmp_path) == {}


def test_a_certificate_is_smaller_than_what_a_request_is_refused_by(tmp_path: Path) -> None:
    crowd = tuple(sorted(f"{number:064x}" for number in range(200)))
    path = issue(tmp_path, replace(erasure(), pseudonyms=crowd, absence=TREE.absence(crowd)), OLD, KEYS)
    assert len(path.read_bytes()) < certificate.largest(200, 2, 1) < 200 * certificate.largest(1, 2, 1)


# the chain


def test_each_certificate_names_the_one_before_and_head_the_last(tmp_path: Path) -> None:
    paths = chain_of(tmp_path, 3)
    chain = read_chain(tmp_path, KEYS)
    assert [certificate.sequence for certificate in chain] == [1, 2, 3]
    assert [certificate.previous for certificate in chain] == [None, chain[0].digest, chain[1].digest]
    assert read_head(tmp_path) == chain[-1].head
    assert [certificate.file for certificate in chain] == [path.name for path in paths]


def test_old_certificate_stays_valid_and_as_it_was_after_later_ones(tmp_path: Path) -> None:
    first = issue(tmp_path, erasure(1), OLD, KEYS[:1])
    before = first.read_bytes()
    issue(tmp_path, erasure(2), OLD, KEYS)
    issue(tmp_path, erasure(3), NEW, KEYS)
    assert first.read_bytes() == before
    assert verify_files([first], KEYS).certificates[0].sequence == 1


def test_same_request_gets_the_same_certificate_once(tmp_path: Path) -> None:
    paths = chain_of(tmp_path, 3)
    before = contents(tmp_path)
    later = replace(erasure(2), completed_at="2027-01-01T00:00:00+00:00")
    assert issue(tmp_path, later, OLD, KEYS) == paths[1]
    assert contents(tmp_path) == before


def test_same_request_about_other_subjects_is_refused(tmp_path: Path) -> None:
    chain_of(tmp_path, 1)
    assert "other subjects" in refused(VerificationError, lambda: issue(tmp_path, erasure(1, "ben"), OLD, KEYS))


def test_new_key_signs_a_break_that_names_the_old_key_and_head(tmp_path: Path) -> None:
    chain_of(tmp_path, 2)
    head = read_head(tmp_path)
    assert head is not None
    content = predicate(issue(tmp_path, erasure(3), NEW, KEYS))
    assert content["break"] == {
        "previous_key": OLD.public_key.keyid,
        "previous_head": head[1],
        "reason": "the signing key was replaced",
    }
    assert "break" not in predicate(issue(tmp_path, erasure(4), NEW, KEYS))


def test_replaced_key_cannot_go_on_signing(tmp_path: Path) -> None:
    chain_of(tmp_path, 1)
    issue(tmp_path, erasure(2), NEW, KEYS)
    assert "goes back" in refused(CertificateError, lambda: issue(tmp_path, erasure(3), OLD, KEYS))


# crashes


@pytest.mark.parametrize("done", [0, 1, 2])
@pytest.mark.parametrize("dies_at", [1, 2])
def test_crash_at_any_write_is_mended_by_the_next_call(
    tmp_path: Path, done: int, dies_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain_of(tmp_path / "whole", done + 1)
    chain_of(tmp_path / "crashed", done)
    writes: list[Path] = []

    def dies(path: Path, data: bytes) -> None:
        writes.append(path)
        if len(writes) == dies_at:
            raise KeyboardInterrupt
        write_atomically(path, data)

    monkeypatch.setattr(certificate, "write_atomically", dies)
    with pytest.raises(KeyboardInterrupt):
        issue(tmp_path / "crashed", erasure(done + 1), OLD, KEYS)
    monkeypatch.undo()
    expected = read_head(tmp_path / "crashed")  # the ledger knows what HEAD knew
    issue(tmp_path / "crashed", erasure(done + 1), OLD, KEYS, expected)
    assert contents(tmp_path / "crashed") == contents(tmp_path / "whole")


def test_crash_is_mended_by_the_next_request_too(tmp_path: Path) -> None:
    chain_of(tmp_path, 2)
    (tmp_path / "HEAD").write_text(f"1 {read_chain(tmp_path, KEYS)[0].digest}\n")
    issue(tmp_path, erasure(3), OLD, KEYS)
    assert read_head(tmp_path) == read_chain(tmp_path, KEYS)[2].head


# a chain that is not whole


def test_nothing_is_signed_onto_a_chain_that_is_not_whole(tmp_path: Path) -> None:
    paths = chain_of(tmp_path, 3)
    head = read_head(tmp_path)
    whole = contents(tmp_path)

    def spoil(name: str, data: bytes | None) -> str:
        for file, old in whole.items():
            (tmp_path / file).write_bytes(old)
        (tmp_path / name).unlink() if data is None else (tmp_path / name).write_bytes(data)
        before = contents(tmp_path)
        message = refused(VerificationError, lambda: issue(tmp_path, erasure(4), OLD, KEYS, head))
        assert contents(tmp_path) == before
        assert "nothing was signed" in message
        return message

    assert "the certificates before it are missing" in spoil(paths[0].name, None)
    assert "certificate 2 is missing between 1 and 3" in spoil(paths[1].name, None)
    assert "HEAD names certificate 3" in spoil(paths[2].name, None)
    assert "not JSON" in spoil(paths[1].name, b"CANARY")
    assert "HEAD is missing" in spoil("HEAD", None)
    assert "damaged" in spoil("HEAD", b"CANARY")
    assert "HEAD names certificate 3" in spoil("HEAD", b"3 " + b"0" * 64 + b"\n")
    assert "not JSON" in spoil("CANARY.json", b"CANARY")


def test_cut_tail_with_its_head_is_seen_by_what_the_ledger_knows(tmp_path: Path) -> None:
    paths = chain_of(tmp_path, 3)
    known = read_head(tmp_path)
    paths[2].unlink()
    (tmp_path / "HEAD").write_text(f"2 {read_chain(tmp_path, KEYS)[1].digest}\n")
    assert "the last certificate that the ledger knows is missing: number 3" in refused(
        VerificationError, lambda: issue(tmp_path, erasure(4), OLD, KEYS, known)
    )
    assert known
    everything_gone = tmp_path / "empty"
    refused(VerificationError, lambda: issue(everything_gone, erasure(4), OLD, KEYS, known))


def test_ledger_may_lag_behind_the_chain(tmp_path: Path) -> None:
    chain_of(tmp_path, 1)
    known = read_head(tmp_path)
    issue(tmp_path, erasure(2), OLD, KEYS)
    assert issue(tmp_path, erasure(3), OLD, KEYS, known).name.startswith("00003-")


def test_processes_that_issue_at_once_take_different_places(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: issue(tmp_path, erasure(number), OLD, KEYS), range(1, 17)))
    assert [certificate.sequence for certificate in read_chain(tmp_path, KEYS)] == list(range(1, 17))
