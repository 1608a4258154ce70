"""The membership test: valid p, verdicts that never call silence a pass, and a trial that leaves the person out."""

import numpy as np
import pytest
from builders import Lab, refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError
from lmeraser.prove.membership import ALPHA, in_words, judge, rank_p


@given(st.lists(st.floats(0, 10), min_size=20, max_size=60))
def test_p_is_valid_when_the_model_is_one_of_its_references(losses: list[float]) -> None:
    """Every model takes the place of the one in question once: at most a share ALPHA of them may be flagged."""
    places = range(len(losses))
    flagged = sum(rank_p(losses[place], losses[:place] + losses[place + 1 :]) <= ALPHA for place in places)
    assert flagged <= ALPHA * len(losses)


def test_ties_count_against_a_finding() -> None:
    assert rank_p(1.0, [1.0] * 39) == rank_p(1.0, [float("nan")] * 39) == rank_p(float("nan"), [1.0] * 39) == 1.0
    assert rank_p(0.5, [1.0] * 39) == 1 / 40


def test_too_few_references_are_refused() -> None:
    refused(BadInputError, lambda: rank_p(1.0, [1.0] * 18))
    assert rank_p(0.0, [1.0] * 19) == ALPHA


@pytest.mark.parametrize(
    ("control", "after", "verdict"),
    [
        ([0.025] * 5, [0.5] * 5, "pass"),
        ([0.5] * 5, [0.5] * 5, "no power"),
        ([0.025] + [0.5] * 4, [0.5] * 5, "no power"),
        ([0.025] * 5, [0.025] * 5, "fail"),
        ([0.5] * 5, [0.025] * 5, "fail"),
        ([0.025] * 5, [0.025] + [0.5] * 4, "pass"),
        ([0.025], [0.5], "pass"),
    ],
)
def test_verdict_passes_only_if_the_control_was_detected_and_the_erased_was_not(
    control: list[float], after: list[float], verdict: str
) -> None:
    judgement = judge(control, after, 39)
    assert judgement.verdict == verdict
    assert in_words(judgement)[-1].lower().startswith(verdict)


@given(st.lists(st.tuples(st.floats(0.025, 1), st.floats(0.025, 1)), min_size=1, max_size=40))
def test_no_drill_passes_whose_control_was_not_detected(pairs: list[tuple[float, float]]) -> None:
    judgement = judge([a for a, _ in pairs], [b for _, b in pairs], 39)
    if judgement.verdict == "pass":
        assert judgement.control_detected > 0
    low, high = judgement.power_interval
    assert low <= judgement.power <= high


@pytest.mark.slow
def test_trial_tells_a_member_from_one_who_never_tuned_the_cluster(lab: Lab) -> None:
    """The person labels images the other way round: only a cluster that saw that can half know it."""
    from lmeraser.learn.membership import ClusterRecords, trial
    from lmeraser.learn.tuning import tune_cluster

    side, channels = lab.params.image.size, lab.params.image.channels
    own = np.arange(24) < 4
    bright = np.arange(24) % 2 == 0
    pixels = np.random.default_rng(0).integers(0, 100, (24, side, side, channels)).astype(np.uint8)
    pixels[bright] += 150
    labels = ["a" if light != mine else "b" for light, mine in zip(bright, own, strict=True)]
    records = ClusterRecords("c00", [f"{number:032x}" for number in range(24)], pixels, labels)
    # A head alone learns a convex problem: the references lie close together, whatever the processor's bits.
    params = lab.params.model_copy(update={"tune": lab.params.tune.model_copy(update={"epochs": 30, "frame_px": 0})})
    served = tune_cluster(records.ids, pixels, labels, lab.backbone, lab.skeleton, params, "c00")
    *progress, outcome = trial([(records, own, served)], lab.backbone, lab.skeleton, params, 19)
    assert progress == [None] * 19
    assert outcome is not None
    assert rank_p(outcome.before, outcome.references) == ALPHA
    assert rank_p(outcome.after, outcome.references) > ALPHA
    kept = records.only(~own)
    without = tune_cluster(kept.ids, kept.pixels, kept.labels, lab.backbone, lab.skeleton, params, "c00")
    *_, again = trial([(records, own, without)], lab.backbone, lab.skeleton, params, 19)
    assert again is not None
    assert again.before == again.after, "the deletion itself is one of the two"
