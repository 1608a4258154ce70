"""What an erasure costs end to end, from request to certificate, as a user pays it.

    python -m bench.erasure                                      synthetic people: 10^3 to 10^6 records, heads and prompts
    python -m bench.erasure --records 1000 10000 --ways prompts  a part of it
    python -m bench.erasure --data cifar10 --clusters 500        needs the image packs (LMERASER_SHARED_DATA)
    python -m bench.erasure --data cifar10 --epochs 1            where its pretraining, which is not counted, would take hours
    python -m bench.erasure --data digits                        the demo's params
    python -m bench.erasure --keep FOLDER --warm-only            projects stay in FOLDER, and are measured again next time

Real commands in a real project in a temporary folder: `lmeraser build`, `lmeraser forget` of 1, 10 and 100 people at once,
`lmeraser plan --add` and `lmeraser build` of 500 new records; cold, and beside what `make serve` keeps warm. Processor seconds
of every process, wall seconds, bytes read and written, peak memory, and the clusters' own tuning beside it. At 10,000 records
also with clusters as SISA and as the paper have them. Every erasure must end certified; up to 10,000 records an audit must find
a rebuild equal. What was measured before stays in the tables; the same measurement again replaces it. Linux only.

Takes: about 10 minutes at 1,000 records, 40 at 10,000, hours at 1,000,000 (16 GB of disk); 3 for the digits.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.erasure.course import AUDIT, Course
from bench.erasure.ground import CIFAR_CUTS, DIGITS_SLOTS, METHODS, TREE, WAYS, Ground, synthetic
from bench.erasure.meter import Spent
from bench.erasure.project import place_of
from bench.erasure.report import keep, write
from bench.lab.commands import bench_parser
from bench.lab.sources import shared_data

BESIDE = 10_000  # records at which SISA's and the paper's clusters are measured as well, with prompts
CIFAR_RECORDS, DIGITS_RECORDS = 50_000, 787  # private training records
LEAST = 100  # records: fewer have no clusters to speak of


def grounds(options: argparse.Namespace) -> list[Ground]:
    """The projects that are asked for."""
    if options.data == "digits":
        return [Ground("digits", DIGITS_RECORDS, DIGITS_SLOTS, way) for way in options.ways]
    if options.data == "cifar10":
        asked = [(clusters, way) for clusters in options.clusters for way in options.ways]
        return [Ground("cifar10", CIFAR_RECORDS, clusters, way, epochs=options.epochs) for clusters, way in asked]
    chosen = []
    for records in options.records:
        methods = options.methods or (METHODS if records == BESIDE else (TREE,))
        for method in methods:
            ways = options.ways if method == TREE else [way for way in options.ways if way == "prompts"]
            chosen += [synthetic(records, way, method) for way in ways]
    return chosen


def parser() -> argparse.ArgumentParser:
    made = bench_parser("erasure", __doc__)
    add = made.add_argument
    add("--data", choices=["synthetic", "cifar10", "digits"], default="synthetic")
    add(
        "--records", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000], help="private training records (synthetic)"
    )
    add("--clusters", type=int, nargs="+", choices=list(CIFAR_CUTS), default=list(CIFAR_CUTS), help="about how many (cifar10)")
    add("--epochs", type=int, help="of pretraining the network (cifar10), which no erasure does; else as its preset has it")
    add("--people", type=int, nargs="+", default=[1, 10, 100], help="who leave at once")
    add("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    add(
        "--methods",
        nargs="+",
        choices=METHODS,
        help=f"of clustering (synthetic); else all at {BESIDE:,} records and ours elsewhere",
    )
    mode = made.add_mutually_exclusive_group()
    mode.add_argument("--cold-only", action="store_true")
    mode.add_argument("--warm-only", action="store_true")
    add("--keep", type=Path, metavar="FOLDER", help="where projects stay and are used again; else a temporary folder")
    return made


def modes_of(options: argparse.Namespace) -> list[bool]:
    return [warm for warm in (False, True) if not (warm and options.cold_only) and not (not warm and options.warm_only)]


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if sys.platform != "linux":
        raise SystemExit("bench.erasure: it needs Linux, whose /proc tells what every process takes")
    if min(options.people) < 1 or min(options.records) < LEAST:
        raise SystemExit(f"bench.erasure: expected --people of at least 1 and --records of at least {LEAST}")
    if options.data == "cifar10":
        shared_data()  # refuses before anything is made
    unequal = []
    pretrained: dict[tuple[str, int], tuple[Spent, float]] = {}
    chosen = grounds(options)
    for ground in chosen:
        with place_of(ground, options.keep) as place:
            for run in Course(place, options.people, modes_of(options), pretrained).runs():
                keep(run)
                if run["what"] == AUDIT and not run["equal"]:
                    unequal.append(ground.name)
    for name in dict.fromkeys(ground.results for ground in chosen):
        write(name)
    if unequal:
        raise SystemExit(f"bench.erasure: a rebuild gave other bytes than the erasures: {', '.join(unequal)}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # temporary folders and warm processes go also then
    main()
