"""The gate between clustering and training: records, partition, features, and that nobody erased is anywhere.

Facts are joined into frames of derived columns first (is this record in exactly one cluster? is it erased?), so that what is
judged and reported holds no personal value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from lmeraser.clusters.files import LEAF_SCHEMA
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.records import FACTS, TRAIN, read_table
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


def gather(layout: Layout, params: Params, is_erased: Callable[[str], bool]) -> Facts:
    """Join what split, embed and cluster wrote."""
    private = pa.concat_tables([read_table(layout.part(part), FACTS) for part in params.parts])
    everything = pa.concat_tables([read_table(layout.public, FACTS), private])
    subjects = everything["subject"].unique()
    erased = pa.array([subject for subject in subjects.to_pylist() if is_erased(subject)], pa.string())
    records = pd.DataFrame(
        {
            "id": everything["id"].to_pandas(),
            "labelled": pc.greater(pc.utf8_length(everything["label"]), 0).to_pandas(),
            "erased": pc.is_in(everything["subject"], value_set=erased).to_pandas(),
        }
    )
    members = pa.concat_tables([read_table(layout.members(slot), ("id", "sha256")) for slot in params.slots])
    partition = _partition(members, private.filter(pc.equal(private["split"], TRAIN)))
    seen = [read_table(layout.leaves(part), LEAF_SCHEMA.names[-2:]).to_pandas() for part in params.parts]
    features = pd.concat(seen, ignore_index=True)
    return Facts(records, partition, features, int(features["dim"].max()))


def _partition(members: pa.Table, training: pa.Table) -> pd.DataFrame:
    """One row a record that is in a cluster or ought to be: in how many it is, and whether with the digest that its part has."""
    placed = members.group_by("id").aggregate([("id", "count"), ("sha256", "min"), ("sha256", "max")])
    promised_digests = training.group_by("id").aggregate([("sha256", "min")]).rename_columns({"sha256_min": "promised"})
    both = placed.join(promised_digests, "id", join_type="full outer")
    least, most, promised = (pc.fill_null(both[name], "") for name in ("sha256_min", "sha256_max", "promised"))
    return pd.DataFrame(
        {
            "clusters": pc.fill_null(both["id_count"], 0).to_pandas(),
            "true_digest": pc.and_(pc.equal(least, promised), pc.equal(most, promised)).to_pandas(),
        }
    )


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
