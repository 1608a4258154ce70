"""A build over workers: measured with one and two pinned to a core each, and simulated with 1, 10 and 100 GPUs on 10^8 records.

    python -m bench.fleet                       both; bench/results/fleet.md, .json and .png
    python -m bench.fleet measure               a real Prefect server and real workers of one folder; then the simulation
    python -m bench.fleet simulate              the simulation alone, on what was measured before
    python -m bench.fleet simulate --records 1e7 --gpus 1 4 16

The outs of every build are compared with those of the build without workers: other bytes end the bench. The simulation names
what holds a build and an erasure up at each size. Every number in it is listed with where it is from; no GPU is measured here.

Takes: about 15 minutes on two cores; the simulation a few seconds.
"""

import argparse
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.lab.commands import bench_parser

if TYPE_CHECKING:
    from bench.fleet.report import Measured

PARTS = ("measure", "simulate")
LEAST = 400  # records: fewer have no two clusters


def parser() -> argparse.ArgumentParser:
    made = bench_parser("fleet", __doc__)
    made.add_argument("part", nargs="?", choices=PARTS, help="both if none is named")
    made.add_argument("--measured-records", type=int, default=6_000, help="private training records of the measured build")
    made.add_argument("--rounds", type=int, default=2, help="builds with each number of workers")
    made.add_argument("--records", type=float, default=1e8, help="private training records of the simulation")
    made.add_argument("--gpus", type=int, nargs="+", default=[1, 10, 100])
    made.add_argument("--seed", type=int, default=0, help="of the simulated clusters' sizes")
    return made


def measure(options: argparse.Namespace) -> "Measured":
    from bench.fleet import course, rates
    from bench.lab.report import provenance

    origin = provenance()
    return {
        "builds": course.measure(options.measured_records, options.rounds),
        "rates": rates.measure(),
        "records": options.measured_records,
        "command": origin["command"],
        "revision": origin["revision"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.measured_records < LEAST or min(options.gpus) < 1 or options.rounds < 1:
        raise SystemExit(f"bench.fleet: expected --measured-records of at least {LEAST}, and --gpus and --rounds of at least 1")
    from bench.fleet import report
    from bench.fleet.assumptions import assumptions
    from bench.fleet.simulation import simulate

    measured = report.last_measured() if options.part == "simulate" else measure(options)
    assumed = assumptions(measured["rates"], measured["builds"], options.records)
    report.write(measured, assumed, simulate(assumed, options.seed, options.gpus), options.seed)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # workers and temporary folders go also then
    main()
