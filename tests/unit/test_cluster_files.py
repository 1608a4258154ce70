"""Clusters come back from their files as they were saved, and the files have the bytes that they always had."""

from pathlib import Path

import numpy as np
import pytest
from builders import members_on, refused

from lmeraser.clusters.files import Cluster, ClusterSize, SlotMember, load_members, load_sizes, save_clusters
from lmeraser.core.digest import sha256
from lmeraser.core.errors import ProjectError

MEMBERS = members_on([0, 1, 1])
CLUSTER = Cluster("c01", 4, 1, 2, MEMBERS, np.zeros(2))
TABLE = b"""[
  {
    "first_leaf": 1,
    "last_leaf": 2,
    "node": 4,
    "records": 3,
    "slot": "c01",
    "units": 3
  }
]
"""


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    save_clusters(tmp_path, [CLUSTER], ["c00", "c01"], {})
    assert load_sizes(tmp_path) == [ClusterSize("c01", 4, 1, 2, 3, 3)]
    assert load_members(tmp_path / "members" / "c01.parquet") == [
        SlotMember(member.id, member.sha256, member.label, member.part) for member in MEMBERS
    ]
    assert load_members(tmp_path / "members" / "c00.parquet") == []


def test_table_of_clusters_is_byte_for_byte_that_of_earlier_versions(tmp_path: Path) -> None:
    save_clusters(tmp_path, [CLUSTER], ["c00", "c01"], {})
    assert sha256((tmp_path / "clusters.json").read_bytes()) == sha256(TABLE)


@pytest.mark.parametrize("text", ["", "{}x", '[{"slot": "c00"}]', "[3]"])
def test_damaged_table_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "clusters.json").write_text(text)
    assert "clusters.json is missing or damaged" in refused(ProjectError, lambda: load_sizes(tmp_path))
