"""What is told of requests: everything, at least once, in order for each; whatever is killed, and whatever the clock does."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.door import outbox
from flows.door.outbox import ATTEMPTS, CALLBACK, COMMAND, EVENTS, HOOK_KINDS, LEASE, LONGEST, WEBHOOK
from flows.door.store import Store
from lmeraser.core.layout import Layout
from lmeraser.erase.ledger import Ledger, sqlite_url

URL = "https://controller.example/told"
ALL = (CALLBACK, *HOOK_KINDS)
ENDS = {"certified": "completed", "rejected": "cancelled"}
WAY = ("received", "validated", "quarantined", "removed", "retrained", "verified", "purged", "certified")


class Desk:
    """A ledger, the outbox, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 1_800_000_000.0
        self.store = Store(Layout(folder))
        self.store.path.parent.mkdir(exist_ok=True)
        self.ledger = Ledger.open(sqlite_url(folder / "ledger.db"), lambda: self.now)
        self.arrived: list[tuple[str, str, str]] = []

    @property
    def time(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)

    def receive(self, *urls: str, due_days: int = 30) -> str:
        request_id = str(uuid.uuid4())
        self.ledger.receive(request_id, ["ab"], False, due_days)
        if urls:
            outbox.subscribe(self.store, request_id, urls, self.ledger.events(request_id)[0].seq - 1)
        return request_id

    def advance(self, request_id: str) -> None:
        state = self.ledger.get(request_id).state
        if state != "certified":
            self.ledger.move([request_id], WAY[WAY.index(state) + 1])

    def hook(self, *events: str, days: int = 7, kind: str = COMMAND) -> str:
        return outbox.add_hook(self.store, kind, json.dumps(["true"]), "", events, days, self.ledger.head()[0])

    def collect(self) -> None:
        outbox.collect(self.store, self.ledger, self.time)

    def take(self, limit: int = 100) -> list[outbox.Delivery]:
        return outbox.take(self.store, ALL, self.now, limit)

    def deliver(self) -> None:
        for delivery in self.take():
            self.arrived.append((delivery.subscription_id, delivery.request_id, delivery.event))
            outbox.arrived(self.store, delivery)

    def drain(self) -> list[str]:
        """Deliver all that there is, in the order of arrival."""
        for _ in range(20):
            self.collect()
            self.deliver()
            self.now += LEASE + LONGEST
        return [event for _, _, event in self.arrived]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


PASSES = {"wait": 30.0, "clock back": -86_400.0}
ACTIONS = ("advance", "collect", "deliver", "fail", "killed before it arrived", "killed after it arrived", *PASSES)


def act(desk: Desk, action: str, request_id: str) -> None:
    plain = {"advance": lambda: desk.advance(request_id), "collect": desk.collect, "deliver": desk.deliver}
    if action in plain:
        plain[action]()
    elif action in PASSES:
        desk.now += PASSES[action]
    else:
        for delivery in desk.take(1):
            if action == "fail":
                outbox.failed(desk.store, delivery, "it answered with status 500", desk.now)
            elif action == "killed after it arrived":
                desk.arrived.append((delivery.subscription_id, delivery.request_id, delivery.event))


@settings(max_examples=8)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 1)), min_size=5, max_size=30))
def test_each_status_arrives_at_least_once_and_in_order_whatever_is_killed(actions: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        desk = Desk(Path(folder))
        hook = desk.hook("received", "in_effect", "certified")
        requests = [desk.receive(URL), desk.receive(URL)]
        for action, which in actions:
            act(desk, action, requests[which])
        for request_id in requests:
            for _ in WAY:
                desk.advance(request_id)
        desk.drain()
        for request_id in requests:
            told = [event for sub, of, event in desk.arrived if of == request_id and sub != hook]
            heard = [event for sub, of, event in desk.arrived if of == request_id and sub == hook]
            assert once(told) == ["in_progress", "completed"]
            assert once(heard) == ["received", "in_effect", "certified"]
        assert URL.encode() not in desk.store.path.read_bytes(), "an address goes when all was told"
        desk.ledger.close()


def once(events: list[str]) -> list[str]:
    """Without what came twice in a row: it was told, and told again after a kill."""
    return [event for place, event in enumerate(events) if place == 0 or events[place - 1] != event]


def test_two_couriers_do_not_send_the_same_at_once(desk: Desk) -> None:
    desk.hook("received")
    desk.receive()
    desk.collect()
    desk.collect()
    assert len(desk.take()) == 1
    assert desk.take() == []
    desk.now += LEASE  # the first was killed
    assert len(desk.take()) == 1


def test_each_waits_longer_than_the_last_and_is_given_up_in_the_end(desk: Desk) -> None:
    request_id = desk.receive(URL)
    desk.advance(request_id)
    desk.advance(request_id)
    desk.collect()
    waits: list[float] = []
    while (wait := outbox.failed(desk.store, desk.take()[0], "it answered with status 500", desk.now)) is not None:
        assert desk.take() == []
        waits.append(wait)
        desk.now += wait
    assert len(waits) == ATTEMPTS - 1
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST
    assert 86_400 < sum(waits) < 4 * 86_400
    assert outbox.outlook(desk.store) == (0, 1)
    assert [(row["kind"], row["target"], row["given_up"]) for row in outbox.subscriptions(desk.store)] == [("ended", "", 1)]
    assert URL.encode() not in desk.store.path.read_bytes()
    desk.advance(request_id)
    outbox.subscribe(desk.store, request_id, [URL], 0)  # the client sends its request again: it is told from there on
    for _ in WAY:
        desk.advance(request_id)
    assert desk.drain() == ["completed"]


def test_what_was_before_a_hook_is_not_told_and_what_comes_after_is(desk: Desk) -> None:
    early = desk.receive()
    desk.hook("received", "in_effect", kind=WEBHOOK)
    late = desk.receive()
    for request_id in (early, late):
        desk.advance(request_id)
        desk.advance(request_id)
    desk.drain()
    expected = {(early, "in_effect"), (late, "received"), (late, "in_effect")}
    assert {(of, event) for _, of, event in desk.arrived} == expected
    assert len(desk.arrived) == 3


def test_late_and_soon_late_are_told_once_each_and_not_of_what_is_done(desk: Desk) -> None:
    desk.hook("late_soon", "late", days=3)
    open_id, done_id = desk.receive(due_days=10), desk.receive(due_days=10)
    for _ in WAY:
        desk.advance(done_id)
    told: dict[int, list[str]] = {}
    for day in range(0, 13):
        desk.collect()
        before = len(desk.arrived)
        desk.deliver()
        told[day] = [event for _, of, event in desk.arrived[before:] if of == open_id]
        desk.now += timedelta(days=1).total_seconds()
    assert {day: events for day, events in told.items() if events} == {7: ["late_soon"], 11: ["late"]}
    assert not [of for _, of, _ in desk.arrived if of == done_id]


def test_blocked_request_is_late_too(desk: Desk) -> None:
    desk.hook("late")
    blocked = desk.receive(due_days=1)
    desk.ledger.move([blocked], "blocked", reason="public records")
    desk.now += timedelta(days=2).total_seconds()
    assert desk.drain() == ["late"]


def test_ledger_from_a_backup_does_not_silence_what_comes_after(desk: Desk) -> None:
    desk.hook("received")
    with desk.store.transaction() as connection:
        connection.execute("UPDATE subscriptions SET cursor = 1000")
    desk.collect()
    request_id = desk.receive()
    desk.drain()
    assert [of for _, of, _ in desk.arrived] == [request_id]


def test_removed_hook_takes_what_waited_for_it_along(desk: Desk) -> None:
    hook = desk.hook(*EVENTS)
    desk.receive()
    desk.collect()
    assert outbox.remove(desk.store, hook)
    assert not outbox.remove(desk.store, hook)
    assert desk.drain() == []


def test_failing_hook_holds_up_neither_another_request_nor_another_hook(desk: Desk) -> None:
    broken, whole = desk.hook("received", "in_effect"), desk.hook("received")
    first, second = desk.receive(), desk.receive()
    desk.collect()
    for delivery in desk.take():
        if (delivery.subscription_id, delivery.request_id) == (broken, first):
            outbox.failed(desk.store, delivery, "it answered with status 500", desk.now)
        else:
            outbox.arrived(desk.store, delivery)
            desk.arrived.append((delivery.subscription_id, delivery.request_id, delivery.event))
    assert set(desk.arrived) == {(whole, first, "received"), (whole, second, "received"), (broken, second, "received")}
    assert outbox.outlook(desk.store) == (1, 0)
