"""Absence: the root is that of a set of people, each erased one has a proof, and no proof that anybody touched shows anything."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256

import pytest
from builders import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.core.digest import canonical_json
from lmeraser.core.errors import VerificationError
from lmeraser.prove import absence as room
from lmeraser.prove.absence import NOBODY, Absence, Proof, Tree, check_absence, largest_proof, position_of

NAMES = st.sets(st.integers(0, 60), max_size=40)


def pseudonym(number: int) -> str:
    return sha256(f"person {number}".encode()).hexdigest()


def pseudonyms(numbers: Sequence[int]) -> list[str]:
    return sorted(map(pseudonym, numbers))


def root_of(numbers: Sequence[int]) -> str:
    return Tree(map(pseudonym, numbers)).root()


def by_the_book(positions: Sequence[int], depth: int = 0) -> bytes:
    """The root as the module's docstring defines it, bit by bit."""
    head = depth.to_bytes(2, "big")
    if not positions:
        return sha256(b"\x02").digest()
    if len(positions) == 1:
        return sha256(b"\x00" + head + positions[0].to_bytes(32, "big")).digest()
    sides = [[position for position in positions if position >> (255 - depth) & 1 == side] for side in (0, 1)]
    left, right = (by_the_book(side, depth + 1) for side in sides)
    return sha256(b"\x01" + head + left + right).digest()


@given(NAMES, st.randoms())
def test_root_is_a_function_of_the_set_alone(people: set[int], dice: random.Random) -> None:
    order = [*people, *list(people)[:3]]  # some twice
    dice.shuffle(order)
    assert root_of(order) == root_of(sorted(people)) == by_the_book([position_of(pseudonym(number)) for number in people]).hex()


@given(NAMES, NAMES)
def test_two_sets_of_people_have_two_roots(some: set[int], others: set[int]) -> None:
    assert (root_of(sorted(some)) == root_of(sorted(others))) == (some == others)


@given(NAMES, NAMES)
def test_everybody_who_is_not_there_has_a_proof_and_nobody_who_is(retained: set[int], asked: set[int]) -> None:
    tree, gone = Tree(map(pseudonym, retained)), pseudonyms(sorted(asked))
    if retained & asked:
        message = refused(VerificationError, lambda: tree.absence(gone))
        assert not any(name in message for name in gone)
        return
    absence = tree.absence(gone)
    assert absence.root == tree.root()
    check_absence(absence, gone)
    assert Absence.from_json(absence.to_json()) == absence
    for name in gone:
        check_absence(absence.of([name]), [name])
        assert absence.of([name]) == tree.absence([name]), "others who are asked for change no proof"


# tampering

TREE = Tree(map(pseudonym, range(64)))
GONE = pseudonyms(range(1000, 1040))
WHOLE = TREE.absence(GONE)
FIELDS = st.sampled_from(WHOLE.proofs)


def broken(proof: Proof, root: str = WHOLE.root) -> str:
    return refused(VerificationError, lambda: check_absence(Absence(root, (proof,)), [proof.subject]))


def test_the_examples_end_at_nobody_and_at_neighbours() -> None:
    assert {proof.neighbour is None for proof in WHOLE.proofs} == {True, False}
    assert any("0" in proof.bitmap for proof in WHOLE.proofs)


@given(FIELDS, st.integers(0, 255), st.data())
def test_any_flipped_bit_of_a_hash_is_refused(proof: Proof, bit: int, data: st.DataObject) -> None:
    def flipped(text: str) -> str:
        return f"{int(text, 16) ^ 1 << bit:064x}"

    place = data.draw(st.integers(-2, len(proof.siblings) - 1))
    if place == -2:
        broken(proof, flipped(WHOLE.root))
    elif place == -1 and proof.neighbour is not None:
        broken(replace(proof, neighbour=flipped(proof.neighbour)))
    elif place >= 0:
        siblings = list(proof.siblings)
        siblings[place] = flipped(siblings[place])
        broken(replace(proof, siblings=tuple(siblings)))


@given(FIELDS, st.data())
def test_any_changed_bitmap_is_refused(proof: Proof, data: st.DataObject) -> None:
    bitmap = data.draw(
        st.one_of(
            st.text("01", max_size=300),
            st.integers(0, len(proof.bitmap)).map(lambda end: proof.bitmap[:end]),
            st.permutations(proof.bitmap).map("".join),
        )
    )
    if bitmap != proof.bitmap:
        broken(replace(proof, bitmap=bitmap))


@given(FIELDS, st.data())
def test_swapped_missing_or_added_siblings_are_refused(proof: Proof, data: st.DataObject) -> None:
    kept = data.draw(st.permutations(proof.siblings))
    cut = tuple(kept[: data.draw(st.integers(0, len(kept)))]) + tuple(data.draw(st.lists(st.just("a" * 64), max_size=1)))
    if cut != proof.siblings:
        broken(replace(proof, siblings=cut))
        broken(replace(proof, siblings=cut, bitmap="1" * len(cut)))


@given(FIELDS, FIELDS)
def test_a_proof_of_one_person_shows_nothing_of_another(proof: Proof, other: Proof) -> None:
    if proof.subject != other.subject and (proof.bitmap, proof.siblings) != (other.bitmap, other.siblings):
        broken(replace(proof, subject=other.subject))


@settings(max_examples=40)
@given(st.integers(0, 63), FIELDS)
def test_nobody_who_is_retained_can_be_proven_absent(retained: int, proof: Proof) -> None:
    """With the honest siblings of the person's own path, whatever is said to stand at its end."""
    person = pseudonym(retained)
    honest = Tree(pseudonym(number) for number in range(64) if number != retained).absence([person]).proofs[0]
    broken(honest)
    broken(replace(proof, subject=person))
    with_own_end = replace(honest, neighbour=f"{position_of(person):064x}")
    assert "it ends at the person" in broken(with_own_end)


def test_a_sibling_that_is_nobody_cannot_be_listed_so_each_proof_has_one_spelling() -> None:
    proof = next(proof for proof in WHOLE.proofs if "0" in proof.bitmap)
    place = proof.bitmap.index("0")
    siblings = list(proof.siblings)
    siblings.insert(proof.bitmap[:place].count("1"), NOBODY.hex())
    spelt = replace(proof, bitmap=proof.bitmap[:place] + "1" + proof.bitmap[place + 1 :], siblings=tuple(siblings))
    assert "sibling that is nobody" in broken(spelt)


@given(FIELDS, st.integers(1, 20))
def test_a_proof_ends_where_at_most_one_person_is_left(proof: Proof, more: int) -> None:
    longer = replace(proof, bitmap=proof.bitmap + "0" * more)
    assert "goes on where at most one" in broken(longer)


def test_a_neighbour_must_stand_on_the_persons_own_path() -> None:
    proof = next(proof for proof in WHOLE.proofs if proof.neighbour is not None)
    other = next(o.neighbour for o in WHOLE.proofs if o.neighbour is not None and o.neighbour != proof.neighbour)
    assert "stands elsewhere" in broken(replace(proof, neighbour=other))


def test_the_people_of_the_proofs_are_those_of_the_certificate_each_once() -> None:
    for given_people in (GONE[:-1], GONE[1:], [*GONE, GONE[0]], GONE[::-1], []):
        refused(VerificationError, lambda people=given_people: check_absence(WHOLE, people))  # type: ignore[misc]
    twice = Absence(WHOLE.root, (WHOLE.proofs[0], *WHOLE.proofs))
    refused(VerificationError, lambda: check_absence(twice, GONE))


@pytest.mark.parametrize("leaf", ["_person", "_several"])
def test_the_depth_of_a_node_counts(leaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its depth a node could be shown at another one."""
    real: Callable[..., bytes] = getattr(room, leaf)
    monkeypatch.setattr(room, leaf, lambda depth, *below: real(depth + 1, *below))
    with pytest.raises(VerificationError, match="does not lead to the root"):
        check_absence(WHOLE, GONE)


# what it costs and tells


def test_a_proof_names_nobody_but_its_person() -> None:
    text = canonical_json(WHOLE.to_json()).decode()
    assert not any(pseudonym(number) in text for number in range(64))
    positions = {f"{position_of(pseudonym(number)):064x}" for number in range(64)}
    told = {proof.neighbour for proof in WHOLE.proofs if proof.neighbour}
    assert told <= positions
    assert sum(position in text for position in positions) == len(told)


@pytest.mark.parametrize("people", [1, 2, 1000, 20_000])
def test_a_proof_is_smaller_than_what_a_request_is_refused_by(people: int) -> None:
    absence = Tree(map(pseudonym, range(people))).absence(pseudonyms(range(10**6, 10**6 + 50)))
    sizes = [len(canonical_json(proof)) for proof in absence.to_json()["proofs"]]
    assert max(sizes) < largest_proof() < 4000
    assert max(len(proof.siblings) for proof in absence.proofs) <= people.bit_length() + 12
