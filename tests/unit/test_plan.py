"""The plan of an erasure: counts, slots and parts, from facts alone; refusals tell positions and counts, never people."""

import json
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pytest
from builders import CANARY_LABEL, CANARY_SUBJECT, make_params, make_record, make_tree, refused

from lmeraser.clusters.files import Member
from lmeraser.core.digest import part_of
from lmeraser.core.errors import BlockedError, RequestError, UnknownSubjectError
from lmeraser.core.names import MAX_LENGTH
from lmeraser.data.records import Record
from lmeraser.erase.erased import ErasedList, SubjectKey
from lmeraser.erase.facts import check_known, normalise_subjects
from lmeraser.erase.plan import Facts, Plan, make_plan

KEY = SubjectKey(b"k" * 32)
PARAMS = make_params({"cluster.n_max": 3, "skeleton.leaves": 2})
PUBLIC = [make_record("pub-1", "one", "public", image=b"p1"), make_record("pub-2", "two", "public", image=b"p2")]


def private(subject: str, label: str, image: int, split: str = "train") -> Record:
    return make_record(subject, label, split=split, image=b"private %d" % image)


def facts_of(placed: Sequence[tuple[Record, int]], tests: Sequence[Record] = (), public: Sequence[Record] = PUBLIC) -> Facts:
    """A built project of two leaves: training records with the leaf of each, and test records."""
    members = [Member(r.id, r.sha256, r.label, r.subject, leaf, f"p{part_of(r.subject, 4):02d}") for r, leaf in placed]
    return Facts.of(PARAMS, public, [*(record for record, _ in placed), *tests], members, make_tree(0, 2), ["c00", "c01"])


def records_table(records: Sequence[Record]) -> pa.Table:
    return facts_of([], records).private


def two_clusters() -> Facts:
    """Ada and ben on the left, cem and the canary on the right; ada has a test record."""
    placed = [
        (private("ada", "one", 1), 0),
        (private("ada", "two", 2), 0),
        (private("ben", "two", 3), 0),
        (private("cem", "one", 4), 1),
        (private(CANARY_SUBJECT, CANARY_LABEL, 5), 1),
        (private("ben", "one", 6), 0),
        (private("cem", "two", 7), 1),
    ]
    return facts_of(placed, [private("ada", "one", 8, "test"), private("tess", "one", 9, "test")])


def test_plan_of_one_person_names_its_cluster_its_part_and_its_records() -> None:
    plan = make_plan(["ada"], two_clusters(), include_public=False)
    assert (plan.subjects, plan.records_removed, plan.train_removed, plan.test_removed) == (1, 3, 2, 1)
    assert plan.parts == [f"p{part_of('ada', 4):02d}"]
    assert (plan.slots_retrained, plan.slots_emptied, plan.records_retrained) == (["c00"], [], 2)
    assert (plan.clusters_total, plan.records_total, plan.cut_changes) == (2, 5, False)
    assert (plan.rebuild, plan.exact, plan.public_removed) == (False, True, 0)


def test_plan_of_two_people_is_one_plan_whatever_their_order() -> None:
    plan = make_plan(["ada", "cem"], two_clusters(), include_public=False)
    assert plan == make_plan(["cem", "ada", "cem"], two_clusters(), include_public=False)
    assert plan.subjects == 2
    assert plan.train_removed == 4


def test_plan_holds_no_personal_value_and_reads_back_from_json() -> None:
    plan = make_plan([CANARY_SUBJECT], two_clusters(), include_public=False)
    text = json.dumps(plan.to_json())
    assert "CANARY" not in text
    private_values = two_clusters().private.select(["id", "sha256"]).to_pydict()
    assert not any(value in text for values in private_values.values() for value in values)
    assert Plan.from_json(json.loads(text)) == plan


def test_person_with_test_records_alone_retrains_nothing() -> None:
    plan = make_plan(["tess"], two_clusters(), include_public=False)
    assert (plan.train_removed, plan.test_removed) == (0, 1)
    assert (plan.slots_retrained, plan.slots_emptied, plan.records_retrained, plan.cut_changes) == ([], [], 0, False)


def test_last_records_of_a_cluster_empty_its_slot() -> None:
    placed = [(private("ada", "one", 1), 0), (private("ada", "two", 2), 0), (private("ben", "one", 3), 0)]
    placed += [(private("dan", "two", 4), 0), (private("cem", "one", 5), 1)]
    plan = make_plan(["cem"], facts_of(placed), include_public=False)
    assert (plan.slots_retrained, plan.slots_emptied, plan.clusters_total) == ([], ["c01"], 1)


def test_plan_names_a_merge_of_clusters() -> None:
    placed = [(private(f"person-{i}", ("one", "two")[i % 2], i), int(i > 1)) for i in range(4)]
    plan = make_plan(["person-0"], facts_of(placed), include_public=False)
    assert (plan.cut_changes, plan.slots_retrained, plan.slots_emptied) == (True, ["c00"], ["c01"])
    assert plan.records_retrained == plan.records_total == 3


def test_label_that_nobody_else_has_is_counted() -> None:
    assert make_plan([CANARY_SUBJECT], two_clusters(), include_public=False).labels_lost == 1
    assert make_plan(["ada"], two_clusters(), include_public=False).labels_lost == 0


def test_image_that_a_retained_person_holds_too_is_counted() -> None:
    facts = two_clusters()
    again = make_record("ben", "two", image=b"private 1")
    shared = replace(facts, private=pa.concat_tables([facts.private, records_table([again])]))
    assert make_plan(["ada"], shared, include_public=False).shared_images == 1
    assert make_plan(["ada"], facts, include_public=False).shared_images == 0
    assert make_plan(["ada", "ben"], shared, include_public=False).shared_images == 0


def test_person_with_public_records_is_blocked_with_the_cost() -> None:
    public = [*PUBLIC, make_record(CANARY_SUBJECT, "one", "public", image=b"p3")]
    facts = replace(two_clusters(), public=records_table(public))
    message = refused(BlockedError, lambda: make_plan([CANARY_SUBJECT, "ada"], facts, include_public=False))
    assert "1 of the subjects have 1 public records" in message
    assert "all 2 clusters" in message
    assert "--include-public" in message


def test_accepted_public_records_rebuild_everything() -> None:
    public = [*PUBLIC, make_record("ada", "one", "public", image=b"p3")]
    plan = make_plan(["ada"], replace(two_clusters(), public=records_table(public)), include_public=True)
    assert (plan.rebuild, plan.exact, plan.public_removed, plan.records_removed) == (True, False, 1, 4)
    assert plan.slots_retrained == ["c00", "c01"]
    assert plan.records_retrained == plan.records_total == 5


def test_accepting_public_records_changes_nothing_for_a_person_without() -> None:
    assert make_plan(["ada"], two_clusters(), include_public=True) == make_plan(["ada"], two_clusters(), include_public=False)


@pytest.mark.parametrize("subjects", [["ada", "ben", "cem", CANARY_SUBJECT]])
def test_erasing_every_private_training_record_is_refused(subjects: list[str]) -> None:
    message = refused(RequestError, lambda: make_plan(subjects, two_clusters(), include_public=False))
    assert "all private training records" in message


def test_erasing_every_public_training_record_is_refused() -> None:
    message = refused(RequestError, lambda: make_plan(["pub-1", "pub-2"], two_clusters(), include_public=True))
    assert "all public training records" in message


def test_erasing_all_but_one_class_is_refused() -> None:
    placed = [(private(CANARY_SUBJECT, CANARY_LABEL, 1), 0), (private("ben", "two", 2), 0)]
    message = refused(RequestError, lambda: make_plan([CANARY_SUBJECT], facts_of(placed), include_public=False))
    assert "private training records left would have one class" in message
    message = refused(RequestError, lambda: make_plan(["pub-1"], two_clusters(), include_public=True))
    assert "public training records left would have one class" in message


def test_plan_for_the_papers_clustering_is_an_upper_bound() -> None:
    facts = replace(two_clusters(), params=make_params({"cluster.method": "anchors", "cluster.k": 2}))
    plan = make_plan(["ada"], facts, include_public=False)
    assert (plan.exact, plan.slots_retrained, plan.records_retrained) == (False, ["c00", "c01"], 5)
    exact = make_plan(["ada"], two_clusters(), include_public=False)
    assert set(exact.slots_retrained) <= set(plan.slots_retrained)
    tests_alone = make_plan(["tess"], facts, include_public=False)
    assert (tests_alone.slots_retrained, tests_alone.records_retrained) == ([], 0)


def test_plan_says_what_happens_to_the_source() -> None:
    assert "outside the project's control" in make_plan(["ada"], two_clusters(), include_public=False).source
    erasing = replace(two_clusters(), params=make_params({"source.erase": True, "source.kind": "manifest"}))
    assert make_plan(["ada"], erasing, include_public=False).source.startswith("erased")


def test_subjects_are_trimmed_composed_and_named_once() -> None:
    assert normalise_subjects([" anna", "Zoe\u0301 ", "Zo\u00e9", "anna"]) == ["anna", "Zo\u00e9"]


@pytest.mark.parametrize(
    "given_",
    [[], [""], ["anna", "  "], ["CANARY\nanna"], ["CANARY\0"], ["CANARY" * MAX_LENGTH], ["ok", "CANARY\x1b[2J"]],
)
def test_subject_that_cannot_be_one_is_refused_by_its_position(given_: list[str]) -> None:
    message = refused(RequestError, lambda: normalise_subjects(given_))
    assert not given_ or f"subject {len(given_)} of {len(given_)}" in message


def test_unknown_subject_is_refused_by_its_position() -> None:
    nobody = ErasedList(None, frozenset())
    message = refused(UnknownSubjectError, lambda: check_known(["ada", "CANARY-eve"], two_clusters(), nobody, KEY))
    assert "subject 2 of 2 is unknown" in message
    check_known(["ada", "tess", "pub-1", CANARY_SUBJECT], two_clusters(), nobody, KEY)


def test_erased_subject_is_refused_as_such_and_not_as_unknown() -> None:
    listed = ErasedList(KEY.id, frozenset({KEY.pseudonym("CANARY-eve")}))
    message = refused(RequestError, lambda: check_known(["CANARY-eve"], two_clusters(), listed, KEY))
    assert "already erased" in message


def test_subject_that_is_no_unicode_is_refused() -> None:
    nobody = ErasedList(None, frozenset())
    refused(RequestError, lambda: check_known(normalise_subjects(["CANARY\udcff"]), two_clusters(), nobody, KEY))


def test_papers_clustering_with_too_few_people_left_is_refused_by_the_plan() -> None:
    params = make_params({"cluster.method": "anchors", "cluster.k": 4})
    refused(RequestError, lambda: make_plan(["ada"], replace(two_clusters(), params=params), include_public=False))


def test_fewer_public_units_than_leaves_would_be_left() -> None:
    public = [*PUBLIC, make_record("pub-3", "one", "public", image=b"p3")]
    three = make_params({"cluster.n_max": 3, "skeleton.leaves": 3})
    facts = replace(two_clusters(), public=records_table(public), params=three)
    message = refused(RequestError, lambda: make_plan(["pub-3"], facts, include_public=True))
    assert "2 public units would be left for skeleton.leaves 3" in message
    assert make_plan(["ada"], facts, include_public=True).rebuild is False
