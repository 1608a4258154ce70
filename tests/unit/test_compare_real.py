"""The comparison over given backbones: features are extracted once, and the tables say what was measured and what was not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from builders import ROOT

from bench.choose.trials import halved, shown
from bench.compare.real import data, features, peers, results
from bench.compare.real.chosen import fit, own_span, penalty_for
from bench.compare.real.features import Store, extract
from bench.compare.real.outcome import Outcome
from bench.compare.real.peers import DEEP, LAST, OURS, PEERS, THROUGH_NETWORK
from bench.compare.real.report import least_margins, not_measured, spread, verdict
from bench.compare.real.results import Run
from bench.compare.real.stand import Side, Stand
from bench.lab.changes import changed
from lmeraser.core.params import load_params
from lmeraser.data.records import Record

LABELS = ("one", "three", "two")
WIDTHS = (6, 4)


def side(people: range, seed: int) -> Side:
    """Four images of each person, of three labels that differ in every depth."""
    generator = np.random.default_rng(seed)
    records = sorted(
        Record(
            f"{seed:02d}{person:05d}{image:05d}", f"{seed}-{person}-{image}", LABELS[(person + image) % 3], f"s{person}", "train"
        )
        for person in people
        for image in range(4)
    )
    centres = np.random.default_rng(9).standard_normal((3, sum(WIDTHS))) * 3
    rows = centres[[LABELS.index(record.label) for record in records]] + generator.standard_normal((len(records), sum(WIDTHS)))
    return Side(records, rows.astype(np.float32))


@pytest.fixture(scope="module")
def stand() -> Stand:
    preset = load_params(ROOT / "params" / "efficientnet-lite0.yaml")
    params = changed(preset, {"skeleton.leaves": 4, "cluster.anchors": 20, "cluster.k": 3, "projection.dim": 16})
    return Stand(params, side(range(12), 1), side(range(20, 44), 2), side(range(50, 60), 3), WIDTHS, {})


@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer not in THROUGH_NETWORK])
def test_every_peer_answers_with_probabilities_and_tells_what_a_deletion_costs(
    peer: str, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "RANDOM", 60)
    outcome: Outcome = PEERS[peer](stand)
    assert outcome.probabilities.shape == (len(stand.test.records), 3)
    np.testing.assert_allclose(outcome.probabilities.sum(1), 1, atol=1e-5)
    run = results.run_of("efficientnet-lite0", "signdigits", peer, stand, outcome)
    assert (run["accuracy"] or 0) > 0.8
    assert outcome.equal in (None, True)
    assert 0 <= outcome.deletion_passes <= len(stand.train.records) - stand.own
    assert outcome.storage > 0


def test_what_ours_must_embed_again_is_the_persons_own_images(stand: Stand) -> None:
    assert PEERS[OURS](stand).deletion_passes == 4
    assert PEERS[DEEP](stand).deletion_passes == len(stand.train.records) - 4


def test_fewer_records_than_features_are_solved_in_their_span_with_the_same_answers() -> None:
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((12, 40)).astype(np.float32)
    labels = [LABELS[row % 3] for row in range(12)]
    asked = generator.standard_normal((7, 40)).astype(np.float32)
    spanned = fit(rows, labels, 1.0)
    wide = fit(np.concatenate([rows, rows, rows, rows]), labels * 4, 4.0)  # the same problem, with more records than features
    assert spanned.axes is not None
    assert own_span(np.zeros((48, 40), dtype=np.float32)) is None
    np.testing.assert_allclose(spanned.probabilities(asked), wide.probabilities(asked), atol=1e-3)


def test_a_penalty_is_chosen_without_the_person_who_is_answered(stand: Stand) -> None:
    """Records of one person only: nobody is left to fit on, and the middle penalty stays."""
    rows, labels = stand.last(stand.public), stand.public.labels
    assert penalty_for(rows, labels, ["alone"] * len(labels)) == 1.0


def test_features_are_extracted_once_and_come_in_the_order_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK", 2)
    calls = tmp_path / "calls"
    calls.mkdir()

    def compute(images: Sequence[bytes]) -> Any:
        for image in images:
            with (calls / image.decode()).open("a") as file:
                file.write("x")
        return np.array([[float(image), 1] for image in images], dtype=np.float32)

    store = Store(tmp_path / "store")
    extract(store, {"a": b"1", "b": b"2", "c": b"3"}, compute, "test")
    extract(store, {"b": b"2", "c": b"3", "d": b"4"}, compute, "test")
    assert store.rows(["d", "a", "c", "a"])[:, 0].tolist() == [4, 1, 3, 1]
    assert {path.name: path.read_text() for path in calls.iterdir()} == {"1": "x", "2": "x", "3": "x", "4": "x"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "store").glob("*.*"))
    with pytest.raises(KeyError):
        store.rows(["e"])


def test_what_is_public_of_published_images_may_be_private_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """So features of one draw serve both contests."""
    for name, count in (("TRAIN_IMAGES", 6), ("TEST_IMAGES", 2), ("PUBLIC_IMAGES", 3)):
        monkeypatch.setattr(data, name, count)
    splits = ["train"] * 8 + ["test"] * 4

    def manifest(visibilities: dict[str, str]) -> pd.DataFrame:
        rows = [(f"{pack}/{n}.jpg", visibility, splits[n]) for pack, visibility in visibilities.items() for n in range(12)]
        return data.thin_out(pd.DataFrame(rows, columns=["path", "visibility", "split"]))

    ten, hundred = manifest({"ten": "private", "hundred": "public"}), manifest({"hundred": "private", "ten": "public"})
    assert ten.groupby(["visibility", "split"]).size().to_dict() == {
        ("private", "test"): 2,
        ("private", "train"): 6,
        ("public", "train"): 3,
    }
    private = set(hundred[(hundred["visibility"] == "private") & (hundred["split"] == "train")]["path"])
    assert set(ten[ten["visibility"] == "public"]["path"]) < private


def made(peer: str, seed: int, accuracy: float, name: str = "mnist") -> Run:
    run: Any = {"backbone": "dinov2-small", "data": name, "seed": seed, "peer": peer, "accuracy": accuracy}
    return run  # type: ignore[no-any-return]


def test_the_verdict_counts_rows_and_seeds_against_the_better_regression() -> None:
    runs = [
        made(OURS, 0, 0.90),
        made(LAST, 0, 0.80),
        made(DEEP, 0, 0.88),
        made(OURS, 1, 0.90),
        made(LAST, 1, 0.91),
        made(DEEP, 1, 0.89),
    ]
    runs += [made(OURS, 0, 0.5, "omniglot"), made(LAST, 0, 0.6, "omniglot"), made(DEEP, 0, 0.4, "omniglot"), made(LAST, 2, 0.1)]
    assert least_margins(runs, "dinov2-small", "mnist") == {0: pytest.approx(2), 1: pytest.approx(-1)}
    text = verdict(runs)
    assert "on 1 of 2 rows in the mean, on 0 of 2 with every seed, and in 1 of 3 seeds" in text
    assert "two points or more above the one on the last layer, in the mean, on 1 of 2 rows" in text
    assert "Below the better one: dinov2-small, omniglot (-10.00)" in text


def test_what_was_not_measured_is_said() -> None:
    text = not_measured([made(OURS, seed, 0.9) for seed in range(3)] + [made(LAST, 0, 0.9)])
    assert "- efficientnet-lite0, mnist, no seeds: nothing" in text
    assert f"- dinov2-small, mnist, 1 seed: {LAST}" in text
    assert OURS not in text.split("dinov2-small, mnist")[1].split("dinov2-small, omniglot")[0]
    assert spread([0.5, 0.7], "{:.1f}") == "0.6 (0.5 to 0.7, 2 seeds)"


def test_results_of_two_processes_meet_in_one_file(tmp_path: Path) -> None:
    results.keep([made(OURS, 0, 0.5)], tmp_path)
    results.keep([made(LAST, 0, 0.6), made(OURS, 0, 0.7)], tmp_path)
    assert [(run["peer"], run["accuracy"]) for run in results.kept_runs(tmp_path)] == [(LAST, 0.6), (OURS, 0.7)]


def test_choosing_shows_the_least_loss_of_each_solve_and_no_mix_without_clusters() -> None:
    solve = "shrinkage 40.0, evenness 0.5"
    names = {f"global head, {solve}": 0.9, f"log-loss, {solve}, temperature 8": 0.4}
    names |= {f"log-loss, {solve}, temperature 16": 0.3, "clusters": 0.0}
    assert shown(names) == [f"global head, {solve}", "clusters", f"log-loss, {solve}, temperature 16"]
    preset = load_params(ROOT / "params" / "efficientnet-lite0.yaml")
    assert halved(preset).skeleton.leaves == preset.skeleton.leaves // 2
