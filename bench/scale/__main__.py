"""How far it carries: slots, records, and months of requests.

    python -m bench.scale                       clusters, records, requests and history
    python -m bench.scale clusters              overhead of the pipeline for 16, 64, 128 and 512 slots
    python -m bench.scale records               10^4, 10^5 and 10^6 records through every stage but tuning, and a plan
    python -m bench.scale requests              a simulation of months of requests; no training
    python -m bench.scale history               what 10 to 1,000 earlier requests cost the next one's purge

Each part writes a table of its own: bench/results/scale-PART.md and .json. Expect at most 10 processor seconds outside the
stages after one deletion with 512 slots, at most 40 for a warm first build, and a plan in under 2 s with 10^6 records.

Takes: about 40 minutes on two cores for all four; the history one.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict

from bench.lab.commands import bench_parser
from bench.lab.report import write_report

PARTS = ("clusters", "records", "requests", "history")


def clusters(options: argparse.Namespace) -> None:
    from bench.scale import clusters as parts

    runs: list[parts.Run] = []
    for slots in options.slots:  # the table so far is written after each: the last take minutes
        runs.append(parts.measure(slots, slots <= options.plain))
        write_report("scale-clusters", "Overhead of the pipeline", parts.markdown(runs), {"runs": runs})


def records(options: argparse.Namespace) -> None:
    from bench.scale import records as parts

    runs = [parts.measure(count) for count in options.records]
    write_report("scale-records", "Records", parts.markdown(runs), {"runs": [run.to_json() for run in runs]})


def requests(options: argparse.Namespace) -> None:
    from bench.scale import requests as parts

    simulation = parts.simulate(options)
    parts.draw(simulation)
    write_report("scale-requests", "Months of requests", parts.markdown(simulation), simulation)


def history(options: argparse.Namespace) -> None:
    from bench.scale import history as parts

    runs = [parts.measure(count, max(options.slots)) for count in options.earlier]
    write_report("scale-history", "Earlier requests", parts.markdown(runs), {"runs": [asdict(run) for run in runs]})


ACTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "clusters": clusters,
    "records": records,
    "requests": requests,
    "history": history,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("scale", __doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], default=[], help="all if none is named")
    parser.add_argument("--slots", type=int, nargs="+", default=[16, 64, 128, 512])
    parser.add_argument(
        "--plain", type=int, default=128, help="most slots for which plain `dvc repro` builds from nothing as well"
    )
    parser.add_argument("--records", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--earlier", type=int, nargs="+", default=[10, 100, 1_000], help="requests (history)")
    from bench.scale.requests import add_arguments

    add_arguments(parser)
    options = parser.parse_args(arguments)
    for part in options.part or PARTS:
        ACTS[part](options)


if __name__ == "__main__":
    main()
