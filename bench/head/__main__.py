"""Peak memory and processor time of the stage `head`: the discriminant over so many summands and labels.

    python -m bench.head

Four parts of 2,500 synthetic records each are written as `embed` writes them; then a process of its own reads them, adds them,
solves and writes the head. Memory is the whole process's peak, Python and libraries included; one thread.

Takes: two minutes.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.lab import ROOT
from bench.lab.commands import bench_parser
from bench.lab.report import table, write_report
from lmeraser.clusters.discriminant import Chosen
from lmeraser.clusters.global_head import Sums, load_sums, pack, rule_of, save_head, save_sums, solve
from lmeraser.core.params import load_params

DIMS, LABELS = (768, 3072, 8192), (100, 1000)
PARTS, RECORDS, LEVELS = 4, 2500, 127


def make_parts(folder: Path, dim: int, labels: int) -> None:
    """Write the sums of synthetic records."""
    for part in range(PARTS):
        generator = np.random.default_rng(part)
        summands = np.clip(np.rint(generator.standard_normal((RECORDS, dim), dtype=np.float32) * 16), -LEVELS, LEVELS)
        names = [f"label{label:04d}" for label in range(labels)]
        code = np.concatenate([np.arange(labels), generator.integers(0, labels, RECORDS - labels)])
        by_label = np.zeros((labels, dim))
        np.add.at(by_label, code, summands)
        gram = summands.T @ summands  # float32: below 2^24 times the steps, and only the cost is asked
        sums = Sums(pack(gram.astype(np.int32)), by_label.astype(np.int32), np.bincount(code, minlength=labels), names)
        save_sums(folder / f"{part}.safetensors", sums, {})


def solve_parts(folder: Path, dim: int) -> dict[str, float]:
    """What the stage does. Returns processor seconds and the process's peak of memory in GiB."""
    start = time.process_time()
    rule = rule_of(load_params(ROOT / "params" / "efficientnet-lite0.yaml"), np.full(dim, 4.0), Chosen(40.0, 0.5, 0.25))
    head = solve((load_sums(folder / f"{part}.safetensors") for part in range(PARTS)), rule)
    save_head(folder / "head.safetensors", head)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(time.process_time() - start, 2), "gibibytes": round(peak, 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("head", __doc__)
    parser.add_argument("--solve", nargs=2, metavar=("FOLDER", "DIM"), help="used by the bench itself: one row, in this process")
    args = parser.parse_args(arguments)
    if args.solve:
        print(json.dumps(solve_parts(Path(args.solve[0]), int(args.solve[1]))))
        return
    rows, facts = [], []
    for dim in DIMS:
        for labels in LABELS:
            with tempfile.TemporaryDirectory(prefix="lmeraser-bench-") as folder:
                make_parts(Path(folder), dim, labels)
                command = [sys.executable, "-m", "bench.head", "--solve", folder, str(dim)]
                ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                measured = json.loads(ran.stdout)
            rows.append([f"{dim:,}", f"{labels:,}", f"{measured['seconds']:.1f}", f"{measured['gibibytes']:.2f}"])
            facts.append({"dim": dim, "labels": labels, **measured})
    head = ["summands", "labels", "processor s", "peak memory, GiB"]
    body = [table(head, rows), f"{PARTS} parts of {RECORDS:,} synthetic records; reading, adding, solving and writing."]
    write_report("head", "What the solve of the global head costs", body, {"rows": facts})


if __name__ == "__main__":
    main()
