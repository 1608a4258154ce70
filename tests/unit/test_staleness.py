"""What a change of one file makes stale, told from dvc.yaml alone: no colour, help text, scan or ledger moves an artifact.

A slow test (tests/pipeline/test_staleness.py) asks DVC the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from builders import ROOT, make_params

from unit.test_imports import STAGES

PARAMS = make_params()
ITEMS = {"${parts}": PARAMS.parts, "${slots}": PARAMS.slots}


@dataclass(frozen=True)
class Node:
    """One stage as DVC runs it, `foreach` resolved. Attributes: deps, outs: paths from the project's folder."""

    name: str
    deps: frozenset[str]
    outs: frozenset[str]


def path_of(entry: str | dict[str, Any]) -> str:
    """An out or a metric, with or without options."""
    return entry if isinstance(entry, str) else next(iter(entry))


def nodes() -> Iterator[Node]:
    for name, stage in STAGES.items():
        definition = stage.get("do", stage)
        items = ITEMS[stage["foreach"]] if "foreach" in stage else ("",)
        outs = [path_of(entry) for kind in ("outs", "metrics") for entry in definition.get(kind, [])]
        for item in items:
            yield Node(
                f"{name}@{item}" if item else name,
                frozenset(
                    dep.replace("${item}", item).replace("${source.path}", PARAMS.source.path) for dep in definition["deps"]
                ),
                frozenset(out.replace("${item}", item) for out in outs),
            )


GRAPH = tuple(nodes())
EVERY_SLOT = {f"tune@{slot}" for slot in PARAMS.slots}
EVERY_PART = {f"embed@{part}" for part in PARAMS.parts}


def meet(first: str, second: str) -> bool:
    """Whether two paths are one, or one lies in the other."""
    return first == second or first.startswith(f"{second}/") or second.startswith(f"{first}/")


def stale(file: str) -> set[str]:
    """Stages that `dvc status` names once a file is changed, and nothing else."""
    assert (ROOT / file).is_file(), file
    return {node.name for node in GRAPH if any(meet(file, dep) for dep in node.deps)}


def behind(names: set[str]) -> set[str]:
    """Stages that can be run again because of these: themselves, and those whose deps they make, as far as bytes move."""
    reached = set(names)
    while True:
        made = {out for node in GRAPH if node.name in reached for out in node.outs}
        more = {node.name for node in GRAPH if any(meet(dep, out) for dep in node.deps for out in made)} - reached
        if not more:
            return reached
        reached |= more


def test_graph_has_every_slot_and_part_and_no_open_variable() -> None:
    assert {node.name for node in GRAPH} >= EVERY_SLOT | EVERY_PART | {"split", "evaluate"}
    assert not [dep for node in GRAPH for dep in (*node.deps, *node.outs) if "$" in dep]
    assert stale(PARAMS.source.path) == {"split"}


@pytest.mark.parametrize(
    "file",
    [
        "lmeraser/serve/picture.py",
        "lmeraser/prove/scan.py",
        "lmeraser/erase/ledger.py",
        "lmeraser/core/errors.py",
        "flows/purge/scan.py",
    ],
)
def test_colour_scan_and_ledger_make_no_stage_stale(file: str) -> None:
    assert stale(file) == set()


@pytest.mark.parametrize("room", ["flows/cli", "flows", "bench", "lmeraser/prove", "lmeraser/stores", "stages/runtime"])
def test_no_help_text_and_no_file_of_a_room_that_decides_no_byte_makes_a_stage_stale(room: str) -> None:
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / room).rglob("*.py"))
    assert files
    assert [file for file in files if stale(file)] == []


def test_optimiser_makes_tuning_alone_stale_by_the_recipe() -> None:
    """`dvc repro` runs `recipe` again, then every slot, for its digest of the code is another one; then, if a tuned byte moved,
    `evaluate`. Backbone, skeleton, embeddings, clusters, the gate and the global head stay."""
    assert stale("lmeraser/learn/tuning.py") == {"recipe"}
    assert behind({"recipe"}) == {"recipe", *EVERY_SLOT, "evaluate"}


def test_head_s_solve_makes_no_slot_stale() -> None:
    assert stale("lmeraser/clusters/global_head.py") == {"head", "evaluate", *EVERY_PART}  # `embed` makes the sums by it
    assert stale("stages/head.py") == {"head"}
    assert behind({"head"}) == {"head", "evaluate"}


def test_choice_of_a_cut_makes_the_clusters_stale_and_neither_backbone_nor_embeddings() -> None:
    assert stale("lmeraser/clusters/assignment.py") == {"cluster", "evaluate"}
    assert behind({"cluster"}) == {"cluster", "validate", "head", "evaluate", *EVERY_SLOT}  # the last three by the gate's word


def test_pretraining_makes_the_backbone_stale_and_nothing_before_it() -> None:
    assert stale("lmeraser/learn/pretraining.py") == {"pretrain"}
    assert behind({"pretrain"}) == {node.name for node in GRAPH} - {"split"}
