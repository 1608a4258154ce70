"""On one GPU: whether bits of tuning, of rows and of a subtraction repeat, speed against plain loops, and memory.

    python -m bench.gpu [--small] [--out FOLDER] [--minutes 8]

Sections stand in order of weight, each guarded: what fails is told and the others go on; the report is written after each. Exit
status 1 where bits differ or a section failed.

Takes: a minute and a half on one H100; `--small` half a minute on a CPU.
"""

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from bench.gpu import bits, speed
from bench.gpu.ground import MODELS, SMALL, SMALL_SIZES, Ground, Sizes
from bench.gpu.tables import Report, origin
from bench.lab import RESULTS
from bench.lab.commands import bench_parser
from lmeraser.learn.backbone import make_deterministic
from lmeraser.learn.environment import network_answers, network_environment

PRECISIONS = ("bfloat16", "float32")
CHILD_S = 120  # seconds for the process that repeats


class Bench:
    """The networks, made when they are first needed, and the sections over them."""

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small = device, small
        self.names = list(SMALL if small else MODELS)
        self.sizes = SMALL_SIZES if small else Sizes()
        self.grounds: dict[str, Ground] = {}
        self.ceilings: dict[str, float] = {}
        self.digests: dict[str, str] = {}

    def ground(self, name: str) -> Ground:
        if name not in self.grounds:
            self.grounds[name] = Ground.of(name, self.device, self.small)
        return self.grounds[name]

    def environment(self) -> bits.Section:
        """`equal`: a process that has not set torch's switches (one that only compares environments) has these answers."""
        before = network_answers(self.device)
        make_deterministic(self.device)
        return {
            "equal": before == network_answers(self.device),
            "environment": network_environment(self.device),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }

    def products(self) -> bits.Section:
        section = speed.products(self.device, self.sizes)
        self.ceilings = section["flop_per_second"]
        return section

    def tuning(self, name: str, precision: str) -> bits.Section:
        section = bits.tuning(self.ground(name), precision)
        self.digests[f"{name} {precision}"] = section["digests"][0]
        return section

    def another_process(self) -> bits.Section:
        """The same clusters, tuned in a process of its own, in the other order."""
        command = [sys.executable, "-m", "bench.gpu", "--digests", "--device", self.device, *(["--small"] if self.small else [])]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, check=False)
        if done.returncode:
            raise RuntimeError(f"the other process ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        theirs = json.loads(done.stdout.splitlines()[-1])
        compared = {case: theirs.get(case) == ours for case, ours in self.digests.items()}
        return {"equal": bool(compared) and all(compared.values()), "compared": compared}

    def sections(self) -> Iterator[tuple[str, float, Callable[[], bits.Section]]]:
        """Name, seconds that it takes on one H100 (a generous guess), and the work."""
        yield "environment", 20, self.environment
        yield "products", 10, self.products
        for name in self.names:
            for precision in PRECISIONS:
                yield f"tuning {name} {precision}", 25, lambda n=name, p=precision: self.tuning(n, p)  # type: ignore[misc]
            yield f"rows {name}", 20, lambda n=name: bits.rows(self.ground(n))  # type: ignore[misc]
            yield f"erasing {name}", 20, lambda n=name: bits.erasing(self.ground(n))  # type: ignore[misc]
        for name in self.names:
            for precision in PRECISIONS:
                work = lambda n=name, p=precision: speed.training(self.ground(n), p, self.ceilings)  # noqa: E731
                yield f"training {name} {precision}", 25, work
            yield f"embedding {name}", 15, lambda n=name: speed.embedding(self.ground(n), self.ceilings)  # type: ignore[misc]
        for name in self.names:
            for precision in PRECISIONS:
                yield f"attention {name} {precision}", 8, lambda n=name, p=precision: bits.attention(self.ground(n), p)  # type: ignore[misc]
        yield "another process", 90, self.another_process


def guarded(work: Callable[[], bits.Section]) -> bits.Section:
    """A section's findings and its seconds; the error's last line where it fails."""
    start = time.perf_counter()
    try:
        section = work()
    except Exception as error:  # whatever a device makes of it: the other sections go on
        traceback.print_exc()
        lines = str(error).strip().splitlines() or [""]
        section = {"error": f"{type(error).__name__}: {lines[0][:300]}"}
    return section | {"seconds": time.perf_counter() - start}


def run(args: argparse.Namespace, device: str) -> Report:
    bench, end = Bench(device, args.small), time.monotonic() + 60 * args.minutes
    report = Report(args.out, origin(args.revision), args.small)
    for name, seconds, work in bench.sections():
        left = end - time.monotonic()
        needed = seconds / 4 if args.small else seconds
        section = guarded(work) if left > needed else {"skipped": f"{left:.0f} s were left, {needed:.0f} are needed"}
        report.add(name, section)
    return report


def print_digests(device: str, small: bool) -> None:
    make_deterministic(device)
    grounds = [Ground.of(name, device, small) for name in (SMALL if small else MODELS)]
    print(json.dumps(bits.digests(grounds, list(PRECISIONS))))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = bench_parser("gpu", __doc__)
    parser.add_argument("--small", action="store_true", help="a tiny network and two steps, on the CPU")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="cuda; cpu with --small")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.json and gpu.md")
    parser.add_argument("--minutes", type=float, default=8, help="what would end later is skipped")
    parser.add_argument("--revision", help="told in the report where the folder has no git")
    parser.add_argument("--digests", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    device = args.device or ("cpu" if args.small else "cuda")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; try --small")
    if args.digests:
        print_digests(device, args.small)
        return 0
    return 0 if run(args, device).facts["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
