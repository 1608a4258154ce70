"""Where the benches find people's images: outside the project, laid out in a temporary folder for the time of a run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from bench.lab import ROOT
from lmeraser.core.params import Params

# What to_manifest.py is asked for, by data set. Where some people are public they are of the private people's kind; `…-shift`:
# the public images are CIFAR-100's and show nothing of the kind.
PACKS = {
    "signdigits": ["--private", "signdigits64_q85", "--public-fraction", "0.4"],
    "mnist": ["--private", "mnist10k_writers", "--public-fraction", "0.4"],
    "omniglot": ["--private", "omniglot8_105bit", "--public-fraction", "0.4"],
    "cifar10": ["--private", "cifar10_q75", "--public", "cifar100_q75"],
    "signdigits-shift": ["--private", "signdigits64_q85", "--public", "cifar100_q75"],
    "mnist-shift": ["--private", "mnist10k_writers", "--public", "cifar100_q75"],
    "omniglot-shift": ["--private", "omniglot8_105bit", "--public", "cifar100_q75"],
}
# Images of CIFAR-100 that CIFAR-10 has as well (mean difference at most 1 grey level; the next nearest pair differs by 8).
COPIES = [f"cifar100_q75/{number}.jpg" for number in (29272, 51305, 51934)]


def shared_data() -> Path:
    """The folder of image packs: LMERASER_SHARED_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("LMERASER_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "to_manifest.py").is_file():
        raise SystemExit(
            f"bench: no image packs in {folder}; set LMERASER_SHARED_DATA to the folder that holds to_manifest.py and retry "
            "(the digits need none)"
        )
    return folder


@contextmanager
def source_of(params: Params) -> Iterator[Params]:
    """The params with a source that exists. A preset names its pack by source.path `/path/to/NAME`; digits are at hand."""
    name = Path(params.source.path).name
    if params.source.kind == "digits":
        yield params
        return
    if name not in PACKS:
        raise SystemExit(f"bench: source.path ends in {name!r}; expected one of {', '.join(PACKS)}")
    with laid_out(PACKS[name]) as folder:
        yield params.model_copy(update={"source": params.source.model_copy(update={"path": str(folder)})})


@contextmanager
def laid_out(options: Sequence[str]) -> Iterator[Path]:
    """A folder of images with its manifest.csv, for the time of a run. Args: options: of to_manifest.py."""
    script = shared_data() / "to_manifest.py"
    with tempfile.TemporaryDirectory(prefix="lmeraser-bench-") as folder:
        subprocess.run([sys.executable, "-B", str(script), folder, *options], check=True, stdout=subprocess.DEVNULL)
        manifest = Path(folder) / "manifest.csv"
        rows = pd.read_csv(manifest, dtype=str, keep_default_na=False)
        rows[~rows["path"].isin(COPIES)].to_csv(manifest, index=False)
        yield Path(folder)
