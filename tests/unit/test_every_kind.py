"""Requests of every kind, mixed with each other and with kills, leave a project of the final records from the first day.

python -m pytest -m campaign tests/unit/test_every_kind.py     # at least twenty requests of each kind, and forty kills
"""

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders import Row
from clocks import Clock
from fake_pipeline import CANARY, FakePipeline, fakes
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from kills import killing
from mixes import KINDS, ROWS, Rows, applied, ask, left

from flows.purge import step as purging
from lmeraser.erase.states import BLOCKED, CERTIFIED, REJECTED
from lmeraser.pipeline.locks import read_outs
from lmeraser.prove.certificate import read_chain
from lmeraser.prove.keys import load_public

SEEDS = (20, 21, 30, 31, 40, 50)
OF_PEOPLE = ("feed", "held", "withdrawn")  # beside KINDS: proposed and accepted; held and released; ended by the operator
MOST_WRITES = 400  # before which a kill falls


def requested(pipeline: FakePipeline, kind: str, seed: int, person: str, rows: Rows, clock: Clock) -> Rows:
    """Send a request; returns the rows as they are to be after it."""
    after = applied(kind if kind in KINDS else "person", seed, person, rows)
    if after == rows:
        return rows
    if kind in KINDS:
        return after if ask(pipeline, kind, seed, person, rows) else rows
    if kind == "feed":
        feed = pipeline.root.parent / f"feed-{uuid.uuid4()}.csv"
        feed.write_text(f"subject\n{person}\n")
        [identity] = pipeline.json("propose", "--feed", str(feed))["proposed"]
        feed.unlink()
        state = pipeline.json("approve", identity, "--by", "A. Officer")["state"]
        return after if state not in (REJECTED, BLOCKED) else rows
    request = pipeline.submit(person, solved=False)
    if not request.is_open:
        assert "left" in str(request.reason), request.reason
        return rows
    if kind == "held":
        pipeline.json("hold", request.request_id, "--until", clock.day(30), "--reason", "a case")
        return after
    assert pipeline.cancel(request.request_id).state == REJECTED
    return rows


def carried_out(pipeline: FakePipeline, kills: list[int]) -> int:
    """Sweep, killed before each of these writes in turn, and then to the end. Returns how many of the kills fell."""
    fell = 0
    for at in kills:
        with killing(pipeline.root.parent, at) as kill:
            pipeline.resume()
        fell += kill.dead
    pipeline.resume()
    assert purging.unknown_in_remotes(pipeline.layout) == {}, "the next purge would be refused"
    return fell


@st.composite
def mixes(draw: st.DrawFn) -> list[tuple[str, int, int, list[int] | None]]:
    """A request of each kind in some order: kind, image, person, and the kills of the sweep after it; None: they wait."""
    kills = st.none() | st.lists(st.integers(1, MOST_WRITES), max_size=2)
    kinds = draw(st.permutations((*KINDS, *OF_PEOPLE)))
    return [(kind, draw(st.sampled_from(SEEDS)), draw(st.integers(1, 5)), draw(kills)) for kind in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("examples", [0, pytest.param(40, marks=pytest.mark.campaign("minutes"))])
@pytest.mark.parametrize("changes", [{}, {"shards": 3}], ids=["parts", "shards"])
def test_after_requests_of_every_kind_and_kills_the_project_is_one_that_had_the_final_records_from_the_first_day(
    examples: int, changes: dict[str, Any], clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, seen = tmp_path_factory.mktemp("kinds"), Counter[str]()
    with fakes(folder):
        template = FakePipeline.build(folder / "template", ROWS, **changes)

        # One was wrongly an erased person's: it stays, and the plan must know.
        @example([("label", 20, 5, []), ("subject", 50, 1, None), ("person", 31, 5, [])])
        # With shards, what was made of the file that the record came into was left in the remote, and nothing named it.
        @example([("subject", 20, 3, []), ("person", 31, 1, [])])
        # The draft of a question to the network was left, and the scan found the record's id in it for ever.
        @example([("image", 31, 3, [8])])
        @settings(
            max_examples=examples or 1,
            phases=[*Phase][: None if examples else 1],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(mixes())
        def mix(asked: list[tuple[str, int, int, list[int] | None]]) -> None:
            copy: Path = tmp_path_factory.mktemp("copy") / "copy"
            pipeline, rows, gone = template.copy(copy), ROWS, set[Row]()
            for kind, seed, number, kills in asked:
                after = requested(pipeline, kind, seed, f"{CANARY}-{number}", rows, clock)
                seen[kind] += after != rows or kind == "withdrawn"
                gone, rows = gone | ({*rows} - {*after}), after
                if kills is not None:
                    seen["killed"] += carried_out(pipeline, kills)
            for request in pipeline.requests():
                if request.blocked_by == "hold":
                    pipeline.json("release", request.request_id)
            carried_out(pipeline, [])
            ends_as_from_the_first_day(pipeline, rows, gone, tmp_path_factory.mktemp("fresh") / "fresh", changes)

        mix()
    if examples:
        assert all(seen[kind] >= 20 for kind in (*KINDS, *OF_PEOPLE)), seen
        assert seen["killed"] >= 40, seen


def ends_as_from_the_first_day(pipeline: FakePipeline, rows: Rows, gone: set[Row], fresh: Path, changes: dict[str, Any]) -> None:
    requests = pipeline.requests()
    assert {request.state for request in requests} <= {CERTIFIED, REJECTED}
    assert read_outs(pipeline.layout.lock) == read_outs(FakePipeline.build(fresh, rows, **changes).layout.lock)
    assert left(pipeline, sorted(gone - {*rows}, key=repr)) == []
    certified = [request for request in requests if request.state == CERTIFIED]
    chain = read_chain(pipeline.layout.certificates, load_public(pipeline.layout.public_keys))
    assert len(chain) == len(certified)
