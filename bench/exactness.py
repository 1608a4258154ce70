"""Erase many people in several ways and compare every artifact: the exactness contract on real persons.

    python -m bench.exactness digits
    python -m bench.exactness signdigits        needs the image packs (LMERASER_SHARED_DATA)
    python -m bench.exactness cifar10 --audit-only --singles 100 --share 10 --batch 500 --change pretrain.epochs=2

Four projects: A erases 20 people one by one and then 10 at once, and is audited; B erases the same 30 at once; C erases them one
by one in reverse order; D never had them in its manifest and is built by plain `dvc repro`. All four must have the same dvc.lock
outs, and each erasure of A and C may change planned stages only. About 25 minutes on 2 cores (A and C run side by side).
--audit-only: A alone, which the audit builds again from its retained records; --share: so many people share a retraining, as
those do whose requests wait together. Both for data whose erasures take long.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.choose import changed, read_changes
from bench.presets import preset_of
from bench.report import RESULTS, provenance
from bench.sources import PACKS, ROOT, shared_data
from flows import git
from flows.audit.rebuild import copy_code
from flows.requests.certify import CODE
from lmeraser.core.digest import number_from, readable_json
from lmeraser.learn.environment import network_environment
from lmeraser.pipeline.locks import compare, read_outs

AMOUNTS = ("clusters_retrained", "clusters_total", "records_retrained")


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    """One lmeraser command in a project, as a user would give it; its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{folder.name}: lmeraser {arguments[0]} failed ({done.returncode}): {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def make_source(data: str, changes: dict[str, Any], work: Path) -> tuple[dict[str, Any], Path]:
    """Params and the manifest file of a data set."""
    params = changed(preset_of(data), changes).model_dump(mode="json")
    if data == "digits":
        return params, ROOT / params["source"]["path"]
    out = work / "people"
    script = [sys.executable, str(shared_data() / "to_manifest.py"), str(out), *PACKS[data]]
    subprocess.run(script, check=True, stdout=sys.stderr)
    params["source"] = {"kind": "manifest", "path": str(out), "erase": False}
    return params, out / "manifest.csv"


def make_project(folder: Path, params: dict[str, Any]) -> Path:
    folder.mkdir()
    copy_code(ROOT, folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def without(params: dict[str, Any], manifest: Path, people: list[str], work: Path) -> dict[str, Any]:
    """Params of a project whose manifest never had the people."""
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    kept = rows[~rows["subject"].isin(people)].sample(frac=1, random_state=1)  # and in another order
    if params["source"]["kind"] == "digits":
        never = work / "never.csv"
        kept.to_csv(never, index=False)
        return params | {"source": {"kind": "digits", "path": str(never), "erase": False}}
    folder = work / "never"
    shutil.copytree(manifest.parent, folder)
    kept.to_csv(folder / "manifest.csv", index=False)
    for path in rows.loc[rows["subject"].isin(people), "path"]:
        (folder / path).unlink()
    return params | {"source": {"kind": "manifest", "path": str(folder), "erase": False}}


def in_turn(folder: Path, people: list[str], share: int = 1) -> list[dict[str, Any]]:
    """Erase people one after the other, `share` of them at a time; what was planned and what was done."""
    told = []
    for first in range(0, len(people), share):
        named = people[first : first + share]
        planned = command(folder, "plan", "--subject", *named)
        done = command(folder, "forget", "--subject", *named)
        told.append({"people": len(named), "cut_changes": planned["cut_changes"], **done})
        print(f"{folder.name}: {first + len(named)} of {len(people)}, {done['seconds']:.0f} s", file=sys.stderr, flush=True)
    return told


def compared(first: Path, people: list[str], singles: int, work: Path, never: Path) -> dict[str, Any]:
    """A as ever; B all at once; C in reverse order; D built by DVC from a source without them."""
    for name in ("B", "C"):
        shutil.copytree(first, work / name)
    with ThreadPoolExecutor() as pool:
        forwards = pool.submit(audited, first, people, singles)
        backwards = pool.submit(in_turn, work / "C", people[::-1])
        found = forwards.result()
        at_once = command(work / "B", "forget", "--subject", *people)
        backwards.result()
    dvc = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    subprocess.run(dvc, cwd=never, check=True, stdout=sys.stderr, env=os.environ | {"PATH": path})
    outs = read_outs(first / "dvc.lock")
    return found | {
        "all_at_once": {key: at_once[key] for key in AMOUNTS},
        "at_once_equal": compare(outs, read_outs(work / "B" / "dvc.lock")).equal,
        "reverse_order_equal": compare(outs, read_outs(work / "C" / "dvc.lock")).equal,
        "never_had_them_equal": compare(outs, read_outs(never / "dvc.lock")).equal,
    }


def audited(folder: Path, people: list[str], singles: int, share: int = 1) -> dict[str, Any]:
    """Erase the first in turn and the others at once, then build again and compare."""
    told = in_turn(folder, people[:singles], share)
    together = command(folder, "forget", "--subject", *people[singles:])
    return {
        "people_per_retraining": [one["people"] for one in told],
        "clusters_retrained": [one["clusters_retrained"] for one in told],
        "records_share": [round(one["records_retrained"] / one["records_total"], 4) for one in told],
        "cut_changes": sum(one["cut_changes"] for one in told),
        "batch": {key: together[key] for key in AMOUNTS},
        "audit": command(folder, "audit", "--rebuild"),
    }


def campaign(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    params, manifest = make_source(options.data, read_changes(options.change), work)
    rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
    private = sorted(rows.loc[(rows["visibility"] == "private") & (rows["split"] == "train"), "subject"].unique())
    people = sorted(private, key=lambda name: number_from("exactness", name))[: options.singles + options.batch]
    first = make_project(work / "A", params)
    command(first, "build")
    start = time.monotonic()
    if options.audit_only:
        found = audited(first, people, options.singles, options.share)
    else:
        never = make_project(work / "D", without(params, manifest, people, work))
        found = compared(first, people, options.singles, work, never)
    return found | {
        "data": options.data,
        "command": provenance()["command"],
        "people": {"private": len(private), "erased one by one": options.singles, "erased at once": options.batch},
        "seconds": round(time.monotonic() - start),
        "revision": git.revision(ROOT, CODE),
        "environment": network_environment(params["device"]),
    }


def markdown(found: dict[str, Any]) -> str:
    clusters, share, people = found["clusters_retrained"], found["records_share"], found["people_per_retraining"]
    equal = {True: "equal", False: "NOT EQUAL", None: "not measured"}
    rows = [
        ("people erased in turn, then at once", f"{sum(people)}, {found['people']['erased at once']}"),
        ("retrainings for those in turn, people in each", f"{len(people)}, {min(people)} to {max(people)}"),
        ("clusters a retraining, mean (max)", f"{sum(clusters) / len(clusters):.2f} ({max(clusters)})"),
        ("share of records a retraining, mean (max)", f"{sum(share) / len(share):.3f} ({max(share):.3f})"),
        ("clusters retrained for those at once", f"{found['batch']['clusters_retrained']} of {found['batch']['clusters_total']}"),
        ("cuts that changed", str(found["cut_changes"])),
        ("audit --rebuild", f"{equal[found['audit']['equal']]}, {found['audit']['artifacts']} artifacts"),
        ("all at once", equal[found.get("at_once_equal")]),
        ("in turn in reverse order", equal[found.get("reverse_order_equal")]),
        ("a project that never had them", equal[found.get("never_had_them_equal")]),
    ]
    head = f"`{found['command']}` at {found['revision'][:12]}\n\n| | |\n|---|---|\n"
    return head + "".join(f"| {name} | {value} |\n" for name, value in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", *PACKS])
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--share", type=int, default=1, help="people who share a retraining, with --audit-only")
    parser.add_argument("--audit-only", action="store_true", help="compare with the audit's rebuild alone")
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmeraser-exactness-") as name:
        found = campaign(options, Path(name))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"exactness-{options.data}.json").write_bytes(readable_json(found))
    (RESULTS / f"exactness-{options.data}.md").write_text(markdown(found))
    print(markdown(found))
    equal = ("at_once_equal", "reverse_order_equal", "never_had_them_equal")
    sys.exit(0 if found["audit"]["equal"] and all(found.get(key, True) for key in equal) else 1)


if __name__ == "__main__":
    main()
