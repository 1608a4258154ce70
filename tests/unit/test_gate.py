"""The gate: records, partition, features, and that nobody erased is anywhere; every breach is refused with exit status 2."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import CANARY_LABEL, CANARY_SUBJECT, make_params, make_record, refused
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmeraser.clusters.files import Cluster, Member, load_placements, save_clusters, save_placements
from lmeraser.clusters.quantisation import Integers
from lmeraser.core.errors import ExpectationError
from lmeraser.core.layout import Layout
from lmeraser.data.records import Record, read_table, write_records, write_table
from lmeraser.gate.checks import Facts, _partition, check_all, gather

PARAMS = make_params({"parts": ["p00", "p01"], "slots": ["c00", "c01"], "skeleton.leaves": 2})
PRIVATE = [make_record(CANARY_SUBJECT, CANARY_LABEL, image=b"%d" % index) for index in range(3)]
TEST = make_record(CANARY_SUBJECT, CANARY_LABEL, split="test", image=b"test")
PUBLIC = make_record("pub", "one", "public", image=b"public")


def nobody(_: str) -> bool:
    return False


def member(record: Record, part: str = "p00") -> Member:
    return Member(record.id, record.sha256, record.label, "unit", 0, part)


def cluster(slot: str, members: list[Member]) -> Cluster:
    prototype: Integers = np.array([1.0, 2.0])
    return Cluster(slot, 0, 0, 0, sorted(members), prototype)


def build(root: Path, clusters: list[Cluster] | None = None, private: list[Record] | None = None, finite: bool = True) -> Layout:
    """A project as split, embed and cluster leave it: three training records in two clusters."""
    layout = Layout(root)
    records = PRIVATE if private is None else private
    write_records(layout.public, [(PUBLIC, b"public")])
    write_records(layout.part("p00"), [(record, b"image") for record in [*records, TEST]])
    write_records(layout.part("p01"), [])
    save_placements(layout.leaves("p00"), [member(record) for record in sorted(records)], [finite] * len(records), 4)
    save_placements(layout.leaves("p01"), [], [], 4)
    usual = [cluster("c00", [member(r) for r in PRIVATE[:2]]), cluster("c01", [member(r) for r in PRIVATE[2:]])]
    save_clusters(layout.clusters, usual if clusters is None else clusters, PARAMS.slots, {})
    return layout


def refusal(layout: Layout, is_erased: Callable[[str], bool] = nobody) -> str:
    return refused(ExpectationError, lambda: check_all(gather(layout, PARAMS, is_erased)))


def test_whole_project_passes_and_the_report_holds_counts_alone(tmp_path: Path) -> None:
    report = check_all(gather(build(tmp_path), PARAMS, nobody))
    assert report == {
        "records": {"rows": 5, "expectations": 4},
        "erased": {"rows": 5, "expectations": 2},
        "partition": {"rows": 3, "expectations": 3},
        "features": {"rows": 3, "expectations": 3},
    }


def test_frames_that_are_judged_hold_no_personal_value(tmp_path: Path) -> None:
    facts = gather(build(tmp_path), PARAMS, nobody)
    assert "CANARY" not in "".join(frame.to_csv() for frame in (facts.records, facts.partition, facts.features))


def test_erased_person_that_is_still_there_is_refused(tmp_path: Path) -> None:
    message = refusal(build(tmp_path), lambda subject: subject == CANARY_SUBJECT)
    assert "suite erased" in message
    assert "column erased: 4 of 5 rows" in message


def test_erased_public_person_that_is_still_there_is_refused(tmp_path: Path) -> None:
    assert "column erased: 1 of 5 rows" in refusal(build(tmp_path), lambda subject: subject == "pub")


def test_record_in_two_clusters_is_refused(tmp_path: Path) -> None:
    twice = [cluster("c00", [member(r) for r in PRIVATE]), cluster("c01", [member(PRIVATE[0])])]
    assert "suite partition" in refusal(build(tmp_path, twice))


def test_record_in_no_cluster_is_refused(tmp_path: Path) -> None:
    message = refusal(build(tmp_path, [cluster("c00", [member(r) for r in PRIVATE[:2]])]))
    assert "column clusters: 1 of 3 rows" in message


def test_test_record_in_a_cluster_is_refused(tmp_path: Path) -> None:
    leak = [cluster("c00", [*(member(r) for r in PRIVATE), member(TEST)])]
    assert "column true_digest: 1 of 4 rows" in refusal(build(tmp_path, leak))


def test_public_record_in_a_cluster_is_refused(tmp_path: Path) -> None:
    leak = [cluster("c00", [*(member(r) for r in PRIVATE), member(PUBLIC)])]
    assert "column true_digest: 1 of 4 rows" in refusal(build(tmp_path, leak))


def test_cluster_with_another_digest_than_the_part_is_refused(tmp_path: Path) -> None:
    other = replace(member(PRIVATE[0]), sha256="0" * 64)
    wrong = [cluster("c00", [other, *(member(r) for r in PRIVATE[1:])])]
    assert "column true_digest: 1 of 3 rows" in refusal(build(tmp_path, wrong))


def test_member_without_an_id_is_refused(tmp_path: Path) -> None:
    layout = build(tmp_path)
    members = read_table(layout.members("c00"))
    nameless = pa.table({name: pa.array([None], pa.string()) for name in members.column_names})
    write_table(layout.members("c00"), pa.concat_tables([members, nameless]))
    assert "column true_digest: 1 of 4 rows" in refusal(layout)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), max_size=20),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), unique_by=lambda record: record[0], max_size=12),
)
def test_partition_by_columns_is_the_one_record_by_record(placed: list[tuple[int, int]], training: list[tuple[int, int]]) -> None:
    """Args: a record and its digest each, of clusters and of parts."""
    expected = []
    for record in sorted({record for record, _ in placed + training}):
        digests = [digest for member, digest in placed if member == record]
        true = bool(digests) and {*digests} == {digest for trained, digest in training if trained == record}
        expected.append((len(digests), true))

    def columns(rows: list[tuple[int, int]]) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
        digests = [pa.array([str(digest) for _, digest in rows], pa.string())]
        return np.array([record for record, _ in rows], dtype=np.int64), pa.chunked_array(digests)

    frame = _partition(*columns(placed), *columns(training))
    assert list(frame.itertuples(index=False, name=None)) == expected


def test_record_that_stands_twice_is_refused(tmp_path: Path) -> None:
    message = refusal(build(tmp_path, private=[*PRIVATE, PRIVATE[0]]))
    assert "suite records" in message
    assert "column id: 2 of 6 rows" in message


def test_record_without_a_label_is_refused(tmp_path: Path) -> None:
    message = refusal(build(tmp_path, private=[*PRIVATE, make_record(CANARY_SUBJECT, "", image=b"unlabelled")]))
    assert "column labelled: 1 of 6 rows" in message


def test_feature_that_is_no_number_is_refused(tmp_path: Path) -> None:
    message = refusal(build(tmp_path, finite=False))
    assert "suite features" in message
    assert "column finite: 3 of 3 rows" in message


def test_features_of_two_lengths_are_refused(tmp_path: Path) -> None:
    layout = build(tmp_path)
    save_placements(layout.leaves("p01"), [member(PRIVATE[0], "p01")], [True], 5)
    assert "column dim: 3 of 4 rows" in refusal(layout)


def test_empty_frames_are_refused() -> None:
    good = pd.DataFrame({"id": ["a"], "labelled": [True], "erased": [False]})
    partition = pd.DataFrame({"clusters": [1], "true_digest": [True]})
    features = pd.DataFrame({"finite": [True], "dim": [4]})
    whole = Facts(good, partition, features, 4)
    check_all(whole)
    without = {
        "records": replace(whole, records=good[:0]),
        "partition": replace(whole, partition=partition[:0]),
        "features": replace(whole, features=features[:0]),
    }
    for name, facts in without.items():
        assert f"suite {name}" in refused(ExpectationError, partial(check_all, facts))


def test_missing_column_is_refused() -> None:
    good = pd.DataFrame({"id": ["a"], "labelled": [True], "erased": [False]})
    partition = pd.DataFrame({"clusters": [1]})
    facts = Facts(good, partition, pd.DataFrame({"finite": [True], "dim": [4]}), 4)
    assert "column true_digest: 1 of 1 rows" in refused(ExpectationError, lambda: check_all(facts))


def test_placements_read_back_as_they_were_written(tmp_path: Path) -> None:
    layout = build(tmp_path)
    assert load_placements(layout.leaves("p00"), "p00") == [member(record) for record in sorted(PRIVATE)]


@pytest.mark.parametrize("slot", ["c00", "c01"])
def test_missing_member_file_is_refused(tmp_path: Path, slot: str) -> None:
    from lmeraser.core.errors import ProjectError

    layout = build(tmp_path)
    layout.members(slot).unlink()
    assert f"{slot}.parquet is missing" in refused(ProjectError, lambda: gather(layout, PARAMS, nobody))
