"""Erase people in turn, at once and in reverse order, and compare what is left."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import pandas as pd

from bench.exactness.projects import command, make_project, make_source, without
from bench.lab import ROOT
from bench.lab.changes import read_changes
from bench.lab.report import provenance
from flows import git
from flows.requests.certify import CODE
from lmeraser.core.digest import number_from
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.locks import compare, read_outs


@dataclass(frozen=True)
class Retraining:
    """One erasure of some people: what was planned and what was done."""

    people: int
    cut_changes: int
    clusters_retrained: int
    records_retrained: int
    records_total: int


class Audited(TypedDict):
    """Of project A. `batch`: amounts of the erasure of many at once; `audit`: what `lmeraser audit --rebuild` says."""

    people_per_retraining: list[int]
    clusters_retrained: list[int]
    records_share: list[float]
    cut_changes: int
    batch: dict[str, int]
    audit: dict[str, Any]


class Compared(Audited):
    """And of B, C and D, where they were made."""

    all_at_once: NotRequired[dict[str, int]]
    at_once_equal: NotRequired[bool]
    reverse_order_equal: NotRequired[bool]
    never_had_them_equal: NotRequired[bool]


class Results(Compared):
    data: str
    command: str
    people: dict[str, int]
    seconds: int
    revision: str
    environment: Mapping[str, str]


AMOUNTS = ("clusters_retrained", "clusters_total", "records_retrained")


def in_turn(folder: Path, people: list[str], share: int = 1) -> list[Retraining]:
    """Erase people one after the other, `share` of them at a time; what was planned and what was done."""
    retrainings = []
    for first in range(0, len(people), share):
        named = people[first : first + share]
        planned = command(folder, "plan", "--subject", *named)
        done = command(folder, "forget", "--subject", *named)
        amounts = (done[key] for key in ("clusters_retrained", "records_retrained", "records_total"))
        retrainings.append(Retraining(len(named), planned["cut_changes"], *amounts))
        print(f"{folder.name}: {first + len(named)} of {len(people)}, {done['seconds']:.0f} s", file=sys.stderr, flush=True)
    return retrainings


def compared(first: Path, people: list[str], singles: int, work: Path, never: Path) -> Compared:
    """A as ever; B all at once; C in reverse order; D built by DVC from a source without them."""
    for name in ("B", "C"):
        shutil.copytree(first, work / name)
    with ThreadPoolExecutor() as pool:
        forwards = pool.submit(audited, first, people, singles)
        backwards = pool.submit(in_turn, work / "C", people[::-1])
        audited_first = forwards.result()
        at_once = command(work / "B", "forget", "--subject", *people)
        backwards.result()
    dvc = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(dvc, cwd=never, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})
    outs = read_outs(first / "dvc.lock")
    return {
        **audited_first,
        "all_at_once": {key: at_once[key] for key in AMOUNTS},
        "at_once_equal": compare(outs, read_outs(work / "B" / "dvc.lock")).equal,
        "reverse_order_equal": compare(outs, read_outs(work / "C" / "dvc.lock")).equal,
        "never_had_them_equal": compare(outs, read_outs(never / "dvc.lock")).equal,
    }


def audited(folder: Path, people: list[str], singles: int, share: int = 1) -> Audited:
    """Erase the first in turn and the others at once, then build again and compare."""
    retrainings = in_turn(folder, people[:singles], share)
    together = command(folder, "forget", "--subject", *people[singles:])
    return {
        "people_per_retraining": [retraining.people for retraining in retrainings],
        "clusters_retrained": [retraining.clusters_retrained for retraining in retrainings],
        "records_share": [round(each.records_retrained / each.records_total, 4) for each in retrainings],
        "cut_changes": sum(retraining.cut_changes for retraining in retrainings),
        "batch": {key: together[key] for key in AMOUNTS},
        "audit": command(folder, "audit", "--rebuild"),
    }


def campaign(options: argparse.Namespace, work: Path) -> Results:
    params, manifest = make_source(options.data, options.backbone, read_changes(options.change), work)
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    private = sorted(rows.loc[(rows["visibility"] == "private") & (rows["split"] == "train"), "subject"].unique())
    people = sorted(private, key=lambda name: number_from("exactness", name))[: options.singles + options.batch]
    first = make_project(work / "A", params)
    command(first, "build")
    start = time.monotonic()
    if options.audit_only:
        erasures: Audited = audited(first, people, options.singles, options.share)
    else:
        never = make_project(work / "D", without(params, manifest, people, work))
        erasures = compared(first, people, options.singles, work, never)
    about = {
        "data": f"{options.data} over {options.backbone}" if options.backbone else options.data,
        "command": provenance()["command"],
        "people": {"private": len(private), "erased one by one": options.singles, "erased at once": options.batch},
        "seconds": round(time.monotonic() - start),
        "revision": git.revision(ROOT, CODE),
        "environment": network_environment(params["device"]),
    }
    return cast("Results", {**erasures, **about})
