"""Stages of a fake project: the files of the real ones; what a network would compute is a digest of the images and labels that it
would see, so that an artifact is a function of the retained records alone. `split`, `cluster` and `head` are the real ones.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from builders import make_tree

from lmeraser.clusters.discriminant import Chosen
from lmeraser.clusters.files import Member, load_members, load_placements, load_sizes, save_placements
from lmeraser.clusters.global_head import Sums, load_rule, load_sums, pack, save_head, save_sums, solve
from lmeraser.clusters.leaf_sums import LeafSums
from lmeraser.clusters.skeleton import Skeleton, save_skeleton
from lmeraser.core.digest import number_from, readable_json, sha256, sha256_of_file
from lmeraser.core.errors import ExpectationError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.data.records import TEST, TRAIN, Record, read_images, read_records
from lmeraser.data.tensors import write_tensors
from lmeraser.data.units import unit_of
from lmeraser.erase.erased import SuppressionList
from lmeraser.pipeline.recipe import save_recipe
from stages.cluster import cluster
from stages.head import head
from stages.runtime.chain import Update
from stages.split import split
from stages.update.cluster import update as update_cluster
from stages.update.split import update as update_split

HERE = {"machine": "fake"}  # the environment that everything is made in
TREE = make_tree(0, 3)


def embed(layout: Layout, params: Params, parts: list[str]) -> None:
    for part in parts:
        records = read_records(layout.part(part), TRAIN)
        leaves = _leaves_of(records, params)
        members = [
            Member(record.id, record.sha256, record.label, unit_of(record, params.cluster.unit), leaves[record.id], part)
            for record in records
        ]
        save_placements(layout.leaves(part), members, [True] * len(members), 3)
        save_sums(layout.sums(part), _sums_of(records, params, leaves), HERE)


def _leaves_of(records: Sequence[Record], params: Params) -> dict[str, int]:
    """The leaf of each record, by its id. Args: records: of each person all; whoever has one alone stands elsewhere."""
    counts = Counter(record.subject for record in records) if params.cluster.unit == "subject" else Counter[str]()
    names = {record.id: f"{record.subject}{' alone' if counts[record.subject] == 1 else ''}" for record in records}
    return {identity: number_from("leaf", name) % TREE.n_leaves for identity, name in names.items()}


def _sums_of(records: Sequence[Record], params: Params, leaf_of: dict[str, int]) -> Sums:
    """Exact sums of features that are a digest of the image."""
    labels = sorted({record.label for record in records})
    dim, levels = params.projection.dim, params.projection.levels
    gram, by_label = np.zeros((dim, dim), dtype=np.int32), np.zeros((len(labels), dim), dtype=np.int32)
    features = np.zeros((len(records), dim))
    for row, record in enumerate(records):
        features[row] = [number_from("feature", record.sha256, axis) % (2 * levels + 1) - levels for axis in range(dim)]
        feature = features[row].astype(np.int32)
        gram += np.outer(feature, feature).astype(np.int32)
        by_label[labels.index(record.label)] += feature
    counts = np.array([sum(record.label == label for record in records) for label in labels], dtype=np.int64)
    leaves = np.array([leaf_of[record.id] for record in records], dtype=np.int64)
    by_leaf = LeafSums.of(features, leaves, [record.label for record in records]) if params.tune.kind == "closed" else None
    return Sums(pack(gram), by_label, counts, labels, by_leaf)


def pretrain(layout: Layout, params: Params, _: list[str]) -> None:
    write_tensors(layout.backbone, {"learnt": _learnt([sha256_of_file(layout.public)])}, {"environment": HERE})


def _learnt(seen: Sequence[str]) -> Any:
    """What a network would have learnt: a digest of what it saw."""
    return np.frombuffer(bytes.fromhex(sha256("\n".join(seen).encode())), dtype=np.uint8)


def skeleton(layout: Layout, params: Params, _: list[str]) -> None:
    flat = np.ones(3, dtype=np.float32)
    chosen = Chosen(params.head.shrinkage or 40.0, params.head.evenness or 0.0, 1.0)
    made = Skeleton(flat, flat, TREE, np.zeros((3, 0)), np.eye(3), np.zeros(3), np.zeros(0), 1.0, chosen)
    save_skeleton(layout.skeleton, made, HERE)


def recipe(layout: Layout, params: Params, _: list[str]) -> None:
    save_recipe(layout, params)


def validate(layout: Layout, params: Params, _: list[str]) -> None:
    """The gate as far as it is about people: nobody erased, and every placed record in one cluster."""
    suppression_list = SuppressionList.of(layout)
    records = [record for part in params.parts for record in read_records(layout.part(part))]
    erased = any(suppression_list.is_erased(subject) for subject in {record.subject for record in records})
    if erased or suppression_list.images.among(record.sha256 for record in records):
        raise ExpectationError("validate: a part holds records of erased people")
    placed = sorted(member.id for part in params.parts for member in load_placements(layout.leaves(part), part))
    if placed != sorted(member.id for slot in params.slots for member in load_members(layout.members(slot))):
        raise ExpectationError("validate: the clusters do not hold the placed records")
    write_atomically(layout.validation / "report.json", readable_json({"records": len(records)}))
    write_atomically(layout.validation / "passed.json", readable_json({"records": "passed"}))


def tune(layout: Layout, params: Params, slots: list[str]) -> None:
    for slot in slots:
        members = load_members(layout.members(slot))
        if params.tune.kind != "sgd":
            write_tensors(layout.tuned(slot), {}, {"state": params.tune.kind})
            continue
        for part in {member.part for member in members}:
            read_images(layout.part(part), {member.id: member.sha256 for member in members if member.part == part})
        seen = [f"{member.sha256} {member.label}" for member in members]
        tensors = {"learnt": _learnt([sha256_of_file(layout.recipe), *seen])} if members else {}
        write_tensors(layout.tuned(slot), tensors, {"environment": HERE} if members else {"state": "empty"})


def evaluate(layout: Layout, params: Params, _: list[str]) -> None:
    tests = [record for part in params.parts for record in read_records(layout.part(part), TEST)]
    models = [sha256_of_file(layout.tuned(slot)) for slot in params.slots]
    write_atomically(
        layout.metrics / "metrics.json", readable_json({"tests": len(tests), "models": sha256(str(models).encode())})
    )
    for name in ("classes", "clusters"):
        write_atomically(layout.metrics / f"{name}.csv", b"name,records\n")


def interim_head(project: Layout, _: Params, folders: list[str]) -> None:
    for folder in folders:
        copy = Layout(project.quarantine_copies / folder)
        params = load_params(copy.params)
        without = set(json.loads((copy.root / "without.json").read_bytes()))
        records = [record for part in params.parts for record in read_records(copy.part(part), TRAIN)]
        erased_sums = _sums_of([record for record in records if record.id in without], params, _leaves_of(records, params))
        sums = [load_sums(copy.sums(part)) for part in params.parts]
        solved = solve(sums, load_rule(copy.skeleton, params), load_sizes(copy.clusters), erased_sums)
        save_head(copy.root / "interim.safetensors", solved)


def moves(project: Layout, _: Params, tokens: list[str]) -> None:
    for token in tokens:
        asked = json.loads(project.moves(token).read_bytes())
        layout = Layout(project.quarantine_copies / asked["folder"]) if asked["folder"] else project
        params = load_params(layout.params)
        records = [record for part in params.parts for record in read_records(layout.part(part), TRAIN)]
        now = _leaves_of(records, params)
        answer = []
        for lost in asked["lost"]:
            (subject,) = {record.subject for record in records if record.id in lost}
            kept = [record for record in records if record.subject == subject and record.id not in lost]
            answer.append((len(kept), now[kept[0].id], _leaves_of(kept, params)[kept[0].id]))
        project.moves(token).write_bytes(readable_json(answer))


def near(project: Layout, _: Params, tokens: list[str]) -> None:
    """What has the same label looks alike: no network is asked."""
    for token in tokens:
        asked = json.loads(project.near(token).read_bytes())
        layout = Layout(project.quarantine_copies / asked["folder"]) if asked["folder"] else project
        params = load_params(layout.params)
        records = [record for part in params.parts for record in read_records(layout.part(part))] + read_records(layout.public)
        leaving = [record for record in records if record.id in asked["leaving"]]
        others = [record for record in records if record.id not in [*asked["leaving"], *asked["left_out"]]]
        matches = [
            {"other": other.id, "leaving": like.id, "distance": 0.5, "bits": 3, "by_features": True, "by_hash": False}
            for other in others
            for like in leaving[:1]
            if other.label == like.label
        ]
        usual = {"usual_distance": 1.0, "usual_bits": 8, "sampled": 9}
        found = {"compared": len(others), "found": len(matches), "matches": matches[: asked["most"]]}
        project.near(token).write_bytes(readable_json(usual | found))


ACTIONS = {
    **{"split": split, "pretrain": pretrain, "skeleton": skeleton, "recipe": recipe, "embed": embed, "cluster": cluster},
    **{"validate": validate, "tune": tune, "head": head, "evaluate": evaluate},
    "interim_head": interim_head,
    "moves": moves,
    "near": near,
}
UPDATES: dict[str, Update] = {"split": update_split, "cluster": update_cluster}
