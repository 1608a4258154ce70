"""Frozen certificates: a good chain and ways to tamper with it, with the line that each must be refused with.

    python tests/vectors/make_vectors.py [FOLDER]      writes keys.pem, the chains and index.json

TEST KEYS ONLY: the private keys are made from the fixed seeds below, which anybody can read. Ed25519 is deterministic, so the
same code gives the same bytes; a test makes all files again and compares them. They stay as they are while format 3 is read:
if they change, certificates that were issued before may no longer verify. `format1/` and `format2/` hold the vectors of formats
before: they cannot be made again, and are verified as they are. A line that a newer version refuses one with is mended there.
"""

import base64
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from lmeraser.core.digest import readable_json, sha256
from lmeraser.prove.absence import NOBODY, Tree, position_of
from lmeraser.prove.certificate import issue, sign
from lmeraser.prove.keys import known_key, public_pem
from lmeraser.prove.statement import Check, Counts, Erasure, Store, make_statement, payload_of
from lmeraser.prove.verify import PAYLOAD_TYPE, file_name

SEEDS = {  # TEST ONLY: whoever reads this file can sign with them
    "first": b"lmeraser: TEST ONLY, first key..",
    "second": b"lmeraser: TEST ONLY, second key.",
    "foreign": b"lmeraser: TEST ONLY, foreign key",
}
PRIVATE = {name: Ed25519PrivateKey.from_private_bytes(seed) for name, seed in SEEDS.items()}
SIGNERS = {name: CryptoSigner(key, known_key(key.public_key())) for name, key in PRIVATE.items()}
KNOWN = [SIGNERS["first"].public_key, SIGNERS["second"].public_key]
LIMITS = ("These limits are part of the test vector and stay as they are.",)  # not the program's own, which may be reworded

RETAINED = [sha256(f"retained {number}".encode()) for number in range(100)]

PROJECT, OTHER_PROJECT = "5eed000000000001", "5eed000000000002"

Files = dict[str, bytes]


def erasure(number: int) -> Erasure:
    """The facts of a made-up erasure."""
    names = ("artifacts/head/head.safetensors", "artifacts/tune/c03.safetensors")
    served = {name: sha256(f"{name} after {number}".encode()) for name in names}
    return Erasure(
        project=PROJECT,
        request_id=f"5eed0000-0000-4000-8000-{number:012}",
        pseudonyms=(sha256(f"pseudonym {number}".encode()),),
        subject_key_id="0123456789abcdef",
        locks=sha256(f"locks {number}".encode()),
        erased_list=sha256(f"list {number}".encode()),
        received_at=f"2026-03-0{number}T09:00:00+00:00",
        completed_at=f"2026-03-0{number}T09:00:07+00:00",
        plan=Counts(12, 96, 960, 9, ("p01",), ("c03",), ("c09",), rebuild=False, exact=True),
        batch_requests=1,
        served=served,
        changed={
            "artifacts/cluster": (f"{number:032x}.dir", f"{number + 1:032x}.dir"),
            "artifacts/embed/p01": (f"{number:032x}.dir", f"{number + 1:032x}.dir"),
            "artifacts/split/private": (f"{number:032x}.dir", f"{number + 1:032x}.dir"),
            "artifacts/tune/c03.safetensors": (f"{number:032x}", f"{number + 1:032x}"),
            "artifacts/tune/c09.safetensors": (None, f"{number:032x}"),
        },
        unchanged=23,
        environment={"device": "cpu", "processor": "made up", "torch": "2.14.0"},
        fingerprint="fedcba9876543210",
        code_revision="0" * 40,
        checks=(Check("no retained record belongs to the erased subjects", "960 records"),),
        stores=(Store("workspace", 14, 0), Store("DVC cache", 31, 0), Store("remote backup", 9, 0, unknown=2)),
        absence=Tree(RETAINED).absence([sha256(f"pseudonym {number}".encode())]),
        source="erased: the rows and files of the source go too",
        approved=False,
        audit_key_id=sha256(b"lmeraser: TEST ONLY, audit key.."),
        rebuild_share=20,
        limits=LIMITS,
    )


def good(folder: Path) -> Files:
    """Four certificates; the key was replaced before the third."""
    for number, signer in enumerate(("first", "first", "second", "second"), start=1):
        issue(folder, erasure(number), SIGNERS[signer], KNOWN)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def signed(payload: bytes, signer: str = "first", payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Any bytes in a properly signed envelope."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(SIGNERS[signer])
    return readable_json(envelope.to_dict())


def changed_base64(text: str) -> str:
    """The same bytes but for one bit."""
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


def spelt_otherwise(text: str) -> str:
    """The same bytes in base64 that sets the unused bits before the padding."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert text.endswith("==")  # a signature has 64 bytes
    return text[:-3] + letters[letters.index(text[-3]) + 1] + "=="


def edited(data: bytes, edit: Callable[[Any], None]) -> bytes:
    raw = json.loads(data)
    edit(raw)
    return readable_json(raw)


def statement_with(edit: Callable[[Any], None], signer: str = "first", number: int = 1, previous: str | None = None) -> bytes:
    """A certificate whose statement was edited before it was signed: the signature is good, the content is not."""
    statement = make_statement(erasure(number), number, previous, None)
    edit(statement)
    return signed(payload_of(statement), signer)


def as_it_is(_: Any) -> None:
    """No edit."""


def proof(absence: Any) -> Any:
    """The only proof of a first certificate. It ends at a neighbour."""
    return absence["proofs"][0]


def nobody_listed(absence: Any) -> None:
    proof(absence)["bitmap"] = "1" + proof(absence)["bitmap"]
    proof(absence)["siblings"].insert(0, NOBODY.hex())


def neighbour_is_the_person(absence: Any) -> None:
    proof(absence)["neighbour"] = f"{position_of(proof(absence)['subject']):064x}"


def neighbour_elsewhere(absence: Any) -> None:
    proof(absence)["neighbour"] = f"{position_of(proof(absence)['subject']) ^ 1 << 255:064x}"


def other_neighbour(absence: Any) -> None:
    proof(absence)["neighbour"] = f"{position_of(proof(absence)['subject']) ^ 1:064x}"


def digest_of(data: bytes) -> str:
    return sha256(base64.b64decode(json.loads(data)["payload"]))


def single(first: bytes) -> dict[str, tuple[bytes, str]]:
    """Ways to spoil the first certificate: name to (bytes, what the refusal says)."""

    def envelope(edit: Callable[[Any], None]) -> bytes:
        return edited(first, edit)

    payload = base64.b64decode(json.loads(first)["payload"])
    twice = payload.replace(b'"approved":false,', b'"approved":true,"approved":false,', 1)

    def predicate(name: str, value: object) -> bytes:
        return statement_with(lambda s: s["predicate"].update({name: value}))

    def artifact(path: str, before: str | None = None) -> bytes:
        return statement_with(lambda s: s["predicate"]["artifacts"].update({path: {"before": before, "after": "0" * 32}}))

    def absence(edit: Callable[[Any], None]) -> bytes:
        return statement_with(lambda s: edit(s["predicate"]["absence"]))

    def without(path: str) -> bytes:
        return statement_with(lambda s: s["predicate"]["artifacts"].pop(path))

    return {
        "payload-one-bit": (envelope(lambda e: e.update(payload=changed_base64(e["payload"]))), "signature does not fit"),
        "signature-one-bit": (
            envelope(lambda e: e["signatures"][0].update(sig=changed_base64(e["signatures"][0]["sig"]))),
            "signature does not fit",
        ),
        "payload-not-base64": (envelope(lambda e: e.update(payload="*" + e["payload"][1:])), "not standard base64"),
        "payload-other-base64": (envelope(lambda e: e.update(payload=e["payload"] + "\n")), "not standard base64"),
        "signature-other-base64": (
            envelope(lambda e: e["signatures"][0].update(sig=spelt_otherwise(e["signatures"][0]["sig"]))),
            "not standard base64",
        ),
        "foreign-key": (statement_with(as_it_is, "foreign"), "known here"),
        "foreign-key-claims-ours": (
            edited(
                statement_with(as_it_is, "foreign"),
                lambda e: e["signatures"][0].update(keyid=SIGNERS["first"].public_key.keyid),
            ),
            "signature does not fit",
        ),
        "signed-as-something-else": (signed(payload, payload_type="text/plain"), "payload type is not"),
        "payload-type-changed": (envelope(lambda e: e.update(payloadType="text/plain")), "payload type is not"),
        "two-signatures": (envelope(lambda e: e["signatures"].append(e["signatures"][0])), "no DSSE envelope"),
        "no-signature": (envelope(lambda e: e.update(signatures=[])), "no DSSE envelope"),
        "unsigned-statement": (payload, "no DSSE envelope"),
        "name-twice-in-envelope": (first.replace(b'{\n', b'{\n  "payload": "e30=",\n', 1), "a name twice"),
        "name-twice-in-payload": (signed(twice), "a name twice"),
        "not-json": (first[:-20], "not JSON"),
        "empty": (b"", "not JSON"),
        "payload-not-canonical": (signed(payload.rstrip(b"\n")), "not canonical"),
        "payload-not-json": (signed(b"erased, honestly\n"), "payload is not JSON"),
        "statement-type": (statement_with(lambda s: s.update(_type="https://in-toto.io/Statement/v0.1")), "not of type"),
        "statement-field": (statement_with(lambda s: s.update(note="more")), "does not have"),
        "predicate-type": (statement_with(lambda s: s.update(predicateType="https://slsa.dev/provenance/v1")), "something else"),
        "no-files": (statement_with(lambda s: s.update(subject=[])), "subject is empty"),
        "format-4": (predicate("format", 4), "format is none of those known here (1, 2, 3)"),
        "format-1-with-fields-of-3": (predicate("format", 1), "fields that format 1 does not have"),
        "format-2-with-fields-of-3": (predicate("format", 2), "3 fields that format 2 does not have"),
        "unknown-field": (predicate("name", "more"), "1 fields that format 3 does not have"),
        "missing-field": (statement_with(lambda s: s["predicate"].pop("source")), "has no source"),
        "no-checks": (predicate("checks", []), "predicate.checks is empty"),
        "no-stores": (predicate("stores", []), "predicate.stores is empty"),
        "no-images": (predicate("images", []), "predicate.images is empty"),
        "image-in-clear": (predicate("images", ["photos/0001.jpg"]), "predicate.images 1 is not 64 hex digits"),
        "no-corrections": (predicate("rectified", []), "predicate.rectified is empty"),
        "label-in-clear": (predicate("rectified", ["cat"]), "predicate.rectified 1 is not five keyed hashes"),
        "residue": (predicate("stores", [{"store": "remote", "deleted": 1, "residue": 1, "unknown": 0}]), "still found"),
        "slot-that-was-not-planned": (artifact("artifacts/tune/c04.safetensors"), "changed, and predicate.plan does not name it"),
        "part-that-was-not-planned": (artifact("artifacts/embed/p02"), "changed, and predicate.plan does not name it"),
        "backbone-without-a-rebuild": (artifact("artifacts/pretrain/backbone.safetensors"), "predicate.plan does not name it"),
        "file-of-nobody": (artifact("artifacts/extra.bin"), "predicate.plan does not name it"),
        "artifact-that-did-not-change": (artifact("metrics/metrics.json", "0" * 32), "lists something that did not change"),
        "no-part-changed": (without("artifacts/split/private"), "says that no part changed"),
        "no-cluster-changed": (without("artifacts/cluster"), "says that no cluster changed"),
        "name-for-project": (predicate("project", "anna's"), "predicate.project is not 16 hex digits"),
        "name-for-pseudonym": (predicate("subjects", ["anna"]), "predicate.subjects 1 is not 64 hex digits"),
        "ends-before-it-begins": (predicate("completed_at", "2026-03-01T08:59:59+00:00"), "before received_at"),
        "first-with-previous": (predicate("previous", "0" * 64), "does not fit predicate.sequence"),
        "no-proof-of-absence": (absence(lambda a: a.update(proofs=[])), "its people are not those of predicate.subjects"),
        "proof-of-another-person": (absence(lambda a: proof(a).update(subject="0" * 64)), "not those of predicate.subjects"),
        "proof-twice": (absence(lambda a: a["proofs"].append(proof(a))), "its people are not those of predicate.subjects"),
        "other-root": (absence(lambda a: a.update(root="0" * 64)), "proof 1 of 1 does not lead to the root"),
        "name-for-root": (absence(lambda a: a.update(root="anna")), "predicate.absence.root is not 64 hex digits"),
        "sibling-changed": (absence(lambda a: proof(a)["siblings"].__setitem__(0, "0" * 64)), "does not lead to the root"),
        "siblings-swapped": (absence(lambda a: proof(a)["siblings"].reverse()), "does not lead to the root"),
        "sibling-missing": (absence(lambda a: proof(a)["siblings"].pop()), "its bitmap does not fit its siblings"),
        "bitmap-cut": (absence(lambda a: proof(a).update(bitmap=proof(a)["bitmap"][:-1])), "its bitmap does not fit"),
        "bitmap-longer": (absence(lambda a: proof(a).update(bitmap=proof(a)["bitmap"] + "0")), "at most one person is left"),
        "bitmap-not-bits": (absence(lambda a: proof(a).update(bitmap="2")), "bitmap is not a text of 0 and 1"),
        "sibling-that-is-nobody": (absence(nobody_listed), "it lists a sibling that is nobody"),
        "neighbour-that-is-the-person": (absence(neighbour_is_the_person), "it ends at the person"),
        "neighbour-elsewhere": (absence(neighbour_elsewhere), "its neighbour stands elsewhere"),
        "other-neighbour": (absence(other_neighbour), "does not lead to the root"),
        "neighbour-hidden": (absence(lambda a: proof(a).update(neighbour=None)), "does not lead to the root"),
        "name-for-audit-key": (predicate("audit_key_id", "key"), "predicate.audit_key_id is not 64 hex digits"),
        "share-that-is-none": (predicate("rebuild_share", -1), "predicate.rebuild_share is not a whole number"),
        "terminal-escape": (predicate("source", "\x1b[2Jall good"), "printable line"),
    }  # fmt: skip


def chains(files: Files) -> dict[str, tuple[Files, str]]:
    """Ways to spoil the order: name to (files in the order given, what the refusal says)."""
    names = sorted(name for name in files if name.endswith(".json"))
    one, two, three, four = ({name: files[name]} for name in names)
    second = next(iter(two))
    loose = {second: statement_with(as_it_is, number=2, previous="0" * 64)}
    before = digest_of(files[names[0]])
    sudden = {second: statement_with(as_it_is, "second", 2, before)}
    broken = {"previous_key": SIGNERS["foreign"].public_key.keyid, "previous_head": before, "reason": "lost"}
    false = {second: statement_with(lambda s: s["predicate"].update({"break": broken}), "second", 2, before)}
    needless = {**broken, "previous_key": KNOWN[0].keyid}
    same = {second: statement_with(lambda s: s["predicate"].update({"break": needless}), "first", 2, before)}
    astray = {**needless, "previous_head": "0" * 64}
    elsewhere = {second: statement_with(lambda s: s["predicate"].update({"break": astray}), "second", 2, before)}
    last = digest_of(files[names[3]])
    fifth = make_statement(erasure(5), 5, last)
    fifth["predicate"]["break"] = {"previous_key": KNOWN[1].keyid, "previous_head": last, "reason": "back again"}
    back = {file_name(5, erasure(5).request_id): signed(payload_of(fifth), "first")}
    elsewhere_made = {second: statement_with(lambda s: s["predicate"].update(project=OTHER_PROJECT), number=2, previous=before)}
    once_more = sign(make_statement(replace(erasure(1), completed_at="2026-03-02T09:00:07+00:00"), 2, before), SIGNERS["first"])
    twice = {file_name(2, erasure(1).request_id): once_more}
    again = {file_name(2, erasure(1).request_id): sign(make_statement(erasure(1), 2, before), SIGNERS["first"])}
    return {
        "middle-removed": (one | three, "certificate 2 is missing between 1 and 3"),
        "two-removed": (one | four, "certificates 2 to 3 are missing between 1 and 4"),
        "swapped": (one | three | two, "certificate 3 stands before 2"),
        "swapped-pair": (two | one, "certificate 2 stands before 1"),
        "last-pair-swapped": (one | two | four | three, "certificate 4 stands before 3"),
        "swapped-at-the-end": (three | two, "certificate 3 stands before 2"),
        "reversed": (four | three | two | one, "certificate 4 stands before 3"),
        "two-of-one-place": (one | two | again, "two claim the same place"),
        "renamed-sequence": ({names[0].replace("00001", "00007", 1): files[names[0]]}, "give the file that name again"),
        "renamed-request": ({names[1].replace("0002.", "0009."): files[names[1]]}, "give the file that name again"),
        "renamed-freely": ({"mine.json": files[names[0]]}, "certificate 1 of 1: its content is certificate 00001"),
        "other-project": (one | elsewhere_made, "is of project 5eed000000000002, expected 5eed000000000001"),
        "two-for-one-request": (one | twice, "certificates 1 and 2 are both for request"),
        "other-chain": (one | loose, "does not name certificate 1"),
        "key-changed-without-break": (one | sudden, "without a signed break"),
        "break-with-another-key": (one | false, "breaks with key"),
        "break-with-the-same-key": (one | same, "it says that the key changed, but both keys are"),
        "break-from-another-head": (one | elsewhere, "previous_head is not predicate.previous"),
        "back-to-the-replaced-key": (four | back, "goes back to key"),
    }


def write(folder: Path) -> None:
    """Everything into a folder; what was made there before goes."""
    with tempfile.TemporaryDirectory() as scratch:
        files = good(Path(scratch))
    pems = {name: public_pem(key.public_key()) for name, key in PRIVATE.items()}
    for made in ("good", "bad"):  # format1 and format2 stay
        shutil.rmtree(folder / made, ignore_errors=True)
    (folder / "good").mkdir(parents=True)
    (folder / "keys.pem").write_bytes(pems["first"] + pems["second"])
    (folder / "keys-second.pem").write_bytes(pems["second"])
    (folder / "keys-foreign.pem").write_bytes(pems["foreign"])
    for name, data in files.items():
        (folder / "good" / name).write_bytes(data)
    names = [name for name in files if name.endswith(".json")]
    paths = [f"good/{name}" for name in names]
    head = files["HEAD"].decode().strip().replace(" ", ":")
    other_head = f"4:{'0' * 64}"

    def case(name: str, given: list[str], error: str | None, keys: str = "keys.pem", head: str | None = None) -> dict[str, Any]:
        return {"name": name, "files": given, "keys": keys, "head": head, "error": error}

    cases = [
        case("whole-chain", paths, None),
        case("whole-chain-anchored", paths, None, head=head),
        case("one-alone", paths[:1], None),
        case("break-alone-with-the-new-key", paths[2:], None, keys="keys-second.pem", head=head),
        case("wrong-key", paths[:1], "known here", keys="keys-foreign.pem"),
        case("old-key-not-listed", paths, "known here", keys="keys-second.pem"),
        case("cut-tail", paths[:3], "the newest are missing", head=head),
        case("beyond-the-head", paths, "take a newer head", head=f"3:{digest_of(files[names[2]])}"),
        case("other-head", paths, "but the head says", head=other_head),
    ]
    bad: dict[str, tuple[Files, str]] = {name: ({names[0]: data}, line) for name, (data, line) in single(files[names[0]]).items()}
    for name, (given, line) in (bad | chains(files)).items():
        (folder / "bad" / name).mkdir(parents=True)
        for file, data in given.items():
            (folder / "bad" / name / file).write_bytes(data)
        cases.append(case(name, [f"bad/{name}/{file}" for file in given], line))
    (folder / "index.json").write_bytes(readable_json(cases))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
