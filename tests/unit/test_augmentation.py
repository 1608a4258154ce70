"""Order and augmentation of a record are functions of seed, id and epoch, and of nothing else."""

import numpy as np
from builders import pixels
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.learn.augmentation import augment, draws, epoch_order

IDS = [f"{index:032x}" for index in range(30)]
IMAGES = pixels(0, 30 * 8, 8, 3).reshape(30, 8, 8, 3)


@given(st.integers(0, 2**63 - 1), st.integers(0, 100), st.permutations(range(30)))
def test_draw_of_a_record_does_not_depend_on_its_neighbours(seed: int, epoch: int, order: list[int]) -> None:
    together = draws(IDS, epoch, seed)
    assert np.array_equal(draws([IDS[index] for index in order], epoch, seed), together[order])
    assert draws(IDS[3:4], epoch, seed)[0] == together[3]


def test_draws_differ_by_record_epoch_and_seed() -> None:
    drawn = [draws(IDS, epoch, seed) for epoch in range(5) for seed in range(5)]
    assert len(set(np.concatenate(drawn).tolist())) == 30 * 25


@given(st.integers(0, 3), st.booleans(), st.permutations(range(30)))
def test_augmented_image_does_not_depend_on_its_neighbours(shift: int, flip: bool, order: list[int]) -> None:
    drawn = draws(IDS, 1, 2)
    together = augment(IMAGES, drawn, shift, flip)
    assert np.array_equal(augment(IMAGES[order], drawn[order], shift, flip), together[order])


def test_without_shift_and_flip_images_stay_as_they_are() -> None:
    assert np.array_equal(augment(IMAGES, draws(IDS, 0, 0), 0, False), IMAGES)


def test_flip_mirrors_about_half_of_the_images_and_changes_no_other() -> None:
    moved = augment(IMAGES, draws(IDS, 0, 0), 0, True)
    mirrored = [np.array_equal(new, old[:, ::-1]) for new, old in zip(moved, IMAGES, strict=True)]
    kept = [np.array_equal(new, old) for new, old in zip(moved, IMAGES, strict=True)]
    assert all(is_mirrored != is_kept for is_mirrored, is_kept in zip(mirrored, kept, strict=True))
    assert 5 < sum(mirrored) < 25


def test_shift_moves_the_interior_by_at_most_so_many_pixels_and_repeats_edges() -> None:
    moved = augment(IMAGES, draws(IDS, 0, 0), 2, False)
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    seen = set()
    for new, wide in zip(moved, padded, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if np.array_equal(new, wide[y : y + 8, x : x + 8])]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 10


def test_augmenting_does_not_change_its_input() -> None:
    before = IMAGES.copy()
    augment(IMAGES, draws(IDS, 0, 0), 2, True)
    assert np.array_equal(IMAGES, before)


def test_epochs_visit_every_record_once_in_orders_of_their_own() -> None:
    orders = [epoch_order(draws(IDS, epoch, 0)).tolist() for epoch in range(4)]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
