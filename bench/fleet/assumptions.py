"""The numbers that the simulation stands on, each with where it is from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.lab import RESULTS

NETWORK = "vit_small_patch14_dinov2"
TAKEN = "taken"  # no measurement stands behind it


@dataclass(frozen=True)
class Assumption:
    """Attributes: unit: of the value, in words; origin: where the value is from."""

    value: float
    unit: str
    origin: str

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def taken(value: float, unit: str, why: str) -> Assumption:
    return Assumption(value, unit, f"{TAKEN}: {why}")


def assumptions(rates: Mapping[str, float], rows: Sequence[Mapping[str, Any]], records: float) -> dict[str, Assumption]:
    """Every number, by its name. Args: rates: of `rates.measure`; rows: of `course.measure`; records: private training ones."""
    scale = json.loads((RESULTS / "scale-records.json").read_bytes())["results"]["runs"][-1]
    clusters = json.loads((RESULTS / "scale-clusters.json").read_bytes())["results"]["runs"][-1]
    gpu = _gpu_rates()
    a_record = {step: scale[step]["cpu"] / scale["records"] for step in ("split", "cluster", "validate")}
    over = [row for row in rows if row["workers"]]
    recorded = [row["recorded"] for row in rows]
    idle = sum(clusters["commands"]["dvc repro, nothing to do"].values()) / clusters["slots"]
    here, gpu_from = "measured here by this bench", "bench/results/gpu.md, one H100: of another bench; here none was measured"
    tiny = f"bench/results/scale-records.md at {scale['records']:,} records of 8 px, as if it grew in proportion"
    return {
        "records": taken(records, "private training records", "the question"),
        "image_bytes": taken(100_000, "bytes an image", "the question"),
        "per_part": taken(16_384, "records a part", "as bench.scale and bench.erasure have it"),
        "slots": taken(16_384, "slots, each with a cluster", "about 6,100 records a cluster"),
        "cut": taken(2, "mean clusters in the largest (sizes: gamma of shape 4, cut there)", "as n_max of bench.erasure"),
        "public": taken(50_000, "public records, over weights from elsewhere", "as many as CIFAR-100 has"),
        "test_share": taken(0.01, "test records a training record", "as bench.scale has it"),
        "epochs": taken(25, "epochs of tuning", "as params.yaml has it"),
        "nearest": taken(8, "clusters asked for an answer", "as params.yaml has it"),
        "embed_rate": Assumption(gpu["embed"], f"images/s a GPU, embedding ({NETWORK}, 224 px)", gpu_from),
        "tune_rate": Assumption(gpu["tune"], "images/s a GPU, a tuning step, all of it", gpu_from),
        "decode_s": Assumption(rates["decode_s"], "s an image, decoded on one core before the network sees it", here),
        "check_s": Assumption(rates["check_s"], "s an image, checked and hashed by `split`", here),
        "md5": Assumption(rates["md5_bytes_s"], "bytes/s hashed by one core", here),
        "split_s": Assumption(a_record["split"], "s a record, `split` beside the images' bytes", tiny),
        "gate_s": Assumption(a_record["cluster"] + a_record["validate"], "s a record, `cluster` and `validate`", tiny),
        "record_s": Assumption(
            sum(row["seconds"] for row in recorded) / sum(row["stages"] for row in recorded), "s a recorded stage", here
        ),
        "status_s": Assumption(
            idle,
            "s a stage that DVC looks at and finds unchanged",
            f"bench/results/scale-clusters.md at {clusters['slots']} slots",
        ),
        "start_s": Assumption(
            min(row["start"] for row in over), "s from a run's making to its first line (Prefect, imports)", here
        ),
        "card": taken(1.25e9, "bytes/s of each machine's network card", "10 Gbit/s"),
        "store": taken(12.5e9, "bytes/s of the store (S3, or a shared file system)", "100 Gbit/s"),
        "disk": taken(1e9, "bytes/s of the coordinator's disk", "one NVMe disk under mixed load"),
        "row_group": taken(2**20, "bytes read for one image of a part", "GROUP in lmeraser/data/records.py"),
        "id_bytes": taken(68, "bytes of a record's id in a part", "64 hexadecimal digits and a length"),
        "sums_bytes": taken(4.2e6, "bytes of a part's sums", "a Gram matrix of 1,024 summands of 4 bytes"),
    }


def _gpu_rates() -> dict[str, float]:
    """Images a second of one GPU, as bench.gpu measured them."""
    sections = json.loads((RESULTS / "gpu.json").read_bytes())["sections"]
    return {
        "embed": float(sections[f"embedding {NETWORK}"]["images_per_second"]["ours_float32"]),
        "tune": float(sections[f"training {NETWORK} bfloat16"]["images_per_second"]["ours"]),
    }
