"""The ledger: no request lost or doubled, no state skipped, nothing stored by who lost its claim, no event altered unseen."""

import sqlite3
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from builders import CANARY_SUBJECT, example_plan, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from lmeraser.core.errors import ProjectError, RequestError, VerificationError
from lmeraser.erase.batches import BatchRecord
from lmeraser.erase.erased import SubjectKey
from lmeraser.erase.ledger import ClaimLostError, Ledger, sqlite_url
from lmeraser.erase.ledger_schema import transaction
from lmeraser.erase.states import FAILED, FINAL, WAY, may_follow

ID = "0b9e2c5e-6a0f-4a53-9a55-0c7f6d0a1b2c"
OTHER = "11111111-2222-4333-8444-555555555555"
ANNA = SubjectKey(b"k" * 32).pseudonym(CANARY_SUBJECT)
OPEN = [state for state in WAY if state not in FINAL]


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    opened = Ledger.open(sqlite_url(tmp_path / "ledger.db"), clock)
    yield opened
    opened.close()


@pytest.mark.parametrize("name", ["a?b", "a#b", "a%2Fb", "a b", "a'b\"c", "ä", "a:b", "?mode=memory", "%", "file:x"])
def test_ledger_lies_in_the_projects_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / ".lmeraser" / "ledger.db"
    for _ in range(2):  # made, and found again
        assert Ledger.open(sqlite_url(path)).all() == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path in files
    assert {path.parent for path in files} == {path.parent}


def test_same_request_twice_is_one_and_about_the_same_people(ledger: Ledger) -> None:
    first, new = ledger.receive(ID, [ANNA, "b"], False, 30)
    again, changed = ledger.receive(ID, ["b", ANNA, "b"], False, 30)
    assert (new, changed, first) == (True, False, again)
    for others in (["b"], [ANNA], [ANNA, "b", "c"]):
        assert ANNA not in refused(RequestError, partial(ledger.receive, ID, others, False, 30))
    assert [request.request_id for request in ledger.all()] == [ID]


def test_request_is_due_thirty_days_after_receipt_and_late_from_then_on(ledger: Ledger) -> None:
    from datetime import datetime, timedelta

    request, _ = ledger.receive(ID, [ANNA], False, 30)
    due = datetime.fromisoformat(request.due_at)
    assert due - datetime.fromisoformat(request.received_at) == timedelta(days=30)
    assert (request.late(due), request.late(due + timedelta(seconds=1))) == (False, True)


def test_blocked_request_comes_back_with_include_public(ledger: Ledger) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    ledger.move([ID], "blocked", reason="public records")
    assert ledger.receive(ID, [ANNA], False, 30)[0].state == "blocked"
    request, changed = ledger.receive(ID, [ANNA], True, 30)
    assert (changed, request.state, request.include_public, request.reason) == (True, "received", True, None)


def test_who_lost_its_claim_stores_nothing_more(ledger: Ledger, clock: Clock) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    slow = ledger.claim("slow", 10, OPEN)
    assert ledger.claim("quick", 10, OPEN).requests == ()
    clock.now += 11
    quick = ledger.claim("quick", 10, OPEN)
    assert [request.request_id for request in quick.requests] == [ID]
    for act in (
        lambda: ledger.move([ID], "validated", slow),
        lambda: ledger.fail([ID], "x", 3, slow),
        lambda: ledger.add_time([ID], "x", 1.0, slow),
        lambda: ledger.open_batch(slow, [ID], BatchRecord(example_plan(), {})),
        lambda: ledger.renew(slow),
    ):
        refused(ClaimLostError, act)
    ledger.release(slow)
    ledger.move([ID], "validated", quick)
    assert ledger.get(ID).state == "validated"


def test_renewed_claim_is_kept(ledger: Ledger, clock: Clock) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    claim = ledger.claim("one", 10, OPEN)
    for _ in range(5):
        clock.now += 9
        ledger.renew(claim)
        assert ledger.claim("two", 10, OPEN).requests == ()


@pytest.mark.parametrize("jump", [-86_400.0 * 400, -60.0, 86_400.0 * 400])
def test_clock_that_jumps_holds_no_request_for_ever(ledger: Ledger, clock: Clock, jump: float) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    ledger.claim("dead", 10, OPEN)
    clock.now += jump
    assert len(ledger.claim("next", 10, OPEN).requests) == 1


def test_who_waited_long_for_the_ledger_takes_nothing_from_others(ledger: Ledger, clock: Clock) -> None:
    """A first version read its clock, then waited for other writers, and took their fresh leases for those of another clock."""
    import threading

    ledger.receive(ID, [ANNA], False, 30)
    claims = []
    with transaction(ledger._engine):
        late = threading.Thread(target=lambda: claims.append(ledger.claim("late", 10, OPEN)))
        late.start()
        late.join(0.3)
        assert late.is_alive(), "it waits for the transaction"
        clock.now += 30
    late.join()
    ledger.release(claims[0])
    quick = ledger.claim("quick", 10, OPEN)
    assert len(quick.requests) == 1
    assert quick.requests[0].lease_until == clock.now + 10
    assert claims[0].requests[0].lease_until == clock.now + 10


def test_order_of_receipt_is_kept_when_the_clock_goes_back(ledger: Ledger, clock: Clock) -> None:
    ids = [str(uuid.UUID(int=number)) for number in (3, 1, 2)]
    for identity in ids:
        ledger.receive(identity, [ANNA], False, 30)
        clock.now -= 3600
    assert [request.request_id for request in ledger.all()] == ids
    assert [event.request_id for event in ledger.events()] == ids
    assert ledger.verify_chain() == 3


def test_attempts_are_limited_and_a_person_can_start_anew(ledger: Ledger) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    ledger.move([ID], "validated")
    for attempt in range(1, 4):
        ledger.fail([ID], "the remote is down", 3)
        assert ledger.get(ID).state == (FAILED if attempt == 3 else "validated")
    refused(ProjectError, lambda: ledger.move([ID], "quarantined"))
    ledger.move([ID], "validated")
    request = ledger.get(ID)
    assert (request.state, request.attempts) == ("validated", 0)


def test_event_that_was_altered_removed_or_swapped_is_found(ledger: Ledger, tmp_path: Path) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    ledger.move([ID], "validated")
    ledger.receive(OTHER, ["b"], False, 30)
    assert ledger.verify_chain() == 3
    for command in (
        "UPDATE events SET data = '{\"subjects\":2}' WHERE seq = 1",
        "UPDATE events SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 2",
        "UPDATE events SET request_id = NULL WHERE seq = 2",
        "DELETE FROM events WHERE seq = 2",
        "UPDATE events SET seq = CASE seq WHEN 1 THEN 902 ELSE 901 END WHERE seq IN (1, 2)",
    ):
        copy = tmp_path / f"copy-{uuid.uuid4()}.db"
        with sqlite3.connect(tmp_path / "ledger.db") as origin, sqlite3.connect(copy) as target:
            origin.backup(target)
        copy.chmod(0o600)
        with sqlite3.connect(copy) as connection:
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(command)
            for word in ("update", "delete"):
                connection.execute(f"DROP TRIGGER events_no_{word}")
            connection.execute(command)
        refused(VerificationError, Ledger.open(sqlite_url(copy)).verify_chain)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a ledger of 200 requests."""
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    ledger = Ledger.open(sqlite_url(path))
    for number in range(200):
        ledger.receive(str(uuid.UUID(int=number)), [ANNA], False, 30)
    ledger.scrub()
    ledger.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["nothing", "noise", "cut", "page"])
def test_damaged_ledger_is_refused_and_not_touched(large: bytes, tmp_path: Path, damage: str) -> None:
    path, whole = tmp_path / "ledger.db", large
    middle = len(whole) // 2 // 4096 * 4096
    broken = {
        "nothing": whole,
        "noise": b"CANARY" * 1000,
        "cut": whole[: middle + 100],
        "page": whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 4096]) + whole[middle + 4096 :],
    }[damage]
    path.write_bytes(broken)
    path.chmod(0o600)
    if damage == "nothing":
        assert len(Ledger.open(sqlite_url(path)).all()) == 200
        return
    message = refused(ProjectError, lambda: Ledger.open(sqlite_url(path)).all())
    assert "backup" in message
    assert path.read_bytes() == broken


def test_ledger_of_a_newer_schema_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE meta SET schema = 2")
    assert "newer" in refused(ProjectError, lambda: Ledger.open(sqlite_url(tmp_path / "ledger.db")))


def test_ledger_that_others_can_read_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600
    (tmp_path / "ledger.db").chmod(0o644)
    assert "chmod 600" in refused(ProjectError, lambda: Ledger.open(sqlite_url(tmp_path / "ledger.db")))


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite+nothing:///x", ""])
def test_url_of_no_ledger_is_refused_and_makes_no_file(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(ProjectError, lambda: Ledger.open(url))
    assert list(tmp_path.iterdir()) == []


def test_names_of_people_are_in_no_file_of_the_ledger(ledger: Ledger, tmp_path: Path) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    for path in tmp_path.iterdir():
        assert CANARY_SUBJECT.encode() not in path.read_bytes()


def test_a_batch_keeps_what_its_steps_found(ledger: Ledger) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    claim = ledger.claim("one", 10, OPEN)
    opened = ledger.open_batch(claim, [ID], BatchRecord(example_plan(), {"a": "1"}, {ID: example_plan()}))
    batch = replace(opened, source="kept")
    ledger.save_batch(batch, claim)
    assert ledger.get_batch(batch.batch_id) == batch
    assert ledger.get(ID).batch_id == batch.batch_id


@pytest.mark.parametrize("stored", ["{}", "[]", '{"plans": 3}', '{"plans": {"x": {"odd": 1}}}', "{"])
def test_batch_that_no_version_wrote_is_refused_in_one_line(ledger: Ledger, tmp_path: Path, stored: str) -> None:
    ledger.receive(ID, [ANNA], False, 30)
    batch = ledger.open_batch(ledger.claim("one", 10, OPEN), [ID], BatchRecord(example_plan(), {}))
    with sqlite3.connect(tmp_path / "ledger.db") as plain:
        plain.execute("UPDATE batches SET facts = ?", (stored,))
    plain.close()
    assert "batch of the ledger is damaged" in refused(ProjectError, lambda: ledger.get_batch(batch.batch_id))


class Machine(RuleBasedStateMachine):
    """Any order of what coordinators, clocks and people do."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.ledger = Ledger.open(sqlite_url(Path(self.folder.name) / "ledger.db"), self.clock)
        self.claims: list[object] = []
        self.accepted: set[str] = set()

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    @rule(target=ids, number=st.integers(0, 5))
    def receive(self, number: int) -> str:
        identity = str(uuid.UUID(int=number))
        self.ledger.receive(identity, [str(number)], False, 30)
        self.accepted.add(identity)
        return identity

    @rule(seconds=st.floats(-100, 100))
    def tick(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(owner=st.sampled_from(["one", "two"]))
    def claim(self, owner: str) -> None:
        self.claims.append(self.ledger.claim(owner, 10, OPEN))

    @rule(identity=ids, state=st.sampled_from([*WAY, FAILED]), place=st.integers(0, 3))
    def move(self, identity: str, state: str, place: int) -> None:
        before = self.ledger.get(identity)
        claim = self.claims[-1 - place] if place < len(self.claims) else None
        try:
            self.ledger.move([identity], state, claim)  # type: ignore[arg-type]
        except (ProjectError, ClaimLostError):
            assert self.ledger.get(identity) == before
        else:
            after = self.ledger.get(identity)
            if after.state != before.state:
                assert may_follow(before.state, after.state)
                assert claim is None or before.claim_id == claim.claim_id  # type: ignore[attr-defined]

    @invariant()
    def nothing_is_lost(self) -> None:
        assert {request.request_id for request in self.ledger.all()} == self.accepted

    @invariant()
    def chain_holds(self) -> None:
        self.ledger.verify_chain()


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
test_no_order_of_events_loses_a_request_or_skips_a_state = Machine.TestCase


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
@settings(max_examples=10)
def test_each_request_has_one_number_however_often_it_comes(tmp_path_factory: pytest.TempPathFactory, order: list[int]) -> None:
    ledger = Ledger.open(sqlite_url(tmp_path_factory.mktemp("ledger") / "ledger.db"))
    new = [ledger.receive(str(uuid.UUID(int=number)), [str(number)], False, 30)[1] for number in order]
    assert sum(new) == len(set(order)) == len(ledger.all()) == len(ledger.events())
    ledger.close()
