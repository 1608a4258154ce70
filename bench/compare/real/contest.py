"""Measure every peer over given backbones, data sets and seeds, and keep each number as soon as it is there."""

import argparse
import sys
import time

from bench.compare.real.data import DATA, params_of, read_people
from bench.compare.real.features import extract_all, given_backbone
from bench.compare.real.peers import PEERS, THROUGH_NETWORK
from bench.compare.real.report import write_real
from bench.compare.real.results import NAME, digest_of, keep, kept_runs, run_of
from bench.compare.real.stand import Stand, stand_on
from bench.lab.kept import alone
from bench.lab.presets import BACKBONES


def prepare(backbone: str, data_name: str, seed: int, device: str) -> Stand:
    """A stand whose features are extracted where they are not there yet."""
    params = params_of(data_name, backbone, seed).model_copy(update={"device": device})
    people = read_people(data_name, params)
    network = given_backbone(params)
    wanted = {record.sha256 for record in (*people.public, *people.train, *people.test)}
    images = {digest: image for digest, image in people.images.items() if digest in wanted}
    store = extract_all(images, network, params, f"{backbone}, {data_name}, seed {seed}")
    return stand_on(people, store, network.widths, params)


def measure(backbone: str, data_name: str, seed: int, wanted: list[str], args: argparse.Namespace) -> None:
    """What is missing of one row of the table under one seed."""
    digest = digest_of(params_of(data_name, backbone, seed))
    there = set()
    for run in kept_runs():
        if not args.fresh and (run["backbone"], run["data"], run["seed"], run["params"]) == (backbone, data_name, seed, digest):
            there.add(run["peer"])
    missing = [peer for peer in wanted if peer not in there]
    if not missing:
        return
    stand = prepare(backbone, data_name, seed, args.device)
    for peer in missing:
        start = time.monotonic()
        run = run_of(backbone, data_name, peer, stand, PEERS[peer](stand))
        keep([run])
        took = time.monotonic() - start
        sys.stderr.write(f"{backbone}, {data_name}, seed {seed}, {peer}: {run['accuracy']}, {took:.0f} s\n")


def real(data_name: str, args: argparse.Namespace) -> None:
    """Args: data_name: a data set, or `real` for all of them."""
    data_names = DATA if data_name == "real" else (data_name,)
    if not set(data_names) <= set(DATA):
        raise SystemExit(f"bench.compare: unknown data set {data_name[:40]!r}; expected real or one of {', '.join(DATA)}")
    possible = THROUGH_NETWORK if args.device == "cuda" else PEERS.keys() - THROUGH_NETWORK
    wanted = [peer for peer in PEERS if peer in possible and (not args.peers or any(part in peer for part in args.peers))]
    for backbone in args.backbone or BACKBONES:
        for name in data_names:
            for seed in args.seeds:
                if not args.report:
                    measure(backbone, name, seed, wanted, args)
    with alone(NAME):
        write_real(kept_runs())
