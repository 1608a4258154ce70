"""A simulation of a first build and of an erasure with many GPU workers: discrete events, seeded, and no measurement.

    a wave      runs wait for a free worker; each run starts, pulls what its stages read (the store's bandwidth is divided evenly
                among those that pull, and none gets more than its network card), and computes
    the rest    one machine, the coordinator, does it: its seconds are records, bytes or stages over a rate

Every number is an `Assumption` with where it is from: measured on this machine, measured elsewhere in bench/results, or taken.
Nobody dies, nothing is tried again, and nothing of one step overlaps with the next, as in `flows/run/build.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from bench.fleet.assumptions import Assumption
from flows.service.fan_out import runs_for

MODES = ("workers", "clones")
GPUS = (1, 10, 100)
ROUNDING = 1e-6  # of what a run pulls: what is left of it then is rounding


@dataclass(frozen=True)
class Load:
    """A run: bytes that it pulls, and seconds that it computes."""

    pulled: float
    computes: float


@dataclass(frozen=True)
class Wave:
    """Seconds of a wave: on the wall, and of all workers together by what they did."""

    wall: float
    starting: float
    pulling: float
    computing: float

    @property
    def bound(self) -> str:
        """What its workers did most of the time."""
        spent = {"starting runs": self.starting, "pulling from the store": self.pulling, "computing": self.computing}
        return max(spent, key=spent.__getitem__)


@dataclass
class Running:
    """A run that a worker took. Attributes: until: when it has started, or ends; left: bytes to pull, where it pulls now."""

    load: Load
    until: float
    left: float = 0.0
    computes: bool = False


def run_wave(loads: Sequence[Load], workers: int, start_s: float, card: float, store: float) -> Wave:
    """Take runs in their order, each by the first free worker. Args: card, store: bytes a second of one worker, and of all."""
    waiting = list(reversed(loads))
    timed: list[Running] = []  # they start, or compute
    pulls: list[Running] = []
    now, pulling = 0.0, 0.0
    while waiting or timed or pulls:
        while waiting and len(timed) + len(pulls) < workers:
            timed.append(Running(waiting.pop(), now + start_s))
        rate = min(card, store / len(pulls)) if pulls else 0.0
        then = min([run.until for run in timed] + [now + run.left / rate for run in pulls])
        pulling += (then - now) * len(pulls)
        for run in pulls:
            run.left -= (then - now) * rate
        now = then
        begun = [run for run in timed if run.until <= now and not run.computes]
        pulled = [run for run in pulls if run.left <= ROUNDING * run.load.pulled]
        timed = [run for run in timed if run.until > now]
        pulls = [run for run in pulls if run.left > ROUNDING * run.load.pulled]
        for run in begun:
            run.left = run.load.pulled
            (pulls if run.left else pulled).append(run)
        timed += [Running(run.load, now + run.load.computes, computes=True) for run in pulled]
    return Wave(now, start_s * len(loads), pulling, sum(load.computes for load in loads))


def shares(weights: Sequence[float], workers: int) -> list[list[int]]:
    """Stages by their places, divided as `flows/service/fan_out.py` divides them: the heaviest first to the least loaded."""
    count = runs_for(len(weights), workers)
    divided: list[list[int]] = [[] for _ in range(count)]
    load = np.zeros(count)
    for place in sorted(range(len(weights)), key=lambda place: -weights[place]):
        least = int(load.argmin())
        divided[least].append(place)
        load[least] += weights[place] + 1
    return [share for share in divided if share]


class Step(TypedDict):
    """Of a build or an erasure. Attributes: bound: what bounds it; where: on the coordinator, or on the workers."""

    step: str
    seconds: float
    where: str
    bound: str


class Outcome(TypedDict):
    mode: str
    gpus: int
    build: list[Step]
    erasure: list[Step]


class Fleet:
    """Records, their parts and clusters, and what everything takes. Args: seed: of the clusters' sizes."""

    def __init__(self, assumed: Mapping[str, Assumption], seed: int) -> None:
        self.of = {name: assumption.value for name, assumption in assumed.items()}
        self.records, self.image = self.of["records"], self.of["image_bytes"]
        self.parts = int(-(-self.records // self.of["per_part"]))
        self.slots = int(self.of["slots"])
        drawn = np.random.default_rng(seed).gamma(4.0, size=self.slots)
        mean = self.records / self.slots
        sizes = np.minimum(drawn / drawn.mean() * mean, self.of["cut"] * mean)
        self.sizes = sizes / sizes.sum() * self.records

    @property
    def bytes(self) -> float:
        return self.records * self.image

    def embedding(self, gpus: int, mode: str) -> Wave:
        per_part = self.records / self.parts
        once = per_part * (self.of["decode_s"] + 1 / self.of["embed_rate"])
        loads = [Load(len(share) * per_part * self.image, len(share) * once) for share in shares([1.0] * self.parts, gpus)]
        return self._wave(loads, gpus)

    def tuning(self, sizes: Sequence[float], gpus: int, mode: str) -> Wave:
        loads = []
        for share in shares(sizes, gpus):
            records = sum(sizes[place] for place in share)
            loads.append(Load(self.read_by_tuning(records, len(share), mode), self.seconds_of_tuning(records)))
        return self._wave(loads, gpus)

    def seconds_of_tuning(self, records: float) -> float:
        return records * (self.of["decode_s"] + self.of["epochs"] / self.of["tune_rate"])

    def read_by_tuning(self, records: float, clusters: int, mode: str) -> float:
        """Bytes that clusters read: whole parts that hold one of their records in a clone; else ids and row groups of parts."""
        held = self.parts * (1 - (1 - 1 / self.parts) ** records)
        if mode == "clones":
            return float(held * self.bytes / self.parts)
        ids = clusters * self.parts * self.of["id_bytes"] * self.records / self.parts
        return float(ids + records * max(self.image, self.of["row_group"]))

    def _wave(self, loads: Sequence[Load], gpus: int) -> Wave:
        return run_wave(loads, gpus, self.of["start_s"], self.of["card"], self.of["store"])

    def build(self, gpus: int, mode: str) -> list[Step]:
        """Each step of a first build, in order."""
        of = self.of
        embedding, tuning = self.embedding(gpus, mode), self.tuning(self.sizes.tolist(), gpus, mode)
        tests = self.records * of["test_share"]
        steps = [
            here("DVC hashes the source", self.bytes / of["md5"], "hashing on one core"),
            here(
                "split", self.records * (of["split_s"] + of["check_s"]) + self.bytes / of["disk"], "checking images on one core"
            ),
            here("pretrain, skeleton", of["public"] * (of["decode_s"] + 1 / of["embed_rate"]), "decoding on one core"),
            here("record the parts", self.bytes / of["md5"] + self.bytes / of["disk"], "hashing on one core"),
        ]
        if mode == "clones":
            steps.append(here("push the parts", self.bytes / of["card"], "the coordinator's network card"))
        return [
            *steps,
            there("embed", embedding, "decoding on one core a GPU"),
            here("record embed", self.parts * of["record_s"], "recording on one core"),
            here("cluster, validate", self.records * of["gate_s"], "one process on one core"),
            there("tune", tuning, "training"),
            here("record tune", self.slots * of["record_s"], "recording on one core"),
            here(
                "head, evaluate", self.parts * of["sums_bytes"] / of["disk"] + self.asked(tests), "one GPU, decoding on one core"
            ),
        ]

    def asked(self, tests: float) -> float:
        """Seconds of one GPU to ask the served model about test records: the backbone once, and once for each nearest cluster."""
        return tests * (self.of["decode_s"] + (1 + self.of["nearest"]) / self.of["embed_rate"])

    def erasure(self, gpus: int, mode: str) -> list[Step]:
        """Each step of one person's erasure, from the state before: one part and one cluster, of the mean size."""
        of = self.of
        part, size = self.bytes / self.parts, self.records / self.slots
        tests = self.records * of["test_share"] * of["nearest"] / self.slots
        stages = self.parts + self.slots
        return [
            here("plan: DVC's status", stages * of["status_s"], "looking at every stage on one core"),
            here("split, embed (updates)", 2 * part / of["disk"] + part / of["md5"], "one part's bytes"),
            here("cluster, validate", self.records * of["gate_s"], "one process on one core"),
            there("tune one cluster", self.tuning([size], gpus, mode), "training"),
            here("head, evaluate", self.parts * of["sums_bytes"] / of["disk"] + self.asked(tests), "reading every part's sums"),
            here("record", 8 * of["record_s"] + part / of["md5"], "hashing one part"),
            here("verify", self.bytes / of["md5"] + stages * of["status_s"], "hashing every artifact on one core"),
            here("purge: scan of what is new", 2 * part / of["md5"], "one part in the cache and in the remote"),
        ]


def here(step: str, seconds: float, bound: str) -> Step:
    return {"step": step, "seconds": seconds, "where": "coordinator", "bound": bound}


def there(step: str, wave: Wave, computing: str) -> Step:
    """Args: computing: what bounds it where its workers compute most of the time."""
    bound = computing if wave.bound == "computing" else wave.bound
    return {"step": step, "seconds": wave.wall, "where": "workers", "bound": bound}


def bottleneck(steps: Sequence[Step]) -> Step:
    return max(steps, key=lambda step: step["seconds"])


def simulate(assumed: Mapping[str, Assumption], seed: int = 0, gpus: Sequence[int] = GPUS) -> list[Outcome]:
    """Every mode with every number of GPUs."""
    fleet = Fleet(assumed, seed)
    acts: tuple[Callable[[int, str], list[Step]], ...] = (fleet.build, fleet.erasure)
    outcomes: list[Outcome] = []
    for mode in MODES:
        for count in gpus:
            build, erasure = (act(count, mode) for act in acts)
            outcomes.append({"mode": mode, "gpus": count, "build": build, "erasure": erasure})
    return outcomes
