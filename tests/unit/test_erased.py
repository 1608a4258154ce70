"""Erased people are recognised by keyed hashes for ever; without the right key nothing goes on."""

import hmac
import json
import tempfile
from pathlib import Path

import pytest
from builders import CANARY_SUBJECT, refused, write_json
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.erase.erased import (
    IMAGE,
    KEY_BYTES,
    KEY_VARIABLE,
    ErasedList,
    SubjectKey,
    SuppressionList,
    key_path,
    load_key,
    load_or_create_key,
)

KEY, OTHER = SubjectKey(b"k" * KEY_BYTES), SubjectKey(b"o" * KEY_BYTES)
NOBODY = ErasedList(None, frozenset())


def key_file(folder: Path, secret: bytes = KEY.secret, mode: int = 0o600) -> Path:
    path = folder / "subject.key"
    path.write_bytes(secret)
    path.chmod(mode)
    return path


def listed(*subjects: str) -> ErasedList:
    return NOBODY.add(map(KEY.pseudonym, subjects), KEY)


def test_pseudonym_is_a_function_of_key_and_subject_and_tells_neither() -> None:
    pseudonym = KEY.pseudonym(CANARY_SUBJECT)
    assert pseudonym == SubjectKey(KEY.secret).pseudonym(CANARY_SUBJECT)
    assert len({pseudonym, OTHER.pseudonym(CANARY_SUBJECT), KEY.pseudonym("ben")}) == 3
    assert len(pseudonym) == 64
    assert int(pseudonym, 16) >= 0


@given(st.binary(max_size=64), st.text(), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_pseudonym_is_what_anybody_gets_by_hmac(secret: bytes, subject: str, digest: str) -> None:
    key = SubjectKey(secret)
    for _ in range(2):  # what is kept of the key is not used up
        assert key.pseudonym(subject) == hmac.new(secret, b"subject\x1f" + subject.encode(), "sha256").hexdigest()
        assert key.image_pseudonym(digest) == IMAGE + hmac.new(secret, b"image\x1f" + digest.encode(), "sha256").hexdigest()


def test_key_never_shows_its_secret() -> None:
    secret = b"CANARY-secret-bytes-0123456789ab"
    key = SubjectKey(secret)
    assert len(secret) == KEY_BYTES
    for shown in (repr(key), str(key), f"{key}", key.id):
        assert "CANARY" not in shown
        assert secret.hex() not in shown
    assert KEY.id != OTHER.id


def test_erased_person_is_recognised_and_nobody_else(tmp_path: Path) -> None:
    suppression_list = SuppressionList(listed(CANARY_SUBJECT, "ben"), key_file(tmp_path))
    assert suppression_list.is_erased(CANARY_SUBJECT)
    assert suppression_list.is_erased("ben")
    assert not suppression_list.is_erased("cem")


def test_key_is_not_needed_while_nobody_is_erased(tmp_path: Path) -> None:
    assert not SuppressionList(NOBODY, tmp_path / "absent.key").is_erased("anna")


def test_missing_key_is_refused_once_somebody_is_erased(tmp_path: Path) -> None:
    assert "missing" in refused(ProjectError, lambda: SuppressionList(listed(CANARY_SUBJECT), tmp_path / "subject.key"))


def test_wrong_key_is_refused(tmp_path: Path) -> None:
    path = key_file(tmp_path, OTHER.secret)
    message = refused(ProjectError, lambda: SuppressionList(listed(CANARY_SUBJECT), path))
    assert KEY.id in message
    assert OTHER.id in message


def test_list_does_not_grow_by_another_key() -> None:
    refused(ProjectError, lambda: listed(CANARY_SUBJECT).add([OTHER.pseudonym("ben")], OTHER))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620])
def test_key_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = key_file(tmp_path, mode=mode)
    assert f"mode {mode:04o}, expected 0600" in refused(ProjectError, lambda: load_key(path))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_key_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    path = key_file(tmp_path, b"C" * length)
    assert f"has {length} bytes, expected 32" in refused(ProjectError, lambda: load_key(path))


def test_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "private" / "subject.key"
    made = load_or_create_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert load_or_create_key(path) == made
    assert load_or_create_key(tmp_path / "other.key") != made


def test_key_file_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_path(tmp_path) == tmp_path / "subject.key"
    monkeypatch.setenv(KEY_VARIABLE, "/elsewhere/key")
    assert key_path(tmp_path) == Path("/elsewhere/key")


def test_list_reads_back_sorted_and_without_names(tmp_path: Path) -> None:
    path = tmp_path / "data" / "erased.json"
    listed(CANARY_SUBJECT, "ben", "anna").write(path)
    assert ErasedList.read(path) == listed("anna", "ben", CANARY_SUBJECT)
    raw = json.loads(path.read_bytes())
    assert raw["subjects"] == sorted(raw["subjects"])
    assert "CANARY" not in path.read_text()


def test_bytes_of_the_list_do_not_depend_on_the_order_of_requests(tmp_path: Path) -> None:
    listed("anna").add([KEY.pseudonym("ben")], KEY).write(tmp_path / "one")
    listed("ben").add([KEY.pseudonym("anna")], KEY).add([KEY.pseudonym("ben")], KEY).write(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_list_of_the_repository_names_nobody() -> None:
    from builders import ROOT

    assert ErasedList.read(ROOT / "data" / "erased.json") == NOBODY


@pytest.mark.parametrize(
    "data", [b"", b"CANARY", b"[]", b"null", b"{}", b'{"key_id": null}', b'{"key_id": null, "subjects": null}', b"\xff\xfe"]
)
def test_damaged_list_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "erased.json"
    path.write_bytes(data)
    assert "damaged" in refused(ProjectError, lambda: ErasedList.read(path))


def test_missing_list_is_refused(tmp_path: Path) -> None:
    assert "missing" in refused(ProjectError, lambda: ErasedList.read(tmp_path / "erased.json"))


def test_list_without_its_key_id_is_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "erased.json", {"key_id": None, "subjects": [KEY.pseudonym(CANARY_SUBJECT)]})
    assert "no key_id" in refused(ProjectError, lambda: ErasedList.read(path))


@pytest.mark.parametrize(
    "subjects",
    [KEY.pseudonym("anna"), {"a": 1}, [1], ["not-a-pseudonym"], [KEY.pseudonym("anna")[:40]]],
    ids=lambda v: type(v).__name__,
)
def test_list_whose_entries_are_no_pseudonyms_is_refused(tmp_path: Path, subjects: object) -> None:
    path = write_json(tmp_path / "erased.json", {"key_id": KEY.id, "subjects": subjects})
    refused(ProjectError, lambda: ErasedList.read(path))


# the machine remembers


def branch(root: Path, listed_here: ErasedList) -> Layout:
    layout = Layout(root)
    layout.erased.parent.mkdir(exist_ok=True)
    listed_here.write(layout.erased)
    return layout


def test_who_was_erased_here_stays_out_on_every_branch(tmp_path: Path) -> None:
    layout = branch(tmp_path, NOBODY)
    layout.private_state.mkdir()
    key_file(layout.private_state)
    listed(CANARY_SUBJECT, "ben").keep(layout)
    assert ErasedList.read(layout.erased) == ErasedList.remembered(layout) == listed(CANARY_SUBJECT, "ben")
    branch(tmp_path, listed("ben", "cem"))  # git checkout: an older list, of which somebody else came to be
    suppression_list = SuppressionList.of(layout)
    names = (CANARY_SUBJECT, "ben", "cem", "dan")
    assert [name for name in names if suppression_list.is_erased(name)] == [
        CANARY_SUBJECT,
        "ben",
        "cem",
    ]
    assert layout.erased_memory.stat().st_mode & 0o777 == 0o600
    ErasedList.known(layout).keep(layout)
    assert ErasedList.read(layout.erased) == listed(CANARY_SUBJECT, "ben", "cem")


@given(st.lists(st.tuples(st.sampled_from(["erase", "checkout", "build"]), st.sets(st.sampled_from("abcdef"))), max_size=12))
def test_nobody_comes_back_whatever_branches_are_checked_out(steps: list[tuple[str, set[str]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = branch(Path(folder), NOBODY)
        layout.private_state.mkdir()
        key_file(layout.private_state)
        ever: set[str] = set()
        for step, people in steps:
            if step == "erase":
                ErasedList.known(layout).add(map(KEY.pseudonym, people), KEY).keep(layout)
                ever |= people
            elif step == "checkout":
                branch(Path(folder), listed(*people) if people else NOBODY)
            else:
                ErasedList.known(layout).remember(layout)
            suppression_list = SuppressionList.of(layout)
            assert all(suppression_list.is_erased(name) for name in ever)


def test_lists_of_two_keys_are_refused(tmp_path: Path) -> None:
    layout = branch(tmp_path, NOBODY.add([OTHER.pseudonym("ben")], OTHER))
    listed(CANARY_SUBJECT).remember(layout)
    assert OTHER.id in refused(ProjectError, lambda: ErasedList.known(layout))
    layout.erased_memory.write_bytes(b"CANARY")
    assert "backup" in refused(ProjectError, lambda: ErasedList.known(layout))
