"""Build and update: the same bytes as plain `dvc repro`, in few warm processes.

`dvc repro` starts one process a stage, and most of a small stage's time is the import of torch. Here stages run one after the
other in one process (`stages/runtime/chain.py`), parts and clusters in as many processes as there are cores or by workers, and
then one `dvc commit` records them. `dvc commit` does not check that the inputs are those that were used, so their digests are
compared before and after; whoever calls holds the workspace's lock. Where something was built before, DVC says which slots are
stale, and they are trained the same way.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.dvc import command as dvc
from flows.dvc import config as remotes
from flows.dvc import lock_backups
from flows.run import before as states
from flows.run.devices import gpus, processes
from flows.run.handout import BUILD
from flows.run.warm_client import run_chains
from flows.run.waves import Seconds, Wave, Workers, shares
from lmeraser.core.code import code_digest
from lmeraser.core.digest import sha256, sha256_of_file
from lmeraser.core.errors import LmeraserError, ParamsError, ProjectError, StepFailedError
from lmeraser.core.files import DRAFT, discard
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.core.private import close_private
from lmeraser.core.progress import say
from lmeraser.pipeline.before import Before, open_before
from lmeraser.pipeline.files import StageName, check_files, files, stage_names
from lmeraser.pipeline.locks import read_outs
from lmeraser.sources import check_source

SMALL = 5000  # records
FROZEN = ("split", "pretrain", "skeleton", "recipe")  # before the parts are embedded
GATE, ANSWERING = ("cluster", "validate"), ("head", "evaluate")  # stages before the tuning, and after it


def _inputs(layout: Layout) -> str:
    """Digest of what every stage reads and none writes: params, code, pipeline files, and who is erased."""
    read = (layout.params, layout.erased, *files(layout.root))
    return sha256("".join([code_digest(layout.root), *map(sha256_of_file, read)]).encode())


def drop_drafts(layout: Layout) -> None:
    """Delete what killed stages had not finished: DVC would take it for a part of the folder that it lies in."""
    for draft in list(layout.artifacts.rglob(f"{DRAFT}*")):
        discard(draft)


def _check(layout: Layout, inputs: str) -> None:
    """`dvc commit` does not look at inputs: they must be those that were used."""
    if _inputs(layout) != inputs:
        raise StepFailedError(
            "params.yaml, the code or data/erased.json changed during the run; retry when nobody else is changing the project"
        )


def _commit(layout: Layout, names: Sequence[str]) -> Seconds:
    start = time.monotonic()
    dvc.commit(layout, [name for name in names if StageName.parse(name).recorded])
    close_private(layout)  # DVC copied some of the files anew
    return {"dvc commit": time.monotonic() - start}


class Waves:
    """Waves that one coordinator takes, one after the other, until it records them.

    Attributes: seconds: by stage, so far.
    """

    def __init__(self, layout: Layout, workers: Workers | None = None) -> None:
        """Args: workers: who runs what stands apart; None: this machine's own processes."""
        self.layout, self.workers = layout, workers
        self.seconds: Seconds = {}
        self._inputs = _inputs(layout)
        self._unrecorded: list[str] = []
        drop_drafts(layout)

    def take(self, *waves: Wave) -> None:
        """Run waves. Raises: StepFailedError."""
        for wave in waves:
            if self.workers and wave.may_go_out:
                self.record()  # whoever works elsewhere reads what is recorded
                self.seconds |= self.workers(wave.names)
            else:
                self.seconds |= self._run_here(wave)
            self._unrecorded += wave.names

    def _run_here(self, wave: Wave) -> Seconds:
        if not wave.apart:
            return run_chains(self.layout, [wave.names], before=wave.before)
        params = load_params(self.layout.params)
        divided = shares(wave.names, self.layout, processes(params))
        return run_chains(self.layout, divided, gpus(params), before=wave.before)

    def record(self) -> None:
        """Record what ran. Raises: StepFailedError if its inputs are not those that were used."""
        _check(self.layout, self._inputs)
        if self._unrecorded:
            took = _commit(self.layout, self._unrecorded)
            self.seconds |= {what: self.seconds.get(what, 0.0) + seconds for what, seconds in took.items()}
        self._unrecorded = []


def build(layout: Layout, workers: Workers | None = None, other_source: Callable[[], None] = lambda: None) -> None:
    """Bring everything that the pipeline makes up to date. Raises: StepFailedError; what was finished stays finished.

    Args:
        workers: who embeds parts and trains slots; None: this machine's own processes.
        other_source: called before the first file of a built model is replaced where the source may be another one.
    """
    params = load_params(layout.params)
    check_files(layout.root, params.slots)
    close_private(layout)
    check_early(layout, params)
    if not layout.lock.exists():
        shutil.rmtree(layout.artifacts, ignore_errors=True)  # of no known origin
        _take(Waves(layout, workers), *_first(layout, params, workers))
        dvc.run(layout, "repro", "--quiet")
    elif stale := dvc.status(layout, whole=True):
        if "split" in stale:
            other_source()
        if not (is_other_source(params, stale) and _grow(layout, params, workers)):
            _train_stale(layout, params, stale, workers)
        dvc.run(layout, "repro", "--quiet")
    close_private(layout)
    say("build: everything is up to date")


def _first(layout: Layout, params: Params, workers: Workers | None) -> list[Wave]:
    """Everything from nothing: parts and clusters side by side."""
    placing = stage_names("embed", params.parts)
    if workers is None and _is_small(layout, params):
        begun = [Wave([*FROZEN, *placing, *GATE])]
    else:
        begun = [Wave(FROZEN), Wave(placing, apart=True), Wave(GATE)]
    return [*begun, Wave(stage_names("tune", params.slots), apart=True), Wave(ANSWERING)]


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


def _grow(layout: Layout, params: Params, workers: Workers | None) -> bool:
    """Bring the pipeline up to another source at the cost of what is other in it. Returns: False if it must run whole."""
    states.drop(layout, BUILD)  # of a build that was killed: it says nothing of now
    lock_backups.drop(layout, BUILD)
    folder = states.keep(layout, BUILD, read_outs(layout.lock), None)
    lock_backups.keep(layout, BUILD)
    try:
        before = open_before(folder, layout) if folder else None
        return before is not None and _grow_from(before, layout, params, workers)
    except LmeraserError:
        lock_backups.put_back(layout, BUILD)  # some waves were recorded, for workers
        raise
    finally:
        states.drop(layout, BUILD)
        lock_backups.drop(layout, BUILD)


def _grow_from(before: Before, layout: Layout, params: Params, workers: Workers | None) -> bool:
    waves = Waves(layout, workers)
    waves.take(Wave(["split"], before=before.root))
    if not before.has_same(layout.public, layout=layout):
        return False  # the backbone learns anew, and all that stands on it
    parts = [part for part in params.parts if not before.has_same(layout.part(part), layout=layout)]
    waves.take(Wave(stage_names("embed", parts), apart=True, before=before.root), Wave(GATE, before=before.root))
    slots = [slot for slot in params.slots if not before.has_same(layout.members(slot), layout=layout)]
    waves.take(Wave(stage_names("tune", slots), apart=True), Wave(ANSWERING, before=before.root))
    waves.record()
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


def _train_stale(layout: Layout, params: Params, stale: dict[str, Any], workers: Workers | None) -> None:
    """Bring everything before `tune` up to date, then train the slots whose inputs changed side by side and record them."""
    kinds = {StageName.parse(name).kind for name in stale}
    if workers and kinds & {*FROZEN, "embed"}:
        dvc.run(layout, "repro", "--quiet", *FROZEN)
        stale = dvc.status(layout, whole=True)
        _take(Waves(layout, workers), Wave(_stale(stage_names("embed", params.parts), stale), apart=True))
    if kinds - {"tune", *ANSWERING}:
        dvc.run(layout, "repro", "--quiet", "validate", "recipe")
        stale = dvc.status(layout, whole=True)
    slots = [StageName.parse(name).item for name in _stale(stage_names("tune", params.slots), stale)]
    if len(slots) > 1:
        _take(Waves(layout, workers), *_retraining([], slots, [], params, workers))


def _stale(names: Sequence[str], stale: dict[str, Any]) -> list[str]:
    return [name for name in names if _inputs_changed(stale.get(name, []))]


def _take(waves: Waves, *chosen: Wave) -> Seconds:
    """Take waves and record them. Returns seconds by stage."""
    waves.take(*chosen)
    waves.record()
    return waves.seconds


def _retraining(
    first: Sequence[str],
    slots: Sequence[str],
    after: Sequence[str],
    params: Params,
    workers: Workers | None,
    before: Path | None = None,
) -> list[Wave]:
    """Slots between what comes first and what comes after. Few of them are trained in the same process as all the rest."""
    tuning = stage_names("tune", slots)
    if len(slots) <= processes(params) and not (workers and slots):
        return [Wave([*first, *tuning, *after], before=before)]
    return [Wave(first, before=before), Wave(tuning, apart=True), Wave(after, before=before)]


def _inputs_changed(reasons: Sequence[Any]) -> bool:
    """Whether a stage must run. Where its file alone is missing or damaged, DVC brings it back from its cache."""
    return any(reason == "changed command" or "changed deps" in reason for reason in reasons)


def update(
    layout: Layout,
    parts: Sequence[str],
    slots: Sequence[str],
    unsolved: Sequence[str] = (),
    workers: Workers | None = None,
    before: Path | None = None,
) -> Seconds:
    """After an erasure: run what it touched. Returns seconds by stage.

    Args:
        unsolved: copies whose global head is solved first, in the same process; workers: who trains slots, if not this machine's
            own processes.
        before: the folder of the state before, from which stages are updated; None: they run whole.
    Whether anything else is stale is for `verify` to ask.
    """
    first = [*stage_names("interim_head", unsolved), "split", *stage_names("embed", parts), *GATE]
    waves = _retraining(first, slots, ANSWERING, load_params(layout.params), workers, before)
    seconds = _take(Waves(layout, workers), *waves)
    if before and not states.has_same_source(layout, before):  # an updated split never looked at it
        raise StepFailedError("the source changed during the run; run `dvc repro`, then `lmeraser resume`")
    return seconds
