"""cluster: every part's leaves and the skeleton -> members/cNN.parquet, router.safetensors, clusters.json."""

from lmeraser.clusters.assignment import cluster_by_tree
from lmeraser.clusters.files import Cluster, Member, load_placements, save_clusters
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
        large = max(clusters, key=lambda made: len(made.members))
        too_large = sum(len(made.members) > params.cluster.n_max for made in clusters)
        if too_large:
            most = f"{large.slot} the most, {len(large.members)}"
            say(
                f"cluster: warning: {too_large} clusters hold more than cluster.n_max {params.cluster.n_max} records ({most}) "
                "and cannot be split further; raise skeleton.leaves (and append slots)"
            )
    save_clusters(layout.clusters, clusters, params.slots, made_in)
    sizes = [len(made.members) for made in clusters]
    say(f"cluster: {len(members)} records in {len(sizes)} clusters of {min(sizes)} to {max(sizes)}")


if __name__ == "__main__":
    enter(cluster)
