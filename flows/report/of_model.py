"""The model as it stands: clusters, their map, prompts that may be shown, accuracy over time, the environment."""

from collections.abc import Iterable, Mapping

from flows.report.revisions import SHORT, WORKSPACE, History
from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.skeleton import load_skeleton
from lmeraser.core.errors import BadInputError, LmeraserError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.data.tensors import read_tensors
from lmeraser.report.facts import Accuracy, Branch, ClusterFacts, Prompt
from lmeraser.report.frames import prompt_of
from lmeraser.report.states import METRICS, Number, State, read_metrics
from lmeraser.serve.quarantine import read_quarantine

MOST_COMMITS = 200  # of the metrics; older ones are not drawn
MOST_PROMPTS = 48
YARDSTICKS = ("accuracy.linear_head", "accuracy.linear_head_depths")


def left_out(layout: Layout) -> frozenset[str]:
    """Slots that open requests keep from answering. Raises: ProjectError."""
    quarantine = read_quarantine(layout)
    return frozenset(quarantine.slots if quarantine else ())


def cluster_facts(state: State, erasures: Mapping[str, int], out: Iterable[str]) -> tuple[ClusterFacts, ...]:
    """In the order of the metrics, which is that of the hierarchy."""
    closed = frozenset(out)
    groups = {slot: group.accuracy for slot, group in state.clusters.items()}
    return tuple(
        ClusterFacts(slot, size, groups.get(slot), erasures.get(slot, 0), slot in closed) for slot, size in state.sizes.items()
    )


def tree_of(layout: Layout) -> tuple[Branch, ...]:
    """The hierarchy down to the cut, parents first; nothing where clusters are no nodes of it. Raises: ProjectError."""
    sizes = load_sizes(layout.clusters)
    if any(size.first_leaf < 0 for size in sizes):
        return ()
    hierarchy, slots = load_skeleton(layout.skeleton).hierarchy, {size.node: size.slot for size in sizes}
    branches: list[Branch] = []
    open_nodes = [(0, 0, -1)]
    while open_nodes:
        node, depth, parent = open_nodes.pop()
        slot = slots.get(node)
        ends = int(hierarchy.first_leaf[node]), int(hierarchy.last_leaf[node])
        branches.append(Branch(*ends, depth, parent, slot))
        if slot is None and not hierarchy.is_leaf(node):
            below = depth + 1, len(branches) - 1
            open_nodes += [(int(hierarchy.right[node]), *below), (node + 1, *below)]
    return tuple(branches)


def prompts_of(layout: Layout, clusters: Iterable[ClusterFacts]) -> tuple[tuple[Prompt, ...], int]:
    """Images of the prompts, and how many are withheld. Raises: ProjectError.

    A frame is tuned on its cluster's people alone, and an image of few people's gradient may look like them: so none is shown of
    a cluster whose size is not, and none of a cluster that an open request keeps from answering.
    """
    prompts: list[Prompt] = []
    withheld = 0
    for cluster in clusters:
        if cluster.records is None or cluster.left_out:
            withheld += 1
        elif len(prompts) < MOST_PROMPTS:
            tensors, note = read_tensors(layout.tuned(cluster.slot))
            if note["state"] != "tuned" or not tensors["frame"].any():  # heads from sums, or no frame: nothing to look at
                return (), 0
            prompts.append(prompt_of(cluster.slot, tensors["frame"]))
    return tuple(prompts), withheld


def environment_of(layout: Layout, params: Params) -> tuple[Mapping[str, str], str | None]:
    """What the artifacts were made in, and why it cannot be told where it cannot."""
    from lmeraser.pipeline.mixing import artifacts_environment

    try:
        return artifacts_environment(layout, params), None
    except LmeraserError as error:
        return {}, str(error)


def accuracy_history(history: History, now: Mapping[str, Number], as_of: str | None) -> tuple[tuple[Accuracy, ...], int]:
    """Accuracy in the commits that changed the metrics, oldest first, and in the workspace where that differs; how many of the
    commits hold metrics that cannot be read. Without git the workspace is all there is."""
    points: list[Accuracy] = []
    unread = 0
    try:
        commits = history.commits_of(METRICS, MOST_COMMITS)
        given = "".join(f"{commit}:{history.prefix}{METRICS}\n" for commit, _ in commits).encode()
        blobs = history.batch(given) if commits else []
    except ProjectError:
        commits, blobs = [], []
    for (commit, at), blob in zip(commits, blobs, strict=True):
        try:
            point = _accuracy(read_metrics(blob, commit[:SHORT]), at, commit[:SHORT]) if blob is not None else None
        except BadInputError:
            unread += 1
            continue
        points += [point] if point else []
    here = _accuracy(now, max([*(point.at for point in points[-1:]), *([as_of] if as_of else [])], default=""), WORKSPACE)
    if here and here.at and not (points and (points[-1].served, points[-1].linear) == (here.served, here.linear)):
        points.append(here)
    return tuple(points), unread


def _accuracy(metrics: Mapping[str, Number], at: str, where: str) -> Accuracy | None:
    served = metrics.get("accuracy.served")
    linear = [value for name in YARDSTICKS if (value := metrics.get(name)) is not None]
    return None if served is None else Accuracy(at, where, float(served), max(map(float, linear), default=None))
