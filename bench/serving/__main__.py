"""What serving costs against the bare backbone, and how soon an erasure is in the answers.

    python -m bench.serving                                  the digits demo's params
    python -m bench.serving --seconds 2 --rounds 1           a quick look; --no-write keeps the results that are there
    python -m bench.serving --parts inside                   one of load, inside and erasure; writes no results
    python -m bench.serving --keep FOLDER                    the project stays in FOLDER, and is used again next time

`lmeraser serve` in a real project in a temporary folder; a load generator of its own process (bench/serving/load.py) asks with
one image a request. Beside it the bare backbone behind the same server, and one-pass mode, in turns. Then, without HTTP, what
heads and routing take over as many bare passes as they need. Then `lmeraser forget` while 8 clients ask, cold and beside warm
processes: when the last answer from before came. Run it alone on a machine: server, clients and the erasure share its cores.
Linux only.

Takes: about 4 minutes.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.erasure.__main__ import DIGITS_RECORDS
from bench.erasure.ground import DIGITS_SLOTS, Ground
from bench.erasure.project import place_of
from bench.lab.commands import bench_parser
from bench.serving.course import erasure, inside, throughput
from bench.serving.report import write
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params

ERASURE_CLIENTS = 8
PARTS = ("load", "inside", "erasure")


def parser() -> argparse.ArgumentParser:
    made = bench_parser("serving", __doc__)
    made.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    made.add_argument("--seconds", type=float, default=6.0, help="of each load")
    made.add_argument("--rounds", type=int, default=3, help="turns; the median is told")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is measured")
    made.add_argument("--keep", type=Path, metavar="FOLDER", help="where the project stays and is used again")
    made.add_argument("--no-write", action="store_true", help="print the numbers as they come, and write no results")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if sys.platform != "linux":
        raise SystemExit("bench.serving: it needs Linux")
    with place_of(Ground("digits", DIGITS_RECORDS, DIGITS_SLOTS, "prompts"), options.keep) as place:
        if not place.built:
            place.prepare()
            place.lmeraser("build")
            place.commit("A model of everybody")
            place.save()
        loads = throughput(place, options.clients, options.seconds, options.rounds) if "load" in options.parts else []
        over = inside(place) if "inside" in options.parts else []
        erasures = []
        if "erasure" in options.parts:
            erasures.append(erasure(place, ERASURE_CLIENTS, warm=False))
            with place.warm():
                erasures.append(erasure(place, ERASURE_CLIENTS, warm=True))
        batch = load_params(Layout(place.root).params).embed.batch
    if options.parts == list(PARTS) and not options.no_write:
        write("serving", batch, loads, over, erasures)
        return
    for row in (*loads, *over, *erasures):
        print(row)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # temporary folders and servers go also then
    main()
