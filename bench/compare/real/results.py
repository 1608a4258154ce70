"""What is kept of every measurement in bench/results/compare-real.json; two processes may add to it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict

from bench.compare.real.outcome import Outcome
from bench.compare.real.stand import Stand
from bench.lab import RESULTS
from bench.lab.kept import alone, runs_in
from bench.lab.report import provenance
from lmeraser.core.digest import canonical_json, readable_json, sha256
from lmeraser.core.files import write_atomically
from lmeraser.core.params import Params
from lmeraser.learn.environment import network_environment
from lmeraser.serve.evaluation import accuracy, calibration_error, log_loss

NAME = "compare-real"


class Run(TypedDict):
    """One peer on one stand. Storage is in bytes, counts are of records; the rest is as in Outcome.

    Seconds are of processor, or where `gpu` names one, on the clock.
    """

    backbone: str
    data: str
    seed: int
    peer: str
    params: str
    gpu: NotRequired[str]
    command: str
    revision: str
    counts: dict[str, int]
    accuracy: float | None
    log_loss: float | None
    calibration_error: float | None
    fit_seconds: float
    deletion_seconds: float
    deletion_passes: float
    storage: int
    passes: float
    chosen: dict[str, float]
    equal: bool | None


def digest_of(params: Params) -> str:
    """Of what decides a measurement beside seed, device and where files lie: what was measured with others is measured anew."""
    settings = params.model_dump(mode="json", exclude={"seed", "source", "service", "slots"}) | {"device": "cpu"}
    if settings["pretrain"]["weights"]:
        del settings["pretrain"]["weights"]["file"]
    return sha256(canonical_json(settings))


def run_of(backbone: str, data_name: str, peer: str, stand: Stand, outcome: Outcome) -> Run:
    """What is kept: the answers, which are large, as their three measures."""
    answer = outcome.probabilities, outcome.labels, stand.test.labels
    made = provenance()
    device = network_environment(stand.params.device)
    run: Run = {
        "backbone": backbone,
        "data": data_name,
        "seed": stand.params.seed,
        "peer": peer,
        "params": digest_of(stand.params),
        "command": made["command"],
        "revision": made["revision"],
        "counts": {
            "public": len(stand.public.records),
            "train": len(stand.train.records),
            "test": len(stand.test.records),
            "people": len(stand.rows_of),
            "labels": len(set(stand.train.labels)),
        },
        "accuracy": accuracy(*answer),
        "log_loss": log_loss(*answer),
        "calibration_error": calibration_error(*answer),
        "fit_seconds": outcome.fit_seconds,
        "deletion_seconds": outcome.deletion_seconds,
        "deletion_passes": outcome.deletion_passes,
        "storage": outcome.storage,
        "passes": outcome.passes,
        "chosen": dict(outcome.chosen),
        "equal": outcome.equal,
    }
    if "gpu" in device:
        run["gpu"] = device["gpu"]
    return run


def kept_runs(folder: Path = RESULTS) -> list[Run]:
    """Every measurement so far."""
    return runs_in(folder / f"{NAME}.json")


def keep(runs: Iterable[Run], folder: Path = RESULTS) -> None:
    """Add measurements; one of the same backbone, data, seed and peer is replaced."""
    with alone(NAME):
        kept = {key_of(run): run for run in (*kept_runs(folder), *runs)}
        ordered = [kept[key] for key in sorted(kept)]
        write_atomically(folder / f"{NAME}.json", readable_json({**provenance(), "results": {"runs": ordered}}))


def key_of(run: Run) -> tuple[str, str, int, str]:
    return run["backbone"], run["data"], run["seed"], run["peer"]
