"""Erase people in turn, at once and in reverse order, and compare what is left."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pandas as pd

from bench.exactness.projects import command, make_project, make_source, without
from bench.exactness.report import Amounts, Audit, Erasures, Report
from bench.lab import ROOT
from bench.lab.changes import read_changes
from bench.lab.report import provenance
from flows import git
from flows.requests.certify import CODE
from lmeraser.core.digest import number_from
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.locks import compare, read_outs


def amounts(done: dict[str, Any]) -> Amounts:
    """Args: done: the JSON of `lmeraser forget`."""
    return {
        "clusters_retrained": done["clusters_retrained"],
        "clusters_total": done["clusters_total"],
        "records_retrained": done["records_retrained"],
    }


def in_turn(folder: Path, people: list[str], share: int = 1) -> list[dict[str, Any]]:
    """Erase people one after the other, `share` of them at a time; what was planned and what was done."""
    retrainings = []
    for first in range(0, len(people), share):
        named = people[first : first + share]
        planned = command(folder, "plan", "--subject", *named)
        done = command(folder, "forget", "--subject", *named)
        retrainings.append({"people": len(named), "cut_changes": planned["cut_changes"], **done})
        print(f"{folder.name}: {first + len(named)} of {len(people)}, {done['seconds']:.0f} s", file=sys.stderr, flush=True)
    return retrainings


def compared(first: Path, people: list[str], singles: int, work: Path, never: Path) -> Erasures:
    """A as ever; B all at once; C in reverse order; D built by DVC from a source without them."""
    for name in ("B", "C"):
        shutil.copytree(first, work / name)
    with ThreadPoolExecutor() as pool:
        forwards = pool.submit(audited, first, people, singles)
        backwards = pool.submit(in_turn, work / "C", people[::-1])
        report = forwards.result()
        at_once = command(work / "B", "forget", "--subject", *people)
        backwards.result()
    dvc = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(dvc, cwd=never, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})
    outs = read_outs(first / "dvc.lock")
    return {
        **report,
        "all_at_once": amounts(at_once),
        "at_once_equal": compare(outs, read_outs(work / "B" / "dvc.lock")).equal,
        "reverse_order_equal": compare(outs, read_outs(work / "C" / "dvc.lock")).equal,
        "never_had_them_equal": compare(outs, read_outs(never / "dvc.lock")).equal,
    }


def audited(folder: Path, people: list[str], singles: int, share: int = 1) -> Erasures:
    """Erase the first in turn and the others at once, then build again and compare."""
    retrainings = in_turn(folder, people[:singles], share)
    together = command(folder, "forget", "--subject", *people[singles:])
    return {
        "people_per_retraining": [retraining["people"] for retraining in retrainings],
        "clusters_retrained": [retraining["clusters_retrained"] for retraining in retrainings],
        "records_share": [round(retraining["records_retrained"] / retraining["records_total"], 4) for retraining in retrainings],
        "cut_changes": sum(retraining["cut_changes"] for retraining in retrainings),
        "batch": amounts(together),
        "audit": cast("Audit", command(folder, "audit", "--rebuild")),
    }


def campaign(options: argparse.Namespace, work: Path) -> Report:
    params, manifest = make_source(options.data, read_changes(options.change), work)
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    private = sorted(rows.loc[(rows["visibility"] == "private") & (rows["split"] == "train"), "subject"].unique())
    people = sorted(private, key=lambda name: number_from("exactness", name))[: options.singles + options.batch]
    first = make_project(work / "A", params)
    command(first, "build")
    start = time.monotonic()
    if options.audit_only:
        report = audited(first, people, options.singles, options.share)
    else:
        never = make_project(work / "D", without(params, manifest, people, work))
        report = compared(first, people, options.singles, work, never)
    return {
        **report,
        "data": options.data,
        "command": provenance()["command"],
        "people": {"private": len(private), "erased one by one": options.singles, "erased at once": options.batch},
        "seconds": round(time.monotonic() - start),
        "revision": git.revision(ROOT, CODE),
        "environment": network_environment(params["device"]),
    }
