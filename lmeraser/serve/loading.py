"""The model that may answer now, read whole: of one state of the project, of one environment, with a version."""

from dataclasses import dataclass

from lmeraser.clusters.files import load_router
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params, load_params
from lmeraser.erase.erased import ErasedList
from lmeraser.pipeline.mixing import require_one_environment
from lmeraser.pipeline.whole import require_export_whole, require_whole
from lmeraser.serve.passes import SharedPasses
from lmeraser.serve.rows import RowModel
from lmeraser.serve.serving import ServedModel
from lmeraser.serve.version import digest_of, version_of
from lmeraser.serve.watching import Stamps, Standing, Watch, stamp_of

TRIES = 5  # reads of a state that moves meanwhile


@dataclass(frozen=True)
class LeftOut:
    """What does not answer. Attributes: clusters: slots in quarantine; global_head: `answers`, or `withheld` until it is solved.

    `by_one_pass`: how many clusters do not answer because each image has one pass only.
    """

    clusters: tuple[str, ...]
    global_head: str
    by_one_pass: int


@dataclass(frozen=True)
class Loaded:
    """A model with what stood when it was read."""

    standing: Standing
    model: RowModel
    passes: SharedPasses
    version: str
    left_out: LeftOut


@dataclass(frozen=True)
class Reading:
    """How models are read. Attributes: batch: records in a pass, else `embed.batch`; at_once: passes beside each other."""

    one_pass: bool
    batch: int | None
    at_once: int


def read(watch: Watch, reading: Reading) -> Loaded:
    """Read what may answer now. It is read again where the project moved meanwhile.

    Raises: ProjectError if something is missing, half made or withheld; VerificationError for a model of two environments.
    """
    for _ in range(TRIES):
        standing = watch.standing()
        before = _artifacts(watch.layout, standing)
        try:
            loaded = _read(watch.layout, standing, reading)
        except ProjectError:
            if watch.standing() == standing and _artifacts(watch.layout, standing) == before:
                raise
            continue
        if watch.standing() == standing and _artifacts(watch.layout, standing) == before:
            return loaded
    raise ProjectError(f"the project changed {TRIES} times while the model was read; retry in a moment")


def _source(project: Layout, standing: Standing) -> Layout:
    return standing.quarantine.layout(project) if standing.quarantine else project


def _artifacts(project: Layout, standing: Standing) -> Stamps:
    """Which files a model is read from: a stage replaces them before a lock says so."""
    layout = _source(project, standing)
    tuned = sorted((layout.artifacts / "tune").glob("*.safetensors"))
    fixed = (layout.params, layout.backbone, layout.skeleton, layout.router, layout.sizes, layout.head)
    return tuple(map(stamp_of, (*fixed, *tuned)))


def _read(project: Layout, standing: Standing, reading: Reading) -> Loaded:
    quarantine, layout = standing.quarantine, _source(project, standing)
    params = load_params(layout.params)
    if project.is_export:
        require_export_whole(project)
    else:
        _require_known(project)
        if quarantine is None:  # else a copy answers, which was whole when it was linked
            require_whole(project, load_router(project.router)[1])
    whole = RowModel.of(ServedModel.load_served(project, params))
    model = whole.without_own_passes() if reading.one_pass else whole
    if model.head is None and not model.clusters:
        raise ProjectError("the global head is being solved, and no cluster answers in one pass; retry in a moment")
    # Of what answers alone: what is left out may be gone.
    there: dict[str, tuple[str, ...]] = {"slots": tuple(whole.slots)} | ({"parts": ()} if project.is_export else {})
    require_one_environment(layout, params.model_copy(update=there))
    batch = reading.batch or params.embed.batch
    _require_batch(model, params, batch)
    head = quarantine.head_file(project) if quarantine else layout.head
    return Loaded(
        standing,
        model,
        SharedPasses(model.backbone, batch, reading.at_once if params.device == "cpu" else 1),
        version_of(model, layout, digest_of(head) if head else None, batch, reading.one_pass),
        LeftOut(
            tuple(sorted(quarantine.slots)) if quarantine else (),
            "answers" if model.head else "withheld",
            len(whole.clusters) - len(model.clusters),
        ),
    )


def _require_known(project: Layout) -> None:
    """Raise ProjectError where this branch's list lacks people whom this machine erased: its model may still know them."""
    missing = len(ErasedList.remembered(project).pseudonyms - ErasedList.read(project.erased).pseudonyms)
    if missing:
        raise ProjectError(
            f"data/erased.json of this branch lacks {missing} people who were erased here; run `lmeraser build`, which keeps "
            "them out, and retry"
        )


def _require_batch(model: RowModel, params: Params, batch: int) -> None:
    """Raise ParamsError if rows depend on each other in passes of another shape than the stages'."""
    if batch != params.embed.batch:
        from lmeraser.learn.backbone import require_own_rows

        embed = params.embed.model_copy(update={"batch": batch})
        require_own_rows(model.backbone.model, params.model_copy(update={"embed": embed}))
