"""The gate between clustering and training: records, partition, features, and that nobody erased is anywhere.

Facts are joined into frames of derived columns first (is this record in exactly one cluster? is it erased?), so that what is
judged and reported holds no personal value.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmeraser.clusters.files import LEAF_SCHEMA
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import TRAIN, read_table
from lmeraser.gate import expectations as expect


@dataclass(frozen=True)
class Facts:
    """Frames with one row a record, of derived columns only.

    Attributes:
        records: id, labelled, erased: every record, public and private.
        partition: clusters (how many hold the record), true_digest: every private training record or cluster member.
        features: finite, dim: every private training record as `embed` saw it.
        dim: features expected.
    """

    records: pd.DataFrame
    partition: pd.DataFrame
    features: pd.DataFrame
    dim: int


def gather(layout: Layout, params: Params, is_erased: Callable[[str], bool], erased_images: Container[str] = ()) -> Facts:
    """Join what split, embed and cluster wrote. Args: erased_images: digests that no record may have.

    By whole columns, and an id is a number from the first join on: Great Expectations hashes and looks through every frame that
    it is given several times, which a million strings take seconds for.
    """
    facts = ("id", "label", "subject")
    private = pa.concat_tables([read_table(layout.part(part), (*facts, "split", "sha256")) for part in params.parts])
    training = pc.equal(private["split"], TRAIN)
    promised, private = private["sha256"].filter(training), private.select(facts)  # the other digests are not needed
    everything = pa.concat_tables([read_table(layout.public, facts), private])
    members = pa.concat_tables([read_table(layout.members(slot), ("id", "sha256")) for slot in params.slots])
    numbers = _numbered(everything["id"], members["id"])
    known, placed = numbers[: len(everything)], numbers[len(everything) :]
    ought = known[len(everything) - len(private) :][training.to_numpy()]
    partition = _partition(placed, members["sha256"], ought, promised)
    erased = pc.is_in(
        everything["subject"],
        value_set=pa.array(
            [subject for subject in everything["subject"].unique().to_pylist() if is_erased(subject)], pa.string()
        ),
    )
    if erased_images:  # false while there is none: digests of all records are read for it
        digests = pa.concat_tables([read_table(path, ("sha256",)) for path in (layout.public, *map(layout.part, params.parts))])
        gone = pa.array([text for text in digests["sha256"].unique().to_pylist() if text in erased_images], pa.string())
        erased = pc.or_(erased, pc.is_in(digests["sha256"], value_set=gone))
    records = pd.DataFrame(
        {
            "id": pd.Series(known).mask(known < 0),
            "labelled": pc.greater(pc.utf8_length(everything["label"]), 0).to_pandas(),
            "erased": erased.to_pandas(),
        }
    )
    seen = [read_table(layout.leaves(part), LEAF_SCHEMA.names[-2:]).to_pandas() for part in params.parts]
    features = pd.concat(seen, ignore_index=True)
    return Facts(records, partition, features, int(features["dim"].max()))


def _numbered(*columns: pa.ChunkedArray) -> NDArray[np.int64]:
    """The ids of several columns, one after the other, as numbers from 0: equal ids have equal ones; -1 where there is none."""
    ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string()).combine_chunks()
    codes = ids.dictionary_encode().indices
    numbers: NDArray[np.int64] = pc.fill_null(codes, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _partition(
    placed: NDArray[np.int64], digests: pa.ChunkedArray, ought: NDArray[np.int64], promised: pa.ChunkedArray
) -> pd.DataFrame:
    """One row a record that is in a cluster or ought to be: in how many it is, and whether with the digest that its part has.

    Args: placed: (m,) numbers of the clusters' records, and their digests; ought: (n,) of training records, and theirs.
    """
    records = int(max(placed.max(initial=-1), ought.max(initial=-1))) + 1
    row = np.full(records + 1, -1, dtype=np.int64)  # in `ought` of each number; the last place, -1, is of what has no id
    row[ought] = np.arange(len(ought))
    row[-1] = -1
    right = np.zeros(len(placed), dtype=np.bool_)
    theirs = np.flatnonzero(row[placed] >= 0)
    if len(theirs):
        equal = pc.equal(digests.take(pa.array(theirs)), promised.take(pa.array(row[placed[theirs]])))
        right[theirs] = pc.fill_null(equal, False).to_numpy()
    clusters = np.bincount(placed % (records + 1), minlength=records + 1)
    wrong = np.zeros(records + 1, dtype=np.bool_)
    wrong[placed[~right]] = True  # also what ought to be in no cluster
    there = np.flatnonzero((row >= 0) | (clusters > 0))
    return pd.DataFrame({"clusters": clusters[there], "true_digest": (clusters[there] > 0) & ~wrong[there]})


def check_all(facts: Facts) -> dict[str, dict[str, Any]]:
    """Judge every suite. Returns rows and expectations of each; raises ExpectationError at the first that fails."""
    some = expect.rows_at_least(1)
    suites = {
        "records": (
            facts.records,
            [some, expect.not_null("id"), expect.unique("id"), expect.in_set("labelled", (True,))],
        ),
        "erased": (facts.records, [some, expect.in_set("erased", (False,))]),
        "partition": (
            facts.partition,
            [some, expect.between("clusters", 1, 1), expect.in_set("true_digest", (True,))],
        ),
        "features": (
            facts.features,
            [some, expect.in_set("finite", (True,)), expect.between("dim", facts.dim, facts.dim)],
        ),
    }
    return {
        name: {"rows": len(frame), "expectations": expect.require(name, frame, wanted)}
        for name, (frame, wanted) in suites.items()
    }
