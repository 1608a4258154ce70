"""Random histories of hold, release, extension, withdrawal, cancelling, approval, sweeps, days and kills: no accepted request is
ever lost, nothing that is held or in grace is destroyed, and everything that is released ends certified."""

import random
import tempfile
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from clocks import DAY, Clock
from fake_pipeline import CANARY, FakePipeline, fakes
from histories import LONGEST, Asked, World, falsehoods, training_ids
from kills import killing

from flows.requests import intake, pauses
from lmeraser.core.errors import BadInputError, BlockedError
from lmeraser.data.records import read_records
from lmeraser.erase.erased import ErasedList
from lmeraser.erase.requests import Request
from lmeraser.erase.states import CERTIFIED, REJECTED

FEW, MANY = 1, 4  # histories of each kind of project
STEPS = 12
REASON = "file 42"
KINDS = {"plain": {"grace_s": 0.0}, "grace": {"grace_s": 2 * DAY}, "grace and approval": {"grace_s": DAY, "approval": True}}


@dataclass
class Story:
    """One history. Attributes: asked: the people of each request that was sent; ended: those that somebody wanted to end."""

    world: World
    clock: Clock
    dice: random.Random
    pipeline: FakePipeline
    free: list[str]
    asked: Asked = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    kills: int = 0

    def step(self) -> None:
        """One act of somebody, which may be killed; what is refused as bad input changes nothing."""
        act = self.dice.choice(
            [self.send, self.send, self.hold, self.hold_person, self.release, self.extend, self.end, self.approve]
        )
        act = self.dice.choice([act, act, self.sweep, self.tick])
        at = round(LONGEST ** self.dice.random()) if self.dice.random() < 0.5 else None
        with killing(self.pipeline.root.parent, at) as kill, suppress(BadInputError, BlockedError):
            act()
        self.kills += kill.dead
        self.check()

    def some(self) -> str:
        return self.dice.choice(list(self.asked)) if self.asked else str(uuid.UUID(int=0))

    def send(self) -> None:
        if self.free:
            identity = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
            self.asked[identity] = (self.free.pop(),)
            try:
                self.pipeline.submit(*self.asked[identity], request_id=identity, solved=self.dice.random() < 0.3)
            finally:
                if identity not in {request.request_id for request in self.pipeline.requests()}:
                    self.free += self.asked.pop(identity)  # it was killed before anybody was told

    def hold(self) -> None:
        until = self.clock.day(self.dice.randrange(5))
        with self.pipeline.process() as project:
            pauses.hold_request(project, self.some(), until, REASON)

    def hold_person(self) -> None:
        person = self.dice.choice(self.free or [f"{CANARY}-1"])
        with self.pipeline.process() as project:
            pauses.hold_person(project, person, self.clock.day(self.dice.randrange(5)), REASON)

    def release(self) -> None:
        with self.pipeline.process() as project:
            if self.dice.random() < 0.5:
                pauses.release_request(project, self.some())
            else:
                pauses.release_person(project, f"{CANARY}-{self.dice.randrange(1, 6)}")

    def extend(self) -> None:
        with self.pipeline.process() as project:
            pauses.extend(project, self.some(), self.dice.randrange(70), REASON)

    def end(self) -> None:
        identity = self.some()
        self.ended.add(identity)
        verb: Callable[..., Request] = self.dice.choice([pauses.withdraw, intake.cancel])
        with self.pipeline.process() as project:
            verb(project, identity)

    def approve(self) -> None:
        with self.pipeline.process() as project:
            intake.approve(project, self.some(), "somebody")

    def sweep(self) -> None:
        self.pipeline.sweep()

    def tick(self) -> None:
        self.clock.now += self.dice.choice([0.3, 1, 2]) * DAY

    def check(self) -> None:
        """What must be true after every act, killed or not."""
        requests = self.pipeline.requests()
        assert {request.request_id for request in requests} == self.asked.keys()
        assert list(self.world.early_falsehoods(self.pipeline, self.asked)) == []
        listed = ErasedList.read(self.pipeline.layout.erased).pseudonyms
        parts = sorted(self.pipeline.layout.private.glob("*.parquet"))
        for request in requests:
            paused = request.is_held or request.in_grace(self.clock.now)
            if paused and not listed.intersection(request.pseudonyms):
                there = {record.id for part in parts for record in read_records(part)}
                assert training_ids(self.asked[request.request_id]) <= there, "what waits was destroyed"
            assert not (paused and listed.intersection(request.pseudonyms)), "who is held is on the list of the erased"
            assert request.state != REJECTED or request.request_id in self.ended, request.reason

    def finish(self) -> None:
        """Release everybody, approve, let the days pass: every request that nobody ended is certified."""
        for _ in range(2):
            self.clock.now += 10 * DAY
            self.pipeline.resume()
            with self.pipeline.process() as project:
                for request in project.ledger.all():
                    if request.state == "validated":
                        intake.approve(project, request.request_id, "somebody")
        self.clock.now += 10 * DAY
        self.pipeline.resume()
        states = {request.request_id: request.state for request in self.pipeline.requests()}
        assert states.keys() == self.asked.keys()
        assert {state for identity, state in states.items() if identity not in self.ended} <= {CERTIFIED}
        assert list(falsehoods(self.world, self.pipeline, self.asked)) == []


@pytest.mark.parametrize("histories", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.no_cover])])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_waits_is_destroyed_and_whatever_is_released_is_certified(
    kind: str, histories: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, dice, kills = Clock(), random.Random(f"{kind} {histories}"), 0
    clock.rule(monkeypatch)
    with tempfile.TemporaryDirectory(dir=tmp_path) as name:
        (Path(name) / "temporary").mkdir()
        with fakes(Path(name) / "temporary"):
            world = World(Path(name), {"service": KINDS[kind]}, remote=False)
            for _ in range(histories):
                story = Story(world, clock, dice, world.fresh(), [f"{CANARY}-{number}" for number in (2, 3, 4)])
                for _ in range(STEPS):
                    story.step()
                story.finish()
                kills += story.kills
    assert kills
    print(f"{kills} kills in {histories} histories of a project with {kind}")
