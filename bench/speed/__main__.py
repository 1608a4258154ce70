"""Speed of a training step, of embedding and of routing, against the loop of the paper's code and the machine's ceiling.

    python -m bench.speed
    python -m bench.speed --rounds 3         quicker and rougher
    python -m bench.speed --batch 128        larger batches, for both

Synthetic images (speed does not depend on what they show), 32 px, the lab's backbone (ResNet 1-1-1-1, 32-64-128-256). Ours:
one single-thread process a core, each tuning a cluster of its own with `lmeraser.learn.tuning.tune_cluster`, everything
included. Plain (bench/speed/plain.py): one process with a thread a core, and, because neighbours' load cripples a gang of threads
and not us, also a process a core like ours. Rounds alternate; medians; processor time beside wall time.
Embedding: forward passes alone, float32 for both. Routing: from features to the leaf of the tree, against the distances to all
prototypes. Expect a ratio of about 3.4 for the step, 4.1 at batch 128, where the processor has bfloat16
products, and half of that where it has not.

Takes: 2 to 6 minutes on two cores, by how long it waits for quiet.
"""

import argparse
from collections.abc import Sequence

from bench.lab.commands import bench_parser
from bench.speed.jobs import work
from bench.speed.report import report
from bench.speed.rounds import measure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("speed", __doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=512, help="in a cluster")
    parser.add_argument("--epochs", type=int, default=2, help="in a round")
    parser.add_argument("--patience", type=float, default=20, help="seconds to wait for a quiet machine before a round")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        work(args.worker, args.images, args.batch, args.epochs, args.seed, args.threads)
    else:
        report(measure(args))


if __name__ == "__main__":
    main()
