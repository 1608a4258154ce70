"""The simulation of a fleet does what its words say, and its numbers are those that its table lists."""

import json
from itertools import pairwise
from typing import Any

import pytest
from builders import ROOT

from bench.fleet import report
from bench.fleet.assumptions import Assumption, assumptions
from bench.fleet.simulation import GPUS, Fleet, Load, bottleneck, run_wave, shares, simulate
from flows.service.fan_out import MOST

RATES = {"image_bytes": 1e5, "check_s": 0.005, "decode_s": 0.006, "md5_bytes_s": 6e8}
WAVES = [{"kind": "embed", "stages": 8, "runs": 4, "wall": 20.0, "busy": 18.0}]
RECORDED = {"stages": 50, "seconds": 2.5}
HERE = {"where": "here", "workers": 0, "load": 0.1, "wall": 90.0, "waves": [], "recorded": RECORDED, "artifacts": 70}
BUILDS: list[dict[str, Any]] = [
    HERE,
    HERE | {"where": "1 worker", "workers": 1, "wall": 120.0, "waves": [*WAVES, WAVES[0] | {"kind": "tune"}], "start": 4.0},
    HERE
    | {
        "where": "2 workers",
        "workers": 2,
        "wall": 80.0,
        "waves": [WAVES[0] | {"wall": 10.0}, WAVES[0] | {"kind": "tune"}],
        "start": 5.0,
    },
]


@pytest.fixture(scope="module")
def assumed() -> dict[str, Assumption]:
    return assumptions(RATES, BUILDS, 1e8)


def test_runs_that_only_compute_take_turns_on_the_workers() -> None:
    wave = run_wave([Load(0.0, 10.0)] * 6, workers=2, start_s=1.0, card=1.0, store=1.0)
    assert wave.wall == pytest.approx(33.0)
    assert (wave.starting, wave.pulling, wave.computing) == (6.0, 0.0, 60.0)
    assert wave.bound == "computing"


def test_those_that_pull_at_once_share_the_store_and_one_alone_has_its_card() -> None:
    alone = run_wave([Load(100.0, 0.0)], workers=1, start_s=0.0, card=10.0, store=1000.0)
    assert alone.wall == pytest.approx(10.0)
    crowd = run_wave([Load(100.0, 0.0)] * 10, workers=10, start_s=0.0, card=10.0, store=20.0)
    assert crowd.wall == pytest.approx(1000.0 / 20.0)
    assert crowd.bound == "pulling from the store"


def test_who_pulls_less_leaves_bandwidth_to_the_rest() -> None:
    wave = run_wave([Load(100.0, 0.0), Load(20.0, 0.0)], workers=2, start_s=0.0, card=10.0, store=10.0)
    assert wave.wall == pytest.approx(12.0), "5 a second each for 4 s, then 10 for the 80 that are left"


def test_two_workers_halve_what_one_does_but_for_the_last_run() -> None:
    loads = [Load(0.0, 5.0)] * 40
    one, two = (run_wave(loads, count, 0.5, 1.0, 1.0).wall for count in (1, 2))
    assert one == pytest.approx(2 * two)


def test_shares_hold_every_stage_once_and_no_more_than_a_run_may_have() -> None:
    divided = shares([float(weight) for weight in range(1, 2001)], workers=1)
    assert sorted(place for share in divided for place in share) == list(range(2000))
    assert max(map(len, divided)) <= MOST + 2
    loads = [sum(share) for share in divided]
    assert max(loads) < 1.01 * min(loads)


def test_clusters_hold_all_records_and_the_same_seed_draws_the_same_ones(assumed: dict[str, Assumption]) -> None:
    first, again, other = Fleet(assumed, 1), Fleet(assumed, 1), Fleet(assumed, 2)
    assert first.sizes.sum() == pytest.approx(1e8)
    assert (first.sizes == again.sizes).all()
    assert (first.sizes != other.sizes).any()


def test_more_gpus_shorten_what_workers_do_and_nothing_else(assumed: dict[str, Assumption]) -> None:
    outcomes = [outcome for outcome in simulate(assumed, 0, GPUS) if outcome["mode"] == "workers"]
    for fewer, more in pairwise(outcomes):
        for slow, fast in zip(fewer["build"], more["build"], strict=True):
            assert fast["seconds"] < slow["seconds"] if slow["where"] == "workers" else fast == slow


def test_clones_that_pull_every_part_for_each_share_gain_nothing_from_ten_times_as_many(assumed: dict[str, Assumption]) -> None:
    """Four shares for each worker, each of which pulls all parts: with more workers more is pulled, and the store is one."""
    fleet = Fleet(assumed, 0)
    ten, hundred = (fleet.tuning(fleet.sizes.tolist(), gpus, "clones") for gpus in (10, 100))
    assert hundred.bound == "pulling from the store"
    assert hundred.pulling > 10 * ten.pulling


def test_clone_pulls_whole_parts_for_a_cluster_that_is_spread_over_them(assumed: dict[str, Assumption]) -> None:
    fleet = Fleet(assumed, 0)
    mean = fleet.records / fleet.slots
    assert fleet.read_by_tuning(mean, 1, "clones") > 0.5 * fleet.bytes
    assert fleet.read_by_tuning(mean, 1, "workers") < 0.01 * fleet.bytes


def test_bottleneck_is_the_longest_step() -> None:
    steps = [{"step": name, "seconds": seconds, "where": "workers", "bound": "x"} for name, seconds in (("a", 1.0), ("b", 3.0))]
    assert bottleneck(steps)["step"] == "b"  # type: ignore[arg-type]


def test_report_says_that_it_is_a_simulation_and_lists_every_number_with_its_origin(assumed: dict[str, Assumption]) -> None:
    text = "\n".join([*report.assumed_text(assumed), *report.simulated_text(simulate(assumed))])
    assert "A simulation, no measurement: no GPU" in text
    for name, assumption in assumed.items():
        assert f"| {name} |" in text
        assert assumption.origin
        assert assumption.unit


def test_measured_table_shows_every_build_and_the_speed_up() -> None:
    measured: report.Measured = {"builds": BUILDS, "rates": RATES, "records": 6000, "command": "c", "revision": "r"}
    text = "\n".join(report.measured_text(measured))
    assert all(f"| {row['where']} |" in text for row in BUILDS)
    assert "embedding 2.00, tuning 1.00, the whole build 1.50" in text


def test_kept_results_are_what_their_own_numbers_give() -> None:
    """Someone who edits the simulation without running it again is found."""
    path = ROOT / "bench" / "results" / "fleet.json"
    if not path.exists():
        pytest.skip("not measured yet")
    results = json.loads(path.read_bytes())["results"]
    assumed = {name: Assumption(**value) for name, value in results["assumptions"].items()}
    gpus = sorted({outcome["gpus"] for outcome in results["simulated"]})
    assert json.loads(json.dumps(simulate(assumed, results["seed"], gpus))) == results["simulated"]
