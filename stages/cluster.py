"""cluster: every part's leaves and the skeleton -> members/cNN.parquet, router.safetensors, clusters.json."""

from collections.abc import Sequence

from lmeraser.clusters.assignment import cluster_by_tree
from lmeraser.clusters.files import Cluster, ClusterSize, Member, load_placements, save_clusters
from lmeraser.clusters.skeleton import load_hierarchy, load_skeleton
from lmeraser.core.environment import environment
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from stages.runtime.entry import enter


def by_anchors(layout: Layout, params: Params, members: list[Member]) -> list[Cluster]:
    """The paper's variant needs private features: they are computed here and dropped."""
    from lmeraser.data.records import read_images
    from lmeraser.learn.anchors import cluster_by_anchors
    from lmeraser.learn.backbone import load_backbone, make_deterministic
    from lmeraser.learn.features import features_of

    make_deterministic(params.device)
    images: dict[str, bytes] = {}
    for part in params.parts:
        images |= read_images(layout.part(part), {m.id: m.sha256 for m in members if m.part == part})
    backbone = load_backbone(layout.backbone, params)
    features = features_of([images[member.id] for member in members], backbone, params, "anchors")
    quantised = load_skeleton(layout.skeleton).quantise(features)
    return cluster_by_anchors(members, quantised, params.cluster, params.slots)


def cluster(layout: Layout, params: Params, _: list[str]) -> None:
    members = sorted(member for part in params.parts for member in load_placements(layout.leaves(part), part))
    if params.cluster.method == "anchors":
        from lmeraser.learn.environment import network_environment

        clusters = by_anchors(layout, params, members)
        made_in = network_environment(params.device)
    else:
        tree = load_hierarchy(layout.skeleton)
        clusters = cluster_by_tree(members, tree, params.cluster, params.slots)
        made_in = environment()
    save_clusters(layout.clusters, clusters, params.slots, made_in)
    tell([made.size for made in clusters], params)


def tell(sizes: Sequence[ClusterSize], params: Params) -> None:
    """How many clusters of what size; and a warning where the hierarchy has no leaves to split one further."""
    most, n_max = max(sizes, key=lambda size: size.records), params.cluster.n_max
    too_large = 0 if params.cluster.method == "anchors" else sum(size.records > n_max for size in sizes)
    if too_large:
        say(
            f"cluster: warning: {too_large} clusters hold more than cluster.n_max {n_max} records ({most.slot} the most, "
            f"{most.records}) and cannot be split further; raise skeleton.leaves (and append slots)"
        )
    records = [size.records for size in sizes]
    say(f"cluster: {sum(records)} records in {len(records)} clusters of {min(records)} to {max(records)}")


if __name__ == "__main__":
    enter(cluster)
