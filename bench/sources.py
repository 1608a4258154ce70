"""Where the benches find people's images: outside the project, laid out in a temporary folder for the time of a run."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmeraser.core.params import Params

ROOT = Path(__file__).resolve().parent.parent
PACKS = {"signdigits": "signdigits64_q85", "mnist": "mnist10k_writers"}


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
    script = shared_data() / "to_manifest.py"
    with tempfile.TemporaryDirectory(prefix="lmeraser-bench-") as folder:
        command = [sys.executable, "-B", str(script), folder, "--private", PACKS[name], "--public-fraction", "0.4"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield params.model_copy(update={"source": params.source.model_copy(update={"path": folder})})
