"""Tokens: shown once, kept as a keyed hash, ended when they shall end."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_pipeline import FakePipeline

from flows.door import tokens
from flows.door.store import Store
from flows.door.tokens import ADDRESSES, FAILURES, WINDOW, Client, Failures
from lmeraser.core.errors import BadInputError, ProjectError
from lmeraser.core.layout import Layout

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Layout(tmp_path))


def test_token_is_valid_for_its_client_and_scopes_alone(store: Store) -> None:
    _, token = tokens.create(store, "acme", ["read", "submit", "read"], 30, NOW)
    assert tokens.authenticate(store, token, NOW) == Client("acme", frozenset({"read", "submit"}))
    tokens.create(store, "acme", ["audit"], 30, NOW)
    assert tokens.authenticate(store, token, NOW) == Client("acme", frozenset({"read", "submit"}))


def test_nothing_of_a_token_is_kept_that_it_could_be_made_from(store: Store) -> None:
    _, token = tokens.create(store, "acme", ["read"], 30, NOW)
    secret = token.rpartition("_")[2] if token.count("_") == 2 else token.split("_", 2)[2]
    assert secret.encode() not in store.path.read_bytes()
    assert token not in str(tokens.listed(store, NOW))
    assert store.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", [0, 9, 12, -1])
def test_token_with_one_letter_changed_is_none(store: Store, place: int) -> None:
    _, token = tokens.create(store, "acme", ["read"], 30, NOW)
    letter = "b" if token[place] == "a" else "a"
    changed = token[:place] + letter + (token[place + 1 :] if place != -1 else "")
    assert changed != token
    assert tokens.authenticate(store, changed, NOW) is None


def test_token_ends_when_it_expires_and_when_it_is_revoked(store: Store) -> None:
    _, first = tokens.create(store, "acme", ["read"], 1, NOW)
    second_id, second = tokens.create(store, "acme", ["read"], 30, NOW)
    assert tokens.authenticate(store, first, NOW + timedelta(hours=23))
    assert tokens.authenticate(store, first, NOW + timedelta(days=1)) is None
    assert tokens.revoke(store, second_id, NOW) == "acme"
    assert tokens.authenticate(store, second, NOW) is None
    assert [token["valid"] for token in tokens.listed(store, NOW)] == [
        token["token_id"] != second_id for token in tokens.listed(store, NOW)
    ]


@pytest.mark.parametrize(
    ("name", "scopes", "days", "part"),
    [
        ("Acme GmbH", ["read"], 1, "--name"),
        ("", ["read"], 1, "--name"),
        ("a" * 41, ["read"], 1, "--name"),
        ("acme", [], 1, "--scope"),
        ("acme", ["root"], 1, "--scope"),
        ("acme", ["read"], 0, "--days"),
        ("acme", ["read"], 3651, "--days"),
    ],
)
def test_token_that_makes_no_sense_is_refused(store: Store, name: str, scopes: list[str], days: int, part: str) -> None:
    with pytest.raises(BadInputError, match=part):
        tokens.create(store, name, scopes, days, NOW)
    with pytest.raises(BadInputError, match="token list"):
        tokens.revoke(store, "nonesuch", NOW)


@pytest.mark.parametrize("content", [b"not a database, " * 100, b"SQLite format 3\0" + b"\0" * 4000])
def test_damaged_file_is_told_and_left_alone(store: Store, content: bytes) -> None:
    store.path.parent.mkdir()
    store.path.write_bytes(content)
    store.path.chmod(0o600)
    with pytest.raises(ProjectError, match=r"door\.db is damaged"):
        tokens.listed(store, NOW)
    assert store.path.read_bytes() == content


def test_file_of_a_newer_lmeraser_is_refused(store: Store) -> None:
    tokens.create(store, "acme", ["read"], 1, NOW)
    with store.transaction() as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ProjectError, match="newer lmeraser"):
        tokens.listed(store, NOW)


def test_failures_of_many_addresses_take_no_more_memory() -> None:
    clock = [0.0]
    failures = Failures(lambda: clock[0])
    for number in range(3 * ADDRESSES):
        assert failures.add(str(number)) is None
    assert len(failures._seen) == ADDRESSES
    waits = [failures.add("one") for _ in range(FAILURES + 1)]
    assert waits == [None] * FAILURES + [WINDOW]
    clock[0] = -3600.0  # the clock was set back: nobody waits for an hour
    assert failures.add("one") is None
    clock[0] += WINDOW
    assert failures.add("one") is None


def test_commands_make_list_and_end_tokens_and_the_token_is_shown_once(pipeline: FakePipeline) -> None:
    made = pipeline.json("token", "create", "--name", "acme", "--scope", "submit", "read")
    assert made["token"] not in str(pipeline.json("token", "list"))
    assert [token["valid"] for token in pipeline.json("token", "list")["tokens"]] == [True]
    assert pipeline.json("token", "revoke", made["id"]) == {"id": made["id"], "client": "acme"}
    assert [token["valid"] for token in pipeline.json("token", "list")["tokens"]] == [False]
    for arguments in (
        ["create", "--name", "acme"],
        ["revoke"],
        ["revoke", "nonesuch"],
        ["create", "--name", "A", "--scope", "read"],
    ):
        pipeline.refused(2, "token", *arguments)
