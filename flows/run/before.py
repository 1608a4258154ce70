"""The state before a batch, `.lmeraser/BATCH.before/`: hard links of the artifacts, made while the pipeline is up to date.

From it stages are updated instead of run whole (`lmeraser/pipeline/before.py`). It holds the people who leave, so it goes as soon
as they are out of the artifacts; a kill in between leaves it to the next try.
"""

import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from flows.dvc import config as remotes
from lmeraser.core.files import DRAFT
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.erase.taint import FOLDER
from lmeraser.pipeline.before import link_before
from lmeraser.pipeline.locks import read_outs, recorded_dep
from lmeraser.stores.dvc_objects import parse_manifest

ENDING = ".before"


def keep(layout: Layout, batch_id: str, outs: Mapping[str, str], parts: Iterable[str] | None) -> Path | None:
    """Link the artifacts, unless a try that was killed did so already. Returns: the folder; None where stages must run whole.

    Args:
        outs: that the locks recorded when the batch was formed, which is the state to link.
        parts: that may hold records of who leaves, where the source is as it was; None: it is another one.
    """
    folder = layout.before(batch_id)
    if folder.is_dir() and not has_same_source(layout, folder):
        drop(layout, batch_id)
    if folder.is_dir():
        return folder
    if read_outs(layout.lock) != outs:  # something was recorded since
        return None
    try:
        link_before(layout, folder, _digests(layout, outs), parts)
    except (OSError, ValueError, KeyError):
        say("the state before could not be linked; stages run whole")
        return None
    return folder


def has_same_source(layout: Layout, folder: Path) -> bool:
    """Whether the lock says that `split` saw the source that it had seen in the state before."""
    path = load_params(layout.params).source.path
    was, now = (recorded_dep(lock, "split", path) for lock in (Layout(folder).lock, layout.lock))
    return was is not None and was == now


def _digests(layout: Layout, outs: Mapping[str, str]) -> dict[str, str]:
    """MD5 of every file that the locks record, folders by the manifests in DVC's cache. Raises: OSError, ValueError, KeyError."""
    objects = remotes.cache(layout).root / "files" / "md5"
    digests: dict[str, str] = {}
    for path, md5 in outs.items():
        if md5.endswith(FOLDER):
            members = parse_manifest((objects / md5[:2] / md5[2:]).read_bytes())
            digests |= {f"{path}/{name}": member for name, member in members.items()}
        else:
            digests[path] = md5
    return digests


def drop(layout: Layout, batch_id: str) -> None:
    shutil.rmtree(layout.before(batch_id), ignore_errors=True)


def drop_finished(layout: Layout, under_way: Collection[str]) -> None:
    """Drop the states before batches that are not under way any more."""
    for folder in layout.private_state.glob(f"*{ENDING}"):
        if folder.name.removesuffix(ENDING).removeprefix(DRAFT) not in under_way:
            shutil.rmtree(folder, ignore_errors=True)
