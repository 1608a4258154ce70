"""Verifying: frozen vectors, each tampering with its own line; any flipped byte; a second opinion by OpenSSL; light and alone."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders import ROOT, refused
from hypothesis import given
from hypothesis import strategies as st

from flows.cli.command_line import make_parser
from lmeraser.core.digest import readable_json, sha256
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.prove.absence import Tree
from lmeraser.prove.home import Home
from lmeraser.prove.keys import load_public
from lmeraser.prove.verify import (
    MAX_BYTES,
    CertificateError,
    openssl_way,
    parse_head,
    verify_bytes,
    verify_files,
)

VECTORS = ROOT / "tests" / "vectors"
FORMATS = {1: VECTORS / "format1", 2: VECTORS / "format2", 3: VECTORS}
CASES: list[tuple[int, dict[str, Any]]] = [
    (version, case) for version, folder in FORMATS.items() for case in json.loads((folder / "index.json").read_bytes())
]
GOOD = sorted((VECTORS / "good").glob("*.json"))
KEYS = load_public(VECTORS / "keys.pem")
DOCS = (ROOT / "docs" / "certificate-format.md").read_text(encoding="utf-8")


def files_below(folder: Path) -> dict[str, bytes]:
    made = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in made.items() if not name.endswith((".py", ".pyc"))}


# vectors


@pytest.mark.parametrize(("version", "case"), CASES, ids=[f"{version}-{case['name']}" for version, case in CASES])
def test_vector_is_accepted_or_refused_with_its_own_line(version: int, case: dict[str, Any]) -> None:
    folder = FORMATS[version]
    paths = [folder / name for name in case["files"]]
    head = parse_head(case["head"]) if case["head"] else None

    def act() -> Any:
        return verify_files(paths, load_public(folder / case["keys"]), head)

    if case["error"] is not None:
        assert case["error"] in refused(CertificateError, act)
        return
    verdict = act()
    assert [certificate.file for certificate in verdict.certificates] == [path.name for path in paths]
    assert {certificate.version for certificate in verdict.certificates} == {version}
    assert verdict.anchored == (head is not None)
    assert verdict.chain == (verdict.certificates[0].sequence == 1)


def test_vectors_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    own = os.environ | {"PYTHONPATH": str(ROOT)}  # the code of this folder, whatever is installed
    subprocess.run([sys.executable, VECTORS / "make_vectors.py", tmp_path], check=True, env=own)
    kept = {name: data for name, data in files_below(VECTORS).items() if not name.startswith(("format1/", "format2/"))}
    assert files_below(tmp_path) == kept
    assert len(CASES) > 200


# tampering


@given(st.data())
def test_any_flipped_byte_is_refused_or_changes_nothing_that_is_said(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(GOOD))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= data.draw(st.integers(1, 255))
    sound = verify_bytes(whole, path.name, KEYS, "x")
    try:
        verdict = verify_bytes(bytes(flipped), path.name, KEYS, "x")
    except CertificateError:
        return
    assert verdict == sound  # white space between the fields of the envelope


def test_every_byte_of_payload_and_signature_counts() -> None:
    whole = GOOD[0].read_bytes()
    raw = json.loads(whole)
    for text in (raw["payload"], raw["signatures"][0]["sig"], raw["signatures"][0]["keyid"], raw["payloadType"]):
        start = whole.index(text.encode())
        for place in range(start, start + len(text), 7):
            flipped = bytearray(whole)
            flipped[place] ^= 1
            refused(CertificateError, lambda data=bytes(flipped): verify_bytes(data, GOOD[0].name, KEYS, "x"))  # type: ignore[misc]


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_with_one_line(data: bytes) -> None:
    refused(CertificateError, lambda: verify_bytes(data, "x", KEYS, "x"))


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b"9" * 10_000, b'{"payload": NaN}', b'"\\ud800"', b"1e999", '"a"'.encode("utf-16")],
    ids=lambda d: repr(d[:9]),
)
def test_hostile_json_is_refused_with_one_line(data: bytes) -> None:
    refused(CertificateError, lambda: verify_bytes(data, "x", KEYS, "x"))


# files and heads


def test_file_that_is_too_large_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "CANARY.json"
    large.write_bytes(b" " * (MAX_BYTES + 1))
    assert "more than" in refused(CertificateError, lambda: verify_files([large], KEYS))
    assert "certificate 2 of 2: there is no such file" in refused(
        BadInputError, lambda: verify_files([GOOD[0], tmp_path / "CANARY"], KEYS)
    )
    assert "cannot be read" in refused(BadInputError, lambda: verify_files([tmp_path], KEYS))
    refused(BadInputError, lambda: verify_files([], KEYS))


def test_head_is_read_from_text_or_file(tmp_path: Path) -> None:
    head = parse_head(str(VECTORS / "good" / "HEAD"))
    assert head[0] == 4
    assert parse_head(f"4:{head[1]}") == parse_head(f"00004:{head[1]}") == head
    (tmp_path / "HEAD").write_text("CANARY")
    assert "damaged" in refused(BadInputError, lambda: parse_head(str(tmp_path / "HEAD")))
    for text in ("CANARY", "4", f"0:{head[1]}", f"4:{head[1][:-1]}", "\0"):
        refused(BadInputError, lambda text=text: parse_head(text))  # type: ignore[misc]


def project_of(root: Path, project: str | None = "5eed000000000001", count: int = 4) -> list[Path]:
    """A project's folder with the first certificates of the good chain, their HEAD and keys."""
    (root / "data").mkdir(parents=True)
    (root / "certificates").mkdir()
    (root / "data" / "certificate-keys.pem").write_bytes((VECTORS / "keys.pem").read_bytes())
    if project:
        (root / "data" / "project-id").write_text(f"{project}\n")
    for path in GOOD[:count]:
        (root / "certificates" / path.name).write_bytes(path.read_bytes())
    last = verify_files(GOOD[:count], KEYS).certificates[-1]
    (root / "certificates" / "HEAD").write_text(f"{last.sequence} {last.digest}\n")
    return sorted((root / "certificates").glob("*.json"))


def test_keys_are_taken_from_nowhere_but_the_certificates_project(tmp_path: Path) -> None:
    paths = project_of(tmp_path / "project")
    assert Home.of(paths).keys == (tmp_path / "project" / "data" / "certificate-keys.pem").resolve()
    astray = tmp_path / "project" / "inbox" / GOOD[0].name  # someone else's, put below the project's folder
    deeper = tmp_path / "project" / "certificates" / "old" / GOOD[0].name
    for path in (astray, deeper):
        path.parent.mkdir()
        path.write_bytes(GOOD[0].read_bytes())
        refused(ProjectError, lambda path=path: run("verify", path))  # type: ignore[misc]
    refused(BadInputError, lambda: run("verify", paths[0], project_of(tmp_path / "other")[1]))


def test_certificate_of_another_project_is_refused_beside_these_keys(tmp_path: Path) -> None:
    paths = project_of(tmp_path, "5eed00000000000f")
    assert "expected 5eed00000000000f" in refused(CertificateError, lambda: run("verify", *paths))
    (tmp_path / "data" / "project-id").write_text("CANARY")
    refused(ProjectError, lambda: run("verify", *paths))
    (tmp_path / "data" / "project-id").unlink()  # made before there were ids
    assert run("verify", *paths)[0]["valid"]


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_newest_certificates_that_were_taken_away_are_missed_by_head(tmp_path: Path, taken: int) -> None:
    paths = project_of(tmp_path)
    for path in paths[-taken:]:
        path.unlink()
    left = paths[:-taken]
    assert "HEAD names certificate 4, which is missing" in refused(CertificateError, lambda: run("verify", *left))
    keys = ("--key", VECTORS / "keys.pem")
    assert "which is missing" in refused(CertificateError, lambda: run("verify", *left, *keys))
    (tmp_path / "certificates" / "HEAD").unlink()
    assert run("verify", *left, *keys)[0]["valid"]  # a copy without its HEAD: nobody can tell
    if len(left) > 1:
        assert "HEAD is missing" in refused(CertificateError, lambda: run("verify", *left))


def test_hole_in_the_chain_is_seen_whichever_certificate_is_asked_about(tmp_path: Path) -> None:
    paths = project_of(tmp_path)
    paths[1].unlink()
    assert "certificate 2 is missing" in refused(CertificateError, lambda: run("verify", paths[3]))


def test_head_of_another_chain_is_refused(tmp_path: Path) -> None:
    paths = project_of(tmp_path)
    (tmp_path / "certificates" / "HEAD").write_text(f"4 {'0' * 64}\n")
    assert "this one has" in refused(CertificateError, lambda: run("verify", *paths))
    (tmp_path / "certificates" / "HEAD").write_text("CANARY")
    refused(BadInputError, lambda: run("verify", *paths))


def test_verify_says_which_format_an_old_certificate_is_of() -> None:
    old = FORMATS[1]
    answer, lines = run("verify", *sorted((old / "good").glob("*.json")), "--key", old / "keys.pem")
    assert [certificate["format"] for certificate in answer["certificates"]] == [1, 1, 1, 1]
    assert all("format 1" in line and "which project" in line for line in lines[:4])
    second = FORMATS[2]
    answer, lines = run("verify", *sorted((second / "good").glob("*.json")), "--key", second / "keys.pem")
    assert all("format 2: it proves nobody absent" in line and "which project" not in line for line in lines[:4])
    assert {certificate["people_root"] for certificate in answer["certificates"]} == {None}
    new = run("verify", *GOOD, "--key", VECTORS / "keys.pem")[0]["certificates"]
    assert [certificate["format"] for certificate in new] == [3, 3, 3, 3]


# OpenSSL


def by_openssl(path: Path, folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    script = "\n".join(openssl_way(path, VECTORS / "keys.pem", number))
    return subprocess.run(["sh", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def test_openssl_accepts_each_certificate_under_its_own_key_alone(tmp_path: Path) -> None:
    for path, number in zip(GOOD, (1, 1, 2, 2), strict=True):
        done = by_openssl(path, tmp_path, number)
        assert done.returncode == 0, done.stderr
        assert "Verified Successfully" in done.stdout
        assert KEYS[number - 1].keyid in done.stdout
        assert (tmp_path / "certificate.json").read_bytes() == base64.b64decode(json.loads(path.read_bytes())["payload"])
    assert by_openssl(GOOD[0], tmp_path, 2).returncode != 0


@pytest.mark.parametrize("name", ["payload-one-bit", "signature-one-bit"])
def test_openssl_refuses_one_changed_bit(tmp_path: Path, name: str) -> None:
    done = by_openssl(next((VECTORS / "bad" / name).iterdir()), tmp_path, 1)
    assert done.returncode != 0
    assert "Successfully" not in done.stdout


# the commands


def run(*words: object) -> tuple[dict[str, Any], list[str]]:
    options = make_parser().parse_args(list(map(str, words)))
    answer: tuple[dict[str, Any], list[str]] = options.act(options)
    return answer


def test_verify_tells_what_it_checked_and_what_it_did_not() -> None:
    answer, lines = run("verify", *GOOD, "--key", VECTORS / "keys.pem")
    assert answer["valid"] is True
    assert [certificate["sequence"] for certificate in answer["certificates"]] == [1, 2, 3, 4]
    assert [certificate["key_changed"] for certificate in answer["certificates"]] == [False, False, True, False]
    assert (answer["chain"], answer["anchored"]) == (True, False)
    assert {certificate["people_root"] for certificate in answer["certificates"]} == {root_of_the_vectors()}
    assert all("1 people absent from the retained ones" in line for line in lines[:4])
    assert answer["keys"] == [key.keyid for key in KEYS]
    assert any("not anchored" in line for line in lines)
    assert lines[-1] == f"- {answer['limits'][-1]}"
    anchored, _ = run("verify", *GOOD, "--key", VECTORS / "keys.pem", "--head", VECTORS / "good" / "HEAD")
    assert anchored["anchored"] is True


def root_of_the_vectors() -> str:
    return Tree(sha256(f"retained {number}".encode()) for number in range(100)).root()


def test_verify_takes_the_keys_of_the_project_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "certificate-keys.pem").write_bytes((VECTORS / "keys.pem").read_bytes())
    certificate = tmp_path / "certificates" / GOOD[0].name
    certificate.parent.mkdir()
    certificate.write_bytes(GOOD[0].read_bytes())
    answer, lines = run("verify", certificate)
    assert answer["keys_from"] == "data/certificate-keys.pem beside the certificates"
    assert any("compare their ids" in line for line in lines)
    refused(ProjectError, lambda: run("verify", GOOD[0]))


def test_verify_prints_the_way_of_openssl() -> None:
    _, lines = run("verify", GOOD[2], "--key", VECTORS / "keys.pem", "--openssl")
    assert set(openssl_way(GOOD[2], VECTORS / "keys.pem", 2)) <= set(lines)


def test_keys_are_made_shown_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LMERASER_SIGNING_KEY_FILE", raising=False)
    monkeypatch.delenv("LMERASER_PROJECT", raising=False)
    refused(ProjectError, lambda: run("keys", "show"))
    first = run("keys", "init")[0]["key"]
    assert run("keys", "show")[0] == {"keys": [first], "can_sign": True, "problem": None}
    refused(ProjectError, lambda: run("keys", "init"))
    refused(BadInputError, lambda: run("keys", "show", "--replace"))
    second = run("keys", "init", "--replace")[0]["key"]
    (tmp_path / ".lmeraser" / "certificate.key").unlink()
    answer, lines = run("keys", "show")
    assert answer["keys"] == [first, second]
    assert answer["can_sign"] is False
    assert "missing" in lines[-1]


def test_verifying_imports_nothing_of_learning_or_the_engine() -> None:
    heavy = ("torch", "numpy", "prefect", "dvc", "great_expectations", "sqlalchemy", "lmeraser.learn")
    words = ["verify", *map(str, GOOD), "--key", str(VECTORS / "keys.pem")]
    script = f"""
import sys
from flows.cli.command_line import make_parser
options = make_parser().parse_args({words!r})
print(options.act(options)[0]["valid"], [name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "True []", done.stderr


# docs


def test_worked_example_of_the_docs_is_the_third_vector() -> None:
    raw = json.loads(GOOD[2].read_bytes())
    assert readable_json(json.loads(base64.b64decode(raw["payload"]))).decode() in DOCS


def test_way_of_openssl_in_the_docs_is_the_one_that_is_tested() -> None:
    shown = openssl_way(Path(f"certificates/{GOOD[0].name}"))
    assert "\n".join(shown) in DOCS
