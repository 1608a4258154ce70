"""The projects that are compared, made from one data set, and commands in them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.lab import ROOT
from bench.lab.changes import changed
from bench.lab.presets import backbone_preset, preset_of
from bench.lab.sources import PACKS, shared_data
from flows.audit.rebuild import copy_code


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    """One lmeraser command in a project, as a user would give it; its JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{folder.name}: lmeraser {arguments[0]} failed ({done.returncode}): {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def make_source(data: str, backbone: str | None, changes: Mapping[str, object], work: Path) -> tuple[dict[str, Any], Path]:
    """Params and the manifest file of a data set. Args: backbone: with given weights; None: the preset's, trained here."""
    preset = backbone_preset(backbone) if backbone else preset_of(data)
    params = changed(preset, changes).model_dump(mode="json")
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
