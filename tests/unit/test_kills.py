"""A process may be killed between any two writes, again and again: whoever goes on ends where an undisturbed one ends."""

import random
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_pipeline
import pytest
from fake_pipeline import CANARY, FakePipeline, fakes
from histories import Asked, Step, World, cancel, falsehoods, resume, submit, sweep
from kills import killing

from lmeraser.erase.states import CERTIFIED, REJECTED

# Kills in each kind of project, at least: in `make quick`, in `make test` beside those, and in `make campaign`.
FEW, SOME, MANY = 5, 30, 400
MORE = 17  # kills of a history after its first, at most
KINDS: dict[str, dict[str, Any]] = {
    "a remote": {"changes": {}},
    "no remote": {"changes": {}, "remote": False},
    "a source that is erased from": {"changes": {"source": {"erase": True}}},
    "parts of three shards": {"changes": {"shards": 3}},
    "one record at a time": {"changes": {"cluster": {"unit": "record"}}, "remote": False},
}


@contextmanager
def world_of(kind: str, folder: Path) -> Iterator[World]:
    """Built in memory where that is a folder."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else folder) as name:
        temporary = Path(name) / "temporary"
        temporary.mkdir()
        with fakes(temporary):
            yield World(Path(name), **KINDS[kind])


def drawn(dice: random.Random) -> tuple[list[Step], Asked]:
    """A history of one to three requests, the first perhaps about public records too: submitted, swept or cancelled, resumed."""
    free = [f"{CANARY}-{number}" for number in range(1, 6)]
    asked: Asked = {}
    steps: list[Step] = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        identity = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        asked[identity] = tuple(free.pop(dice.randrange(len(free))) for _ in range(dice.choice((1, 1, 1, 2))))
        if len(free) < 3:
            free.append(f"{CANARY}-test")
        if public := not asked.keys() - {identity} and dice.random() < 0.2:
            asked[identity] = ("stock-0", *asked[identity])
        steps.append(submit(identity, *asked[identity], solved=dice.random() < 0.5, public=public))
        if dice.random() < 0.3:
            steps.append(sweep())
        if dice.random() < 0.2:
            steps.append(cancel(identity))
    return [*steps, resume()], asked


@pytest.mark.parametrize(
    "kills",
    [
        FEW,
        pytest.param(SOME, marks=[pytest.mark.slow, pytest.mark.no_cover]),
        pytest.param(MANY, marks=pytest.mark.campaign("two minutes each on a slow processor")),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_anywhere_and_resumed_every_request_ends_and_nobody_else_lost_anything(
    kind: str, kills: int, tmp_path: Path
) -> None:
    with world_of(kind, tmp_path) as world:
        dice = random.Random(kind)
        histories = 0
        while world.kills < kills:
            steps, asked = drawn(dice)
            pipeline = world.run(steps, asked, 1 + dice.randrange(world.writes(steps)), MORE, dice)
            assert list(falsehoods(world, pipeline, asked)) == [], (histories, world.killed)
            histories += 1
        assert histories > kills // (MORE + 1)
        print(f"{world.kills} kills in {histories} histories of a project with {kind}")


@pytest.mark.parametrize("place", ["os.remove .*/quarantine.json", "os.remove head.safetensors", "os.rmdir .*/quarantine"])
def test_cancel_that_was_killed_leaves_nobody_out_of_the_model_after_the_next_resume(place: str, tmp_path: Path) -> None:
    """Found here: the request was rejected, and its people stayed out of what is served."""
    with world_of("no remote", tmp_path) as world:
        pipeline = world.fresh()
        identity = pipeline.submit(f"{CANARY}-2").request_id
        with killing(pipeline.root.parent, place=place) as kill:
            pipeline.cancel(identity)
        assert (kill.dead, pipeline.request(identity).state) == (True, REJECTED)
        assert pipeline.resume() == []
        assert list(falsehoods(world, pipeline, {identity: (f"{CANARY}-2",)})) == []


def killed_at(pipeline: FakePipeline, place: str, once_verified: bool = False) -> str:
    """A request that was killed before the first write of a place. Args: once_verified: the first behind that state."""
    identity = pipeline.submit(f"{CANARY}-2").request_id
    if once_verified:
        with killing(pipeline.root.parent, place=r"os.remove .*/quarantine\.json"):
            pipeline.resume()
        assert pipeline.request(identity).state == "verified"
    with killing(pipeline.root.parent, place=place) as kill:
        pipeline.resume()
    assert kill.dead, f"never at {place}"
    return identity


def test_killed_after_the_last_certificate_the_next_resume_drops_what_was_kept_for_a_crash(tmp_path: Path) -> None:
    """Found here: the copies of the locks from before stayed for ever."""
    with world_of("no remote", tmp_path) as world:
        pipeline = world.fresh()
        identity = killed_at(pipeline, r"os.rmdir .*\.locks")
        assert pipeline.request(identity).state == CERTIFIED
        assert pipeline.resume() == []
        assert list(falsehoods(world, pipeline, {identity: (f"{CANARY}-2",)})) == []


@pytest.mark.parametrize("place", ["os.remove .*/split/private/p01.parquet", "os.rename .*/split/.writing-public.parquet"])
def test_killed_while_split_runs_again_on_the_shorter_source_resume_needs_nobody(place: str, tmp_path: Path) -> None:
    """Found here: DVC deletes a stage's outs before it runs it, and `resume` asked a person to bring them back; and a draft of
    `split` lay in a folder on which `validate` depends, and `resume` asked for a `dvc repro`."""
    with world_of("a source that is erased from", tmp_path) as world:
        pipeline = world.fresh()
        identity = killed_at(pipeline, place, once_verified=True)
        assert [request.state for request in pipeline.resume()] == [CERTIFIED]
        assert list(falsehoods(world, pipeline, {identity: (f"{CANARY}-2",)})) == []


def test_killed_while_a_request_is_set_back_its_people_are_out_of_what_is_served_already(tmp_path: Path) -> None:
    """Found here: the ledger said so before the quarantine was made again, and the next try made none."""
    with world_of("no remote", tmp_path) as world:
        pipeline = world.fresh()
        before = pipeline.layout.lock.read_bytes()
        identity = killed_at(pipeline, "commit of the ledger", once_verified=True)
        pipeline.layout.lock.write_bytes(before)  # as `git reset --hard` and `dvc checkout` do
        fake_pipeline.dvc_of(pipeline.layout).checkout()
        with killing(pipeline.root.parent, place="os.mkdir .*/quarantine/.*") as kill:
            pipeline.resume()
        assert kill.dead
        assert list(world.early_falsehoods(pipeline, {identity: (f"{CANARY}-2",)})) == []
        assert [request.state for request in pipeline.resume()] == [CERTIFIED]
        assert list(falsehoods(world, pipeline, {identity: (f"{CANARY}-2",)})) == []
