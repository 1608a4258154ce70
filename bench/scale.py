"""How far it carries: slots, records, and months of requests.

    python -m bench.scale                       clusters, records and requests: about 40 minutes on two cores
    python -m bench.scale clusters              overhead of the pipeline for 16, 64, 128 and 512 slots
    python -m bench.scale records               10^4, 10^5 and 10^6 records through split, embed, cluster and plan
    python -m bench.scale requests              a simulation of months of requests; no training

Each part writes a table of its own: bench/results/scale-PART.md and .json. Expect at most 10 processor seconds outside the
stages after one deletion with 512 slots, at most 40 for a warm first build, and a plan in under 2 s with 10^6 records.
"""

import argparse
from collections.abc import Callable
from typing import Any

from bench.report import write_report

PARTS = ("clusters", "records", "requests")


def clusters(options: argparse.Namespace) -> None:
    from bench import scale_clusters

    found: list[dict[str, Any]] = []
    for slots in options.slots:  # the table so far is written after each: the last take minutes
        found.append(scale_clusters.measure(slots, slots <= options.plain))
        write_report("scale-clusters", "Overhead of the pipeline", scale_clusters.markdown(found), {"runs": found})


def records(options: argparse.Namespace) -> None:
    from bench import scale_records

    found = [scale_records.measure(count) for count in options.records]
    write_report("scale-records", "Records", scale_records.markdown(found), {"runs": found})


def requests(options: argparse.Namespace) -> None:
    from bench import scale_requests

    found = scale_requests.simulate(options)
    scale_requests.draw(found)
    write_report("scale-requests", "Months of requests", scale_requests.markdown(found), found)


ACTS: dict[str, Callable[[argparse.Namespace], None]] = {"clusters": clusters, "records": records, "requests": requests}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=[], help="all if none is named")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64, 128, 512])
    parser.add_argument(
        "--plain", type=int, default=128, help="most slots for which plain `dvc repro` builds from nothing as well"
    )
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    from bench.scale_requests import add_arguments

    add_arguments(parser)
    options = parser.parse_args()
    for part in options.part or PARTS:
        ACTS[part](options)


if __name__ == "__main__":
    main()
