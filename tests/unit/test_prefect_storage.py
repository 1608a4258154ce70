"""Events that name more than a request's id go from Prefect's files; everything else there stays."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import CANARY_SUBJECT, ROOT, refused

from flows.purge import prefect_events
from flows.purge.prefect_events import EVENT, clear, holds_more
from lmeraser.core.errors import StepFailedError
from lmeraser.core.layout import Layout

ID = "0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c"
RESOURCE = {"prefect.resource.id": f"lmeraser.request.{ID}"}
GOOD: dict[str, Any] = {"event": EVENT, "resource": RESOURCE, "related": [], "payload": {"request_id": ID}}
BAD: dict[str, dict[str, Any]] = {
    "a name beside the id": {"payload": {"request_id": ID, "name": CANARY_SUBJECT}},
    "a name as the id": {"payload": {"request_id": CANARY_SUBJECT}},
    "a name below the id": {"payload": {"request_id": {"name": CANARY_SUBJECT}}},
    "no id": {"payload": {"name": CANARY_SUBJECT}},
    "a list": {"payload": [CANARY_SUBJECT]},
    "a resource of another name": {"resource": {"prefect.resource.id": f"lmeraser.request.{CANARY_SUBJECT}"}},
    "a resource with a label": {"resource": RESOURCE | {"name": CANARY_SUBJECT}},
    "a related resource": {"related": [{"prefect.resource.id": CANARY_SUBJECT, "prefect.resource.role": "x"}]},
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prefect's folder, with the tables that matter."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    (tmp_path / "prefect").mkdir()
    with sqlite3.connect(tmp_path / "prefect" / "prefect.db") as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.execute("CREATE TABLE events (id TEXT, event TEXT, resource_id TEXT, resource JSON, related JSON, payload JSON)")
        made.execute("CREATE TABLE event_resources (event_id TEXT, resource_id TEXT)")
    made.close()
    return tmp_path / "prefect"


def store(home: Path, identity: str, event: dict[str, Any]) -> None:
    named = str(event["resource"].get("prefect.resource.id"))
    row = (identity, event["event"], named, *(json.dumps(event[part]) for part in ("resource", "related", "payload")))
    with sqlite3.connect(home / "prefect.db") as connection:
        connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.execute("INSERT INTO event_resources VALUES (?, ?)", (identity, named))
    connection.close()


def kept(home: Path) -> list[str]:
    with sqlite3.connect(home / "prefect.db") as connection:
        events = [event_id for (event_id,) in connection.execute("SELECT id FROM events ORDER BY id")]
        assert events == [
            event_id for (event_id,) in connection.execute("SELECT event_id FROM event_resources ORDER BY event_id")
        ]
    connection.close()
    return events


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_event_that_names_more_than_an_id_goes_with_what_it_triggered(home: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    bad = GOOD | change
    assert holds_more(bad)
    assert not holds_more(GOOD)
    triggered = {"event": "prefect.automation.triggered", "resource": {"prefect.resource.id": "x"}, "related": []}
    store(home, "good", GOOD)
    store(home, "good, triggered", triggered | {"payload": {"triggering_event": GOOD}})
    store(home, "of others", {"event": "theirs", "resource": {"a": "b"}, "related": [], "payload": {"name": "x"}})
    store(home, "bad", bad)
    store(home, "bad, triggered", triggered | {"payload": {"triggering_event": bad}})
    assert clear(Layout(tmp_path)) == 2
    assert kept(home) == ["good", "good, triggered", "of others"]
    for path in home.rglob("*"):
        assert CANARY_SUBJECT.encode() not in path.read_bytes(), path.name
    assert clear(Layout(tmp_path)) == 0


def test_what_was_deleted_leaves_the_log_too_as_soon_as_nobody_reads_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite tells of a log that is in use in a row, and raises nothing; a next try finds no row to delete."""
    monkeypatch.setattr(prefect_events, "BUSY", 0.1)
    store(home, "bad", GOOD | BAD["a resource of another name"])
    with closing(sqlite3.connect(home / "prefect.db", isolation_level=None)) as reader:
        store(home, "good", GOOD)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,)
        assert "cannot be cleared" in refused(StepFailedError, lambda: clear(Layout(tmp_path)))
        reader.execute("COMMIT")
        assert clear(Layout(tmp_path)) == 0
        for path in home.rglob("*"):
            assert CANARY_SUBJECT.encode() not in path.read_bytes(), path.name
    assert kept(home) == ["good"]


def test_our_letters_that_the_server_could_not_take_go_and_others_stay(home: Path, tmp_path: Path) -> None:
    (home / "dlq").mkdir()
    (home / "dlq" / "ours").write_text(json.dumps(GOOD | BAD["no id"]))
    (home / "dlq" / "theirs").write_text("{}")
    assert clear(Layout(tmp_path)) == 1
    assert [path.name for path in (home / "dlq").iterdir()] == ["theirs"]


def test_database_that_cannot_be_cleared_is_one_line(home: Path, tmp_path: Path) -> None:
    (home / "prefect.db").write_bytes(b"CANARY" * 1000)
    assert "cannot be cleared" in refused(StepFailedError, lambda: clear(Layout(tmp_path)))


def test_without_a_server_there_is_nothing_to_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "nowhere"))
    assert clear(Layout(tmp_path)) == 0


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ({"request_id": ID}, ID),
        ({"request_id": ID.upper()}, ID.upper()),
        ({"request_id": CANARY_SUBJECT}, "malformed"),
        ({"request_id": [ID]}, "malformed"),
        ({"request_id": "g" * 36}, "malformed"),
        ({"name": CANARY_SUBJECT}, "malformed"),
    ],
    ids=repr,
)
def test_value_that_the_server_may_refuse_and_log_is_never_a_name(payload: dict[str, Any], value: str) -> None:
    import asyncio
    from types import SimpleNamespace

    from prefect.server.utilities.user_templates import render_user_template, validate_user_template

    [forget] = [
        deployment
        for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
        if deployment["name"] == "forget"
    ]
    template = forget["triggers"][0]["parameters"]["request_id"]
    validate_user_template(template)
    assert asyncio.run(render_user_template(template, {"event": SimpleNamespace(payload=payload)})) == value
