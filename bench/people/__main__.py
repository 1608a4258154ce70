"""Quality and blast radius over people: what the served model can do, and what it costs when one person leaves.

    python -m bench.people digits
    python -m bench.people signdigits
    python -m bench.people mnist

Three seeds (the params' root seed; who is public is fixed by the source). The whole pipeline in process, without DVC, on
params.yaml (digits) or params/DATA.yaml. Yardstick: one linear head on all private data over the same frozen features, with the
penalty that the params pin or that public records choose; and, as the best that it could have been, with the best of PENALTIES
*on the test records*: that one is flattered.
Expect served accuracy at or above the linear head's, one cluster retrained per person with unit subject, many with unit
record, and nearly all with the paper's anchors.

Takes: about 2 (digits), 6 (signdigits) or 12 (mnist) minutes of processor.
"""

import sys
from collections.abc import Sequence

from bench.lab import ROOT
from bench.lab import pipeline as pipe
from bench.lab.changes import changed, read_changes
from bench.lab.commands import bench_parser
from bench.lab.presets import preset_of
from bench.lab.sources import source_of
from bench.people.measure import one_seed
from bench.people.report import report

VARIANTS: dict[str, dict[str, object]] = {
    "tree, unit subject": {"cluster.method": "tree", "cluster.unit": "subject"},
    "tree, unit record": {"cluster.method": "tree", "cluster.unit": "record"},
    "anchors, unit record (paper)": {"cluster.method": "anchors", "cluster.unit": "record"},
}
DIVERSITY = (0.5, 0.35, 0.2)  # cuts by diversity, beside the one by counts


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("people", __doc__)
    parser.add_argument("data", choices=["digits", "signdigits", "mnist", "omniglot"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sample", type=int, default=20, help="people whose leaving is replayed with the paper's clustering")
    parser.add_argument(
        "--diversity", action="store_true", help="cuts by diversity against the cut by counts, instead of the variants"
    )
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    args = parser.parse_args(arguments)
    variants, name = dict(VARIANTS), args.data
    preset = preset_of(args.data)
    preset = changed(preset, read_changes(args.change))
    if args.change:
        name += "-" + "-".join(change.replace("=", "") for change in sorted(args.change))
    if args.diversity:
        name += "-diversity"
        variants = {key: value for key, value in VARIANTS.items() if value["cluster.unit"] == "subject"}
        free = {"cluster.n_max": 10**9, "cluster.method": "tree", "cluster.unit": "subject"}
        variants |= {f"tree by diversity {limit}, no n_max": free | {"cluster.max_diversity": limit} for limit in DIVERSITY}
    with source_of(preset) as params:
        data = pipe.read_data(params, ROOT)
    runs = []
    for seed in range(args.seeds):
        runs.append(one_seed(data, changed(params, {"seed": seed}), variants, args.sample))
        sys.stderr.write(f"seed {seed} done\n")
    people = {record.subject for record in (*data.train.records, *data.test.records)}
    counts = {"public": len(data.public.records), "train": len(data.train.records), "test": len(data.test.records)}
    report(name, runs, counts | {"people": len(people)}, preset)


if __name__ == "__main__":
    main()
