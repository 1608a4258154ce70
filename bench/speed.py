"""Speed of a training step, of embedding and of routing, against the loop of the paper's code and the machine's ceiling.

    python -m bench.speed                    2 to 6 minutes on two cores, by how long it waits for quiet
    python -m bench.speed --rounds 3         quicker and rougher
    python -m bench.speed --batch 128        larger batches, for both

Synthetic images (speed does not depend on what they show), 32 px, the lab's backbone (ResNet 1-1-1-1, 32-64-128-256). Ours:
one single-thread process a core, each tuning a cluster of its own with `lmeraser.learn.tuning.tune_cluster`, everything
included. Plain (bench/plain.py): one process with a thread a core, and, because neighbours' load cripples a gang of threads and
not us, also a process a core like ours. Rounds alternate; medians; processor time beside wall time.
Embedding: forward passes alone, float32 for both. Routing: from features to the leaf of the tree, against the distances to all
prototypes. Expect a ratio of about 3.4 for the step, 4.1 at batch 128, where the processor has bfloat16
products, and half of that where it has not.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, cast

from bench.report import ROOT
from bench.speed_report import QUIET, SQUARE, report

SIDE, FRAME_PX, CLASSES, CLUSTERS = 32, 4, 10, 32
CORES = len(os.sched_getaffinity(0))
CONTENDERS = ("ours", "plain_processes", "plain_threads")
PRODUCTS = {"bfloat16": 40, "float32": 20}  # products a round
EMBEDDINGS, ROUTINGS = 3, 100  # of all images, a round
PASSES = ("embed", "route")


def lab_params(batch: int, epochs: int) -> Any:
    """params.yaml of the project with the lab's backbone, image size, batch and frame."""
    from lmeraser.core.params import load_params

    base = load_params(ROOT / "params.yaml")
    kwargs = {"layers": [1, 1, 1, 1], "channels": [32, 64, 128, 256]}
    return base.model_copy(
        update={
            "image": base.image.model_copy(update={"size": SIDE, "channels": 3}),
            "pretrain": base.pretrain.model_copy(update={"model": "resnet18", "kwargs": kwargs, "small_stem": True}),
            "tune": base.tune.model_copy(
                update={
                    "frame_px": FRAME_PX,
                    "batch": batch,
                    "epochs": epochs,
                    "shift_px": 1,
                    "flip": True,
                    "precision": "bfloat16",
                }
            ),
        }
    )


def synthetic(n: int, seed: int) -> tuple[list[str], Any, list[str]]:
    """Record ids, (n, s, s, 3) uint8 and labels."""
    import numpy as np

    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (n, SIDE, SIDE, 3), dtype=np.uint8)
    return [f"{seed:08x}{row:024x}" for row in range(n)], pixels, [str(row % CLASSES) for row in range(n)]


def fresh_model(params: Any) -> Any:
    """The backbone with random weights: its speed is that of a trained one."""
    import torch

    from lmeraser.learn.backbone import build

    torch.manual_seed(0)
    return build(params.pretrain, params.image, 0).eval()


def our_jobs(n: int, batch: int, epochs: int, seed: int) -> dict[str, Callable[[], Any]]:
    """What one of our workers can do: tune its cluster, or multiply matrices."""
    import numpy as np
    import torch

    from lmeraser.clusters.skeleton import build_skeleton
    from lmeraser.learn.backbone import load_backbone, make_deterministic, save_backbone
    from lmeraser.learn.tuning import tune_cluster

    params = lab_params(batch, epochs)
    make_deterministic("cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backbone.safetensors"
        save_backbone(path, fresh_model(params), [0.5] * 3, [0.25] * 3, params)
        backbone = load_backbone(path, params)
    ids, pixels, labels = synthetic(n, seed)
    skeleton = build_skeleton(backbone.features(pixels, params.embed.batch), np.arange(n), params)

    def product(kind: str) -> None:
        square = torch.ones(SQUARE, SQUARE, dtype=getattr(torch, kind))
        for _ in range(PRODUCTS[kind]):
            torch.mm(square, square)

    features = backbone.features(pixels, params.embed.batch)

    def route() -> None:
        for _ in range(ROUTINGS):
            skeleton.hierarchy.route(skeleton.quantise(features))

    return {
        "tune": lambda: tune_cluster(ids, pixels, labels, backbone, skeleton, params, "bench"),
        "embed": lambda: [backbone.features(pixels, batch) for _ in range(EMBEDDINGS)],
        "route": route,
        "bfloat16": lambda: product("bfloat16"),
        "float32": lambda: product("float32"),
    }


def plain_jobs(n: int, batch: int, epochs: int, seed: int, threads: int) -> dict[str, Callable[[], Any]]:
    """The plain loop: with as many images as one of our workers sees, for each thread."""
    os.environ.pop("MKL_CBWR", None)  # it asks for no reproducible bits
    import torch

    from bench.plain import PlainLoop

    torch.set_num_threads(threads)
    params = lab_params(batch, epochs)
    model = fresh_model(params)
    total = n * threads  # one process with all threads sees what all our processes see
    _, pixels, names = synthetic(total, seed)
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5).div_(0.25).contiguous()
    labels = torch.tensor([int(name) for name in names])
    with torch.no_grad():
        prototypes = model(images[:CLUSTERS])
    loop = PlainLoop(model, prototypes, SIDE, FRAME_PX, CLASSES)

    def train() -> None:
        for epoch in range(epochs):
            order = torch.randperm(total, generator=torch.Generator().manual_seed(epoch))
            for start in range(0, total, batch):
                chosen = order[start : start + batch]
                loop.step(images[chosen], labels[chosen])

    features = model(images).detach() if total <= 4096 else torch.cat([model(part).detach() for part in images.split(1024)])

    def embed() -> None:
        with torch.no_grad():
            for _ in range(EMBEDDINGS):
                for start in range(0, total, batch):
                    model(images[start : start + batch])

    def route() -> None:
        for _ in range(ROUTINGS):
            torch.cdist(features, prototypes).argmin(1)

    return {"tune": train, "embed": embed, "route": route}


def work(kind: str, n: int, batch: int, epochs: int, seed: int, threads: int) -> None:
    """A worker: one job's name a line on standard input, one line back when it is done."""
    out = os.fdopen(os.dup(1), "w")
    jobs = our_jobs(n, batch, epochs, seed) if kind == "ours" else plain_jobs(n, batch, epochs, seed, threads)
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        jobs[line.strip()]()
        print("done", file=out, flush=True)


@dataclass(frozen=True)
class Spent:
    """What a job took. wall: seconds until all had done it; cpu: seconds of processor of all members together; foreign: share
    of the machine's cores that others used meanwhile (the hypervisor's steal included)."""

    wall: float
    cpu: float
    foreign: float


def _ticks(fields: Sequence[str]) -> float:
    return sum(map(int, fields)) / os.sysconf("SC_CLK_TCK")


def _busy() -> float:
    """Seconds of processor that anybody has used since the start: user, nice, system, irq, softirq, steal (proc(5))."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return _ticks([*fields[1:4], *fields[6:9]])


class Team:
    """Worker processes that do one job at a time, all of them at once."""

    def __init__(self, kind: str, size: int, threads: int, args: argparse.Namespace) -> None:
        command = [sys.executable, "-m", "bench.speed", "--worker", kind, "--threads", str(threads), "--batch", str(args.batch)]
        command += ["--images", str(args.images), "--epochs", str(args.epochs)]
        self.members = [
            subprocess.Popen(
                [*command, "--seed", str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True, cwd=ROOT,
            )
            for seed in range(size)
        ]  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        for member in self.members:
            if not cast("IO[str]", member.stdout).readline():
                raise SystemExit("bench.speed: a worker died; run it with --worker to see why")

    def _cpu(self) -> float:
        stats = [Path(f"/proc/{member.pid}/stat").read_text(encoding="ascii") for member in self.members]
        return sum(_ticks(stat.rsplit(")", 1)[1].split()[11:13]) for stat in stats)

    def do(self, job: str) -> Spent:
        cpu, busy, start = self._cpu(), _busy(), time.perf_counter()
        for member in self.members:
            pipe = cast("IO[str]", member.stdin)
            pipe.write(job + "\n")
            pipe.flush()
        self._wait()
        wall, own = time.perf_counter() - start, self._cpu() - cpu
        return Spent(wall, own, max(0.0, _busy() - busy - own) / wall / CORES)

    def close(self) -> None:
        for member in self.members:
            cast("IO[str]", member.stdin).close()
            member.wait()


def flops_per_image(batch: int) -> float:
    """Forward and backward to the input: what a step with a frozen backbone must compute (torch.utils.flop_counter)."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = fresh_model(lab_params(batch, 1)).requires_grad_(False)
    images = torch.zeros(batch, 3, SIDE, SIDE, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return counter.get_total_flops() / batch


def wait_for_quiet(limit_s: float) -> bool:
    """Until others use less than QUIET of the cores, or the limit: a gang of threads is hurt by them far more than we are."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        busy, start = _busy(), time.monotonic()
        time.sleep(0.5)
        if (_busy() - busy) / (time.monotonic() - start) / CORES < QUIET:
            return True
    return False


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Interleaved rounds of every contender, each doing the same number of images."""
    teams = {
        "ours": Team("ours", CORES, 1, args),
        "plain_processes": Team("plain", CORES, 1, args),
        "plain_threads": Team("plain", 1, CORES, args),
    }
    jobs = {name: (name, "tune") for name in teams} | {kind: ("ours", kind) for kind in PRODUCTS}
    jobs |= {f"{job} {team}": (team, job) for job in PASSES for team in ("ours", "plain_processes")}
    rounds: list[dict[str, Spent]] = []
    for place in range(args.rounds + 1):
        calm = wait_for_quiet(args.patience)
        # Under load a gang of threads takes minutes for what it does in a second: it runs in calm rounds alone.
        found = {name: teams[team].do(job) for name, (team, job) in jobs.items() if calm or name != "plain_threads"}
        if place:  # the first round warms up
            rounds.append(found)
    for team in teams.values():
        team.close()
    return summary(rounds, args)


def middle(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _pass(rounds: Sequence[dict[str, Spent]], job: str, args: argparse.Namespace) -> dict[str, float | None]:
    """Images a processor second of embedding or routing, and their ratio."""
    times = args.images * CORES * {"embed": EMBEDDINGS, "route": ROUTINGS}[job]
    ours, plain = ([one[f"{job} {team}"].cpu for one in rounds] for team in ("ours", "plain_processes"))
    return {
        "ours": middle([times / cpu for cpu in ours]),
        "plain": middle([times / cpu for cpu in plain]),
        "ratio": middle([slow / fast for fast, slow in zip(ours, plain, strict=True)]),
    }


def summary(rounds: Sequence[dict[str, Spent]], args: argparse.Namespace) -> dict[str, Any]:
    """Medians. Rates per processor second hold under load; wall ratios of quiet rounds alone are kept for the gang of threads."""
    seen = args.images * args.epochs * CORES
    quiet = [one for one in rounds if "plain_threads" in one and max(one[name].foreign for name in CONTENDERS) < QUIET]
    flops = flops_per_image(args.batch)
    per_cpu = {name: middle([seen / one[name].cpu for one in rounds]) for name in ("ours", "plain_processes")}
    ceiling = {
        kind: middle([CORES * products * 2 * SQUARE**3 / one[kind].cpu for one in rounds]) for kind, products in PRODUCTS.items()
    }
    return {
        "rounds": [{name: asdict(spent) for name, spent in one.items()} for one in rounds],
        "quiet_rounds": len(quiet),
        "images_per_wall_second": {name: middle([seen / one[name].wall for one in quiet]) for name in CONTENDERS},
        "images_per_cpu_second": per_cpu,
        "ratio_threads_wall_quiet": middle([one["plain_threads"].wall / one["ours"].wall for one in quiet]),
        "ratio_processes_wall": middle([one["plain_processes"].wall / one["ours"].wall for one in rounds]),
        "ratio_processes_cpu": middle([one["plain_processes"].cpu / one["ours"].cpu for one in rounds]),
        "ratio_processes_cpu_range": [f(one["plain_processes"].cpu / one["ours"].cpu for one in rounds) for f in (min, max)],
        "passes": {job: _pass(rounds, job, args) for job in PASSES},
        "flops_per_image": flops,
        "flops_per_cpu_second": ceiling,
        "foreign_load": middle([one["ours"].foreign for one in rounds]),
        "settings": {"batch": args.batch, "images": args.images, "epochs": args.epochs, "clusters_plain": CLUSTERS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=512, help="in a cluster")
    parser.add_argument("--epochs", type=int, default=2, help="in a round")
    parser.add_argument("--patience", type=float, default=20, help="seconds to wait for a quiet machine before a round")
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--worker", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.images, args.batch, args.epochs, args.seed, args.threads)
    else:
        report(measure(args))


if __name__ == "__main__":
    main()
