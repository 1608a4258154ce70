"""Build and update: the same bytes as plain `dvc repro`, in few warm processes.

`dvc repro` starts one process a stage, and most of a small stage's time is the import of torch. Here stages run one after the
other in one process (`stages/runtime/chain.py`), clusters in as many processes as there are cores, and then one `dvc commit`
records them. `dvc commit` does not check that the inputs are those that were used, so their digests are compared before and
after; whoever calls holds the workspace's lock. Where something was built before, DVC says which slots are stale, and they are
trained the same way.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.dvc import command as dvc
from flows.dvc import config as remotes
from flows.run import before as states
from flows.run.devices import gpus, processes
from flows.run.warm_client import run_chains
from lmeraser.clusters.files import load_sizes
from lmeraser.core.code import code_digest
from lmeraser.core.digest import sha256, sha256_of_file
from lmeraser.core.errors import ParamsError, ProjectError, StepFailedError
from lmeraser.core.files import DRAFT, discard
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.pipeline.before import Before, open_before
from lmeraser.pipeline.files import StageName, check_files, files, stage_names
from lmeraser.pipeline.locks import read_outs
from lmeraser.sources import check_source

GROWING = "build"  # the state before a build, among those before batches
SMALL = 5000  # records
GATE, ANSWERING = ("cluster", "validate"), ("head", "evaluate")  # stages before the tuning, and after it
Tuner = Callable[[Sequence[str]], dict[str, float]]  # trains slots somewhere, their files lie here afterwards; seconds by stage


def _inputs(layout: Layout) -> str:
    """Digest of what every stage reads and none writes: params, code, pipeline files, and who is erased."""
    read = (layout.params, layout.erased, *files(layout.root))
    return sha256("".join([code_digest(layout.root), *map(sha256_of_file, read)]).encode())


def drop_drafts(layout: Layout) -> None:
    """Delete what killed stages had not finished: DVC would take it for a part of the folder that it lies in."""
    for draft in list(layout.artifacts.rglob(f"{DRAFT}*")):
        discard(draft)


def _shares(slots: Sequence[str], layout: Layout, count: int) -> list[list[str]]:
    """Divide slots among processes, the largest cluster first to the least loaded."""
    records = {size.slot: size.records for size in load_sizes(layout.clusters)}
    shares: list[list[str]] = [[] for _ in range(count)]
    load = [0] * len(shares)
    for slot in sorted(slots, key=lambda slot: (-records.get(slot, 0), slot)):
        least = load.index(min(load))
        shares[least].append(str(StageName("tune", slot)))
        load[least] += records.get(slot, 0) + 1  # an empty slot costs something as well
    return shares


def _run_stages(
    layout: Layout,
    first: Sequence[str],
    slots: Sequence[str],
    after: Sequence[str],
    tune: Tuner | None = None,
    before: Path | None = None,
) -> dict[str, float]:
    """Run `first`, then the slots side by side, then `after`, and record all of them. Returns seconds by stage.

    Args: before: the folder of the state before, from which stages are updated; None: they run whole.
    """
    inputs = _inputs(layout)
    drop_drafts(layout)
    tuning = stage_names("tune", slots)
    params = load_params(layout.params)
    count = processes(params)
    if tune and slots:
        seconds = run_chains(layout, [first], before=before)
        _check(layout, inputs)
        seconds |= _commit(layout, first)  # whoever tunes elsewhere reads what is recorded
        seconds |= tune(slots)
        seconds |= run_chains(layout, [after], before=before)
    elif len(slots) <= count:
        seconds = run_chains(layout, [[*first, *tuning, *after]], before=before)
    else:
        seconds = run_chains(layout, [first], before=before)
        seconds |= run_chains(layout, _shares(slots, layout, count), gpus(params))
        seconds |= run_chains(layout, [after], before=before)
    _check(layout, inputs)
    return seconds | _commit(layout, [*first, *tuning, *after])


def _check(layout: Layout, inputs: str) -> None:
    """`dvc commit` does not look at inputs: they must be those that were used."""
    if _inputs(layout) != inputs:
        raise StepFailedError(
            "params.yaml, the code or data/erased.json changed during the run; retry when nobody else is changing the project"
        )


def _commit(layout: Layout, names: Sequence[str]) -> dict[str, float]:
    start = time.monotonic()
    dvc.commit(layout, [name for name in names if StageName.parse(name).recorded])
    close_private(layout)  # DVC copied some of the files anew
    return {"dvc commit": time.monotonic() - start}


def build(layout: Layout) -> None:
    """Bring everything that the pipeline makes up to date. Raises: StepFailedError; what was finished stays finished."""
    params = load_params(layout.params)
    check_files(layout.root, params.slots)
    close_private(layout)
    check_early(layout, params)
    if not layout.lock.exists():
        shutil.rmtree(layout.artifacts, ignore_errors=True)  # of no known origin
        _run_first(layout, params)
        dvc.run(layout, "repro", "--quiet")
    elif is_other_source(params, stale := dvc.status(layout)) and _grow(layout, params):
        dvc.run(layout, "repro", "--quiet")
    elif stale:
        _train_stale(layout, params, stale)
        dvc.run(layout, "repro", "--quiet")
    close_private(layout)
    say("build: everything is up to date")


def _run_first(layout: Layout, params: Params) -> None:
    """Everything from nothing: parts and clusters side by side, one process a core."""
    inputs = _inputs(layout)
    drop_drafts(layout)
    count = processes(params)
    frozen = ["split", "pretrain", "skeleton", "recipe"]
    placing = stage_names("embed", params.parts)
    if _is_small(layout, params):
        run_chains(layout, [[*frozen, *placing, *GATE]])
    else:
        run_chains(layout, [frozen])
        run_chains(layout, [placing[number::count] for number in range(count)], gpus(params))
        run_chains(layout, [GATE])
    run_chains(layout, _shares(params.slots, layout, count), gpus(params))
    run_chains(layout, [ANSWERING])
    _check(layout, inputs)
    _commit(layout, [*frozen, *placing, *GATE, *stage_names("tune", params.slots), *ANSWERING])


def _is_small(layout: Layout, params: Params) -> bool:
    """Whether starting several processes would take longer than embedding everybody in one."""
    return not params.pretrain.weights and len(check_source(params.source, layout.root).table()) <= SMALL


def is_other_source(params: Params, stale: dict[str, Any]) -> bool:
    """Whether nothing is stale but what reads the source: people came, left, or have other labels."""
    reasons = stale.get("split", []) if set(stale) == {"split"} else []
    return (
        bool(reasons)
        and all(isinstance(reason, dict) and reason.keys() == {"changed deps"} for reason in reasons)
        and all(reason["changed deps"].keys() <= {params.source.path} for reason in reasons)
    )


def _grow(layout: Layout, params: Params) -> bool:
    """Bring the pipeline up to another source at the cost of what is other in it. Returns: False if it must run whole."""
    states.drop(layout, GROWING)  # of a build that was killed: it says nothing of now
    folder = states.keep(layout, GROWING, read_outs(layout.lock), None)
    try:
        before = open_before(folder, layout) if folder else None
        return before is not None and _grow_from(before, layout, params)
    finally:
        states.drop(layout, GROWING)


def _grow_from(before: Before, layout: Layout, params: Params) -> bool:
    inputs = _inputs(layout)
    drop_drafts(layout)
    count = processes(params)
    run_chains(layout, [["split"]], before=before.root)
    if not before.has_same(layout.public, layout=layout):
        return False  # the backbone learns anew, and all that stands on it
    parts = [part for part in params.parts if not before.has_same(layout.part(part), layout=layout)]
    placing = stage_names("embed", parts)
    run_chains(layout, [placing[number::count] for number in range(count)], gpus(params), before=before.root)
    run_chains(layout, [GATE], before=before.root)
    slots = [slot for slot in params.slots if not before.has_same(layout.members(slot), layout=layout)]
    run_chains(layout, _shares(slots, layout, count), gpus(params))
    run_chains(layout, [ANSWERING], before=before.root)
    _check(layout, inputs)
    _commit(layout, ["split", *placing, *GATE, *stage_names("tune", slots), *ANSWERING])
    say(f"build: {len(parts)} of {len(params.parts)} parts and {len(slots)} of {len(params.slots)} slots were other")
    return True


def check_early(layout: Layout, params: Params) -> None:
    """Raise BadInputError for what `dvc commit` would refuse after hours of training; nothing is changed."""
    above = (layout.root, *layout.root.parents)
    if not any((folder / ".dvc").is_dir() for folder in above):
        raise ProjectError("this is not a DVC repository (.dvc is missing); restore it from git, or run `dvc init`, and retry")
    config = remotes.read_config(layout)
    without_git = config.get("core", {}).get("no_scm", "").lower() == "true"
    if not without_git and not any((folder / ".git").exists() for folder in above):
        raise ProjectError(
            "this is not a git repository (.git is missing), and DVC needs one; clone the project or run `git init`, and retry"
        )
    place = (layout.root / params.source.path).resolve()
    if any(place.is_relative_to(folder.resolve()) for folder in remotes.folders(layout, config)):
        raise ParamsError(
            "params.yaml: source.path is inside DVC's cache or a DVC remote, which a purge clears; move your data and retry"
        )
    check_source(params.source, layout.root)
    if not layout.lock.exists():
        _ask_dvc(layout)


def _ask_dvc(layout: Layout) -> None:
    """DVC hashes the source now, as it will when `split` is recorded, and remembers it: this costs that time once.

    Raises: ProjectError without DVC's own words, which may name an image.
    """
    code, _, _ = dvc.ask(layout, "status", "--json", "split")
    if code:
        raise ProjectError("DVC cannot read the project or its source; run `dvc status split` to see why, fix it and retry")


def _train_stale(layout: Layout, params: Params, stale: dict[str, Any]) -> None:
    """Bring everything before `tune` up to date, then train the slots whose inputs changed side by side and record them."""
    if any(StageName.parse(name).kind not in ("tune", "head", "evaluate") for name in stale):
        dvc.run(layout, "repro", "--quiet", "validate", "recipe")
        stale = dvc.status(layout)
    slots = [slot for slot in params.slots if _inputs_changed(stale.get(str(StageName("tune", slot)), []))]
    if len(slots) > 1:
        _run_stages(layout, [], slots, [])


def _inputs_changed(reasons: Sequence[Any]) -> bool:
    """Whether a stage must run. Where its file alone is missing or damaged, DVC brings it back from its cache."""
    return any(reason == "changed command" or "changed deps" in reason for reason in reasons)


def update(
    layout: Layout,
    parts: Sequence[str],
    slots: Sequence[str],
    unsolved: Sequence[str] = (),
    tune: Tuner | None = None,
    before: Path | None = None,
) -> dict[str, float]:
    """After an erasure: run what it touched. Returns seconds by stage.

    Args:
        unsolved: copies whose global head is solved first, in the same process; tune: who trains slots, if not this machine's
            own processes.
        before: the folder of the state before, from which stages are updated; None: they run whole.
    Whether anything else is stale is for `verify` to ask.
    """
    first = [*stage_names("interim_head", unsolved), "split", *stage_names("embed", parts), *GATE]
    seconds = _run_stages(layout, first, slots, ANSWERING, tune, before)
    if before and not states.has_same_source(layout, before):  # an updated split never looked at it
        raise StepFailedError("the source changed during the run; run `dvc repro`, then `lmeraser resume`")
    return seconds
