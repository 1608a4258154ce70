"""The contest measures the clustering that the preset asks for, and compares peers on the seeds that both have."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.compare.contest import made_by
from bench.compare.contestants import people_contest
from bench.compare.report import margin, verdict
from bench.compare.results import Run
from bench.lab.changes import changed
from bench.lab.presets import preset_of
from lmeraser.core.params import Params


class EnoughError(Exception):
    """The params are known: nothing need be trained."""


def asked_for(name: str, peer: str) -> Params:
    """The params on which a peer is measured."""
    seen: list[Params] = []

    def with_params(changes: dict[str, Any]) -> Any:
        seen.append(changed(preset_of(name), changes))
        raise EnoughError

    ground: Any = SimpleNamespace(with_params=with_params)
    with pytest.raises(EnoughError):
        people_contest(preset_of(name))[peer](ground)
    return seen[0]


@pytest.mark.parametrize(("name", "method"), [("omniglot-shift", "random"), ("signdigits", "tree")])
def test_ours_is_measured_with_the_presets_clustering(name: str, method: str) -> None:
    assert asked_for(name, "ours, unit subject").cluster.method == method
    assert asked_for(name, "ours, unit subject, heads only").cluster.method == method


def run(peer: str, seed: int, served: float) -> Run:
    return cast("Run", {"peer": peer, "seed": seed, "accuracy": {"served": served}})


def test_margin_is_taken_over_the_seeds_that_both_have() -> None:
    runs = {"a": [run("a", 0, 0.9), run("a", 1, 0.8)], "b": [run("b", 1, 0.7), run("b", 2, 0.1)]}
    assert margin(runs, "a", "b") == "+10.00 (1 seed)"
    assert margin(runs, "a", "c") is None
    runs["b"].append(run("b", 0, 0.7))
    assert margin(runs, "a", "b") == "+15.00 (2 seeds, +10.00 to +20.00)"


def test_results_of_other_params_are_told_apart_and_those_of_another_seed_or_place_are_not() -> None:
    preset = preset_of("omniglot-shift")
    assert made_by(preset) == made_by(preset_of("signdigits-shift")) == made_by(preset.model_copy(update={"seed": 7}))
    assert made_by(preset) != made_by(preset.model_copy(update={"tune": preset.tune.model_copy(update={"epochs": 1})}))


def test_nothing_is_said_of_prompts_that_a_preset_does_not_tune() -> None:
    runs = {name: [run(name, 0, 0.9)] for name in ("ours, unit subject", "ours, unit subject, heads only")}
    runs |= {"linear head on all private data": [run("linear head on all private data", 0, 0.8)]}
    for peer_runs in runs.values():
        peer_runs[0]["accuracy"]["clusters_hard"] = 0.5
    assert "What the prompt adds" in verdict(runs, framed=True)
    assert "What the prompt adds" not in verdict(runs, framed=False)
