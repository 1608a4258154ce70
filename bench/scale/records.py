"""Many records through every stage but tuning, and a plan: processor seconds and peak memory, each step in its own process.

Synthetic: 8 px grey PNG images drawn from the record's number, two records a person, a tiny backbone with random weights, 512
leaves. `split` is the real stage over a source that makes the images as it is asked; `embed` is the real stage for one part, and
the other parts' leaves are drawn at random, since they cost as much again each and nothing else is different about them. Clusters
are not tuned but drawn at random too: `evaluate` asks them all, then asks again after one of them changed.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml

from bench.lab import ROOT
from bench.lab.report import table
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.sources.base import COLUMNS, Source

if TYPE_CHECKING:
    from lmeraser.data.records import Record

SIDE, LEAVES, PUBLIC, PER_PART = 8, 512, 4_000, 16_384
STEPS = ("split", "embed", "cluster", "validate", "plan", "evaluate", "again")
Step = dict[str, float]  # numbers of one step by name: cpu (s), peak_gib, and its own


@dataclass(frozen=True)
class Run:
    """One number of private records. Attributes: parts: how many; steps: numbers by step."""

    records: int
    parts: int
    steps: dict[str, Step]

    def to_json(self) -> dict[str, object]:
        return {"records": self.records, "parts": self.parts, **self.steps}


class Synthetic(Source):
    """So many private records, two a person, and PUBLIC public ones; one in a hundred is for testing."""

    name = "synthetic"

    def __init__(self, records: int) -> None:
        number = np.arange(PUBLIC + records)
        public = number < PUBLIC
        person = np.where(public, number, (number - PUBLIC) // 2)
        columns = (
            [f"{index}.png" for index in number],
            [str(index % 10) for index in number],
            [f"{'open' if is_public else 'person'}-{owner:07d}" for owner, is_public in zip(person, public, strict=True)],
            np.where(public, "public", "private"),
            np.where(person % 100 == 99, "test", "train"),
        )
        self._table = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
        self._table.insert(0, "line", np.arange(2, len(number) + 2))

    def table(self) -> pd.DataFrame:
        return self._table

    def image(self, path: str) -> bytes:
        from PIL import Image

        # A multiplier that scatters neighbours (Knuth, TAOCP 3, 6.4); every number gives another image.
        word = (int(path.removesuffix(".png")) + 1) * 0x9E3779B97F4A7C15 % 2**64
        stream = io.BytesIO()
        Image.frombytes("L", (SIDE, SIDE), word.to_bytes(8, "little") * SIDE).save(stream, format="PNG", compress_level=0)
        return stream.getvalue()


def write_project(root: Path, records: int) -> None:
    """params.yaml and pipeline files of a project of this size."""
    from flows.dvc.pipeline_files import grow

    raw = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    raw["parts"] = [f"p{number:02d}" for number in range(max(4, -(-records // PER_PART)))]
    raw["image"] |= {"size": SIDE}
    raw["pretrain"] |= {"kwargs": {"layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8], "stem_width": 4}}
    raw["projection"] |= {"dim": 256}
    raw["cluster"] |= {"n_max": max(2, records // 256)}
    raw["evaluate"] |= {"linear_head": False}  # it embeds everybody
    (root / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    layout = Layout(root)
    layout.private_state.mkdir(mode=0o700)
    grow(layout, LEAVES)
    raw = yaml.safe_load(layout.params.read_text(encoding="utf-8"))
    raw["skeleton"]["leaves"] = LEAVES
    layout.params.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    layout.erased.parent.mkdir()
    layout.erased.write_text('{"key_id": null, "subjects": []}\n', encoding="utf-8")


def split(layout: Layout, params: Params) -> Step:
    from unittest.mock import patch

    from stages.split import split as stage

    with patch("stages.split.check_source", return_value=Synthetic(int((layout.root / "records").read_text()))):
        stage(layout, params, [])
    return {}


def embed(layout: Layout, params: Params) -> Step:
    from stages.embed import embed as stage

    stage(layout, params, list(params.parts[:1]))
    return {"records": len(_training(layout, params.parts[0]))}


def cluster(layout: Layout, params: Params) -> Step:
    from stages.cluster import cluster as stage

    stage(layout, params, [])
    return {}


def validate(layout: Layout, params: Params) -> Step:
    from stages.validate import validate as stage

    stage(layout, params, [])
    return {}


def plan(layout: Layout, params: Params) -> Step:
    """From the files to the plan, as `lmeraser plan` does after asking DVC whether anything is stale."""
    from lmeraser.erase.erased import ErasedList, SubjectKey
    from lmeraser.erase.facts import check_known, gather_facts
    from lmeraser.erase.plan import make_plan

    start = time.perf_counter()
    facts = gather_facts(layout, params)
    names = ["person-0000123"]
    check_known(names, facts, ErasedList.read(layout.erased), SubjectKey(b"\0" * 32))
    made = make_plan(names, facts, include_public=False)
    seconds = time.perf_counter() - start
    return {
        "plan_seconds": seconds,
        "records": made.records_total,
        "clusters": made.clusters_total,
        "touched": len(made.slots_retrained),
    }


def evaluate(layout: Layout, params: Params) -> Step:
    from stages.evaluate import evaluate as stage

    stage(layout, params, [])
    return {"tests": json.loads((layout.metrics / "metrics.json").read_bytes())["records"]["test"]}


ACTS: dict[str, Callable[[Layout, Params], Step]] = {
    "split": split,
    "embed": embed,
    "cluster": cluster,
    "validate": validate,
    "plan": plan,
    "evaluate": evaluate,
    "again": evaluate,
}


def _training(layout: Layout, part: str) -> "list[Record]":
    from lmeraser.data.records import TRAIN, read_records

    return read_records(layout.part(part), TRAIN)


def freeze(layout: Layout, params: Params) -> None:
    """A backbone with random weights, and the skeleton of the public records' features."""
    import torch

    from lmeraser.clusters.skeleton import PublicFeatures, build_skeleton, save_skeleton
    from lmeraser.data.decoding import decode_all
    from lmeraser.data.records import TRAIN, images_of, read_records
    from lmeraser.learn.backbone import build, load_backbone, make_deterministic, save_backbone
    from lmeraser.learn.environment import network_environment

    make_deterministic("cpu")
    torch.manual_seed(0)
    save_backbone(layout.backbone, build(params.pretrain, params.image, 0).eval(), [0.5], [0.25], params)
    records = read_records(layout.public, TRAIN)
    pixels = decode_all(images_of(layout.public, records), params, "public")
    backbone = load_backbone(layout.backbone, params)
    features = backbone.features(pixels, params.embed.batch)
    labels, people = [record.label for record in records], [record.subject for record in records]
    public = PublicFeatures(features, backbone.widths, np.arange(len(records)), labels, people)
    save_skeleton(layout.skeleton, build_skeleton(public, params), network_environment(params.device))


def scatter(layout: Layout, params: Params) -> None:
    """The other parts' leaves, at random."""
    from lmeraser.clusters.files import Member, save_placements
    from lmeraser.clusters.skeleton import load_skeleton
    from lmeraser.data.units import unit_of

    leaves = load_skeleton(layout.skeleton).hierarchy.n_leaves
    for number, part in enumerate(params.parts[1:]):
        rng = np.random.default_rng(number)
        records = _training(layout, part)
        drawn = {subject: int(rng.integers(leaves)) for subject in sorted({record.subject for record in records})}
        members = [Member(r.id, r.sha256, r.label, unit_of(r, "subject"), drawn[r.subject], part) for r in records]
        save_placements(layout.leaves(part), members, [True] * len(members), 8)


def _draw_cluster(layout: Layout, params: Params, slot: str, seed: int) -> None:
    """A cluster's frame and head, at random."""
    from lmeraser.clusters.skeleton import load_skeleton
    from lmeraser.learn.backbone import make_deterministic
    from lmeraser.learn.cluster_model import ClusterModel, save_cluster_model

    make_deterministic("cpu")
    rng = np.random.default_rng(seed)
    frame = np.zeros((params.image.channels, SIDE, SIDE), dtype=np.float32)
    frame[:, : params.tune.frame_px] = rng.normal(size=frame[:, : params.tune.frame_px].shape)
    labels = [str(label) for label in range(10)]
    weight = rng.normal(size=(len(labels), len(load_skeleton(layout.skeleton).mean))).astype(np.float32)
    save_cluster_model(layout.tuned(slot), ClusterModel(frame, weight, np.zeros(len(labels), np.float32), labels), params)


def furnish(layout: Layout, params: Params) -> None:
    """Every cluster at random, the other parts' sums as the first one's, and the head of these."""
    from lmeraser.clusters.files import load_sizes
    from stages.head import head
    from stages.tune import tune

    for part in params.parts[1:]:
        layout.sums(part).write_bytes(layout.sums(params.parts[0]).read_bytes())
    full = {size.slot for size in load_sizes(layout.clusters)}
    for number, slot in enumerate(params.slots):
        if slot in full:
            _draw_cluster(layout, params, slot, number)
        else:
            tune(layout, params, [slot])
    head(layout, params, [])


def retune(layout: Layout, params: Params) -> None:
    """Another cluster in the first slot, as an erasure leaves it."""
    from lmeraser.clusters.files import load_sizes

    _draw_cluster(layout, params, load_sizes(layout.clusters)[0].slot, len(params.slots))


PREPARES: dict[str, Callable[[Layout, Params], None]] = {
    "freeze": freeze,
    "scatter": scatter,
    "furnish": furnish,
    "retune": retune,
}
ORDER = ("split", "freeze", "embed", "scatter", "cluster", "validate", "plan", "furnish", "evaluate", "retune", "again")


def main() -> None:
    """One step of one project, in this process."""
    name, folder = sys.argv[1:]
    layout = Layout(Path(folder))
    params = load_params(layout.params)
    if name in PREPARES:
        PREPARES[name](layout, params)
        numbers: Step = {}
    else:
        numbers = ACTS[name](layout, params)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(numbers | {"cpu": used.ru_utime + used.ru_stime, "peak_gib": used.ru_maxrss / 2**20}))


def measure(records: int) -> Run:
    """Every step for one number of private records."""
    steps: dict[str, Step] = {}
    with tempfile.TemporaryDirectory(prefix="lmeraser-scale-") as name:
        root = Path(name)
        write_project(root, records)
        (root / "records").write_text(str(records))
        for step in ORDER:
            command = [sys.executable, "-m", "bench.scale.records", step, name]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            steps[step] = json.loads(done.stdout.splitlines()[-1])
        return Run(records, len(load_params(root / "params.yaml").parts), steps)


def markdown(runs: Sequence[Run]) -> list[str]:
    def cell(run: Run, step: str) -> str:
        return f"{run.steps[step]['cpu']:.1f} s, {run.steps[step]['peak_gib']:.2f} GiB"

    rows = [
        [
            f"{run.records:,}",
            run.parts,
            *(cell(run, step) for step in STEPS),
            f"{run.steps['plan']['plan_seconds']:.2f} s",
            f"{run.steps['plan']['touched']} of {run.steps['plan']['clusters']}",
        ]
        for run in runs
    ]
    note = (
        f"Processor seconds and peak memory of a process of its own, imports included. {SIDE} px grey images, two records a "
        f"person, {PUBLIC:,} public records, a tiny backbone with random weights, {LEAVES} slots. `embed` is for one part; the "
        "leaves of the other parts were drawn at random, and so were all clusters. One record in a hundred is for testing; "
        "`again` is `evaluate` after one cluster changed; there is no yardstick. The time of the plan is wall time from files to "
        "plan, without imports; `lmeraser plan` asks DVC first whether anything is stale, which costs what the other table says."
    )
    header = ["private records", "parts", *(f"`{step}`" for step in STEPS), "time of the plan", "clusters it touches"]
    return [note, table(header, rows)]


if __name__ == "__main__":
    main()
