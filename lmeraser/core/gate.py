"""The gate between clustering and training: records, partition, features, and that nobody erased is anywhere.

Facts are joined into frames of derived columns first (is this record in exactly one cluster? is it erased?), so that what is
judged and reported holds no personal value.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lmeraser.core import expectations as expect
from lmeraser.core.clustering import LEAF_SCHEMA, load_members
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.records import TRAIN, read_records, read_table


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
    private = {part: read_records(layout.part(part)) for part in params.parts}
    everything = [*read_records(layout.public), *(record for part in private.values() for record in part)]
    erased = {subject: is_erased(subject) for subject in {record.subject for record in everything}}
    records = pd.DataFrame(
        {
            "id": [record.id for record in everything],
            "labelled": [bool(record.label) for record in everything],
            "erased": [erased[record.subject] for record in everything],
        }
    )
    held: Counter[str] = Counter()
    digest: dict[str, str] = {}
    for slot in params.slots:
        for member in load_members(layout.members(slot)):
            held[member["id"]] += 1
            digest[member["id"]] = member["sha256"]
    training = {r.id: r.sha256 for part in private.values() for r in part if r.split == TRAIN}
    ids = sorted({*training, *held})
    partition = pd.DataFrame(
        {
            "clusters": [held[identity] for identity in ids],
            "true_digest": [digest.get(identity) == training.get(identity) for identity in ids],
        }
    )
    seen = [read_table(layout.leaves(part), LEAF_SCHEMA.names[-2:]).to_pandas() for part in params.parts]
    features = pd.concat(seen, ignore_index=True)
    return Facts(records, partition, features, int(features["dim"].max()))


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
