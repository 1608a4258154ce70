"""Which erasures are rebuilt at once: by the key alone, to be repeated by whoever has the ledger's events and the key."""

import hmac
import uuid
from hashlib import sha256
from pathlib import Path

import pytest
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError
from lmeraser.erase.ledger_events import LedgerEvent
from lmeraser.prove.selection import REBUILT, AuditKey, selection_of

KEY, OTHER = AuditKey(b"k" * 32), AuditKey(b"o" * 32)
IDS = [str(uuid.UUID(int=number, version=4)) for number in range(2000)]


def event(seq: int, request_id: str | None, kind: str, **data: object) -> LedgerEvent:
    return LedgerEvent(seq, request_id, "2026-01-01T00:00:00+00:00", kind, data, "", "")


def certified(request_id: str, key: AuditKey = KEY, share: int = 1) -> LedgerEvent:
    return event(1, request_id, "certified", sequence=1, audit_key_id=key.id, rebuild_share=share)


def rebuilt(request_id: str, equal: bool = True) -> LedgerEvent:
    return event(2, request_id, REBUILT, equal=equal, artifacts=32)


# the choice


@given(st.uuids(), st.integers(1, 50))
def test_an_auditor_repeats_the_choice_with_the_key_and_any_hmac(identity: uuid.UUID, share: int) -> None:
    drawn = int(hmac.new(KEY.secret, str(identity).encode(), sha256).hexdigest(), 16)
    assert KEY.chooses(str(identity), share) == (drawn % share == 0)


def test_about_one_request_of_the_share_is_chosen_and_the_key_decides_which() -> None:
    chosen = [identity for identity in IDS if KEY.chooses(identity, 20)]
    assert 60 < len(chosen) < 140
    assert chosen != [identity for identity in IDS if OTHER.chooses(identity, 20)]
    assert all(KEY.chooses(identity, 1) for identity in IDS[:50])
    assert not any(KEY.chooses(identity, 0) for identity in IDS)


def test_the_key_is_committed_to_and_never_shown() -> None:
    assert KEY.id == sha256(KEY.secret).hexdigest()
    assert "kkkk" not in repr(KEY)


# what events tell


def test_a_chosen_request_is_missing_until_its_result_is_there_and_the_last_result_counts() -> None:
    first, second = IDS[:2]
    events = [certified(first), certified(second)]
    assert selection_of(events, [KEY]).missing == (first, second)
    events += [rebuilt(first), rebuilt(second, equal=False)]
    selection = selection_of(events, [KEY])
    assert (selection.missing, selection.unequal, selection.complete) == ((), (second,), False)
    assert selection_of([*events, rebuilt(second)], [KEY]).complete
    assert not selection_of([*events, rebuilt(second), rebuilt(first, equal=False)], [KEY]).complete


HISTORIES = st.lists(
    st.tuples(st.sampled_from([KEY, OTHER]), st.integers(0, 3), st.sampled_from([None, True, False])), max_size=30
)


@given(HISTORIES, st.sets(st.sampled_from([KEY, OTHER]), min_size=1))
def test_a_selection_tells_of_each_request_what_the_rule_says(
    history: list[tuple[AuditKey, int, bool | None]], keys: set[AuditKey]
) -> None:
    events, expected = [], {"chosen": [], "missing": [], "unequal": [], "unjudged": []}  # type: ignore[var-annotated]
    for request_id, (key, share, result) in zip(IDS, history, strict=False):
        events.append(certified(request_id, key, share))
        if result is not None:
            events.append(rebuilt(request_id, result))
        if key not in keys:
            expected["unjudged"].append(request_id)
        elif key.chooses(request_id, share):
            expected["chosen"].append(request_id)
            expected["missing"] += [request_id] if result is None else []
            expected["unequal"] += [request_id] if result is False else []
    selection = selection_of(events, list(keys))
    for name in ("chosen", "missing", "unequal"):
        assert list(getattr(selection, name)) == expected[name]
    assert sum(selection.unjudged.values()) == len(expected["unjudged"])
    assert selection.complete == (not (expected["missing"] or expected["unequal"] or expected["unjudged"]))
    assert selection.certified == len(history) == sum(selection.shares.values())
    assert set(selection.keys) == {key.id for key, _, _ in history}


def test_certificates_of_before_there_was_a_choice_are_counted_apart() -> None:
    old = event(1, IDS[0], "certified", sequence=1, sha256="0" * 64, batch="b")
    selection = selection_of([old, certified(IDS[1]), rebuilt(IDS[1])], [KEY])
    assert (selection.without, selection.certified, selection.complete) == (1, 1, True)


# a copy of the key


@pytest.mark.parametrize("content", [None, b"", b"CANARY", b"k" * 33])
def test_a_key_that_is_none_is_refused_without_the_files_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "CANARY.key"
    if content is not None:
        path.write_bytes(content)
    assert "--key" in refused(BadInputError, lambda: AuditKey.read(path))
