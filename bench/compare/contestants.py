"""Who takes part in a comparison: ours and its peers by name, for images and for people."""

from collections.abc import Callable

from bench.compare.peers import Ground, Ours, Paper, Peer, Shards, one_for_all
from bench.compare.whole import Whole
from lmeraser.core.params import Params

Maker = Callable[[Ground], Peer]
HEAD_ONLY = {"tune.frame_px": 0}


def ours(name: str, leaves: int, n_max: int, **changes: object) -> tuple[str, Maker]:
    """Ours with the preset's clustering and a finer or coarser cut."""
    slots = {"slots": [f"c{number}" for number in range(leaves)], "skeleton.leaves": leaves, "cluster.n_max": n_max}
    return name, lambda ground: Ours(name, ground.with_params({**slots, **changes}))


def paper(name: str, k: int, **changes: object) -> tuple[str, Maker]:
    slots = {"slots": [f"c{number}" for number in range(max(k, 64))], "cluster.k": k}
    return name, lambda ground: Paper(name, ground.with_params({"cluster.method": "anchors", **slots, **changes}))


def shards(name: str, count: int, **changes: object) -> tuple[str, Maker]:
    return name, lambda ground: Shards(name, ground.with_params(changes), count)


def whole(name: str, count: int, slices: int = 1) -> tuple[str, Maker]:
    return name, lambda ground: Whole(name, ground, count, slices)


def alone(name: str, **changes: object) -> tuple[str, Maker]:
    return name, lambda ground: one_for_all(name, ground.with_params(changes))


def images_contest() -> dict[str, Maker]:
    """CIFAR-10: every image may be asked to go; about 115 and about 500 clusters."""
    return dict(
        [
            ours("ours, 115 clusters, prompts", 1024, 700),
            ours("ours, 115 clusters, heads only", 1024, 700, **HEAD_ONLY),
            ours("ours, 500 clusters, prompts", 2048, 150),
            ours("ours, 500 clusters, heads only", 2048, 150, **HEAD_ONLY),
            paper("the paper's clustering, 115 clusters", 115),
            alone("one prompt for all"),
            shards("SISA over the frozen backbone, 115 shards, heads", 115, **HEAD_ONLY),
            shards("SISA over the frozen backbone, 500 shards, heads", 500, **HEAD_ONLY),
            whole("SISA, whole models, 115 shards", 115),
            whole("SISA, whole models, 115 shards, 4 slices", 115, 4),
            whole("full retraining", 1),
        ]
    )


def people_contest(params: Params) -> dict[str, Maker]:
    """People with several records each: the unit matters."""
    leaves, n_max, k = params.skeleton.leaves, params.cluster.n_max, 16
    record = {"cluster.unit": "record"}
    tree = {"cluster.method": "tree"}  # where the preset's is random: better informed, uneven, and dear to erase from
    trees = [ours("ours, tree", leaves, n_max, **tree), ours("ours, tree, heads only", leaves, n_max, **HEAD_ONLY, **tree)]
    return dict(
        [
            *(trees if params.cluster.method == "random" else []),
            ours("ours, unit subject", leaves, n_max),
            ours("ours, unit subject, heads only", leaves, n_max, **HEAD_ONLY),
            ours("ours, unit record", leaves, n_max, **record),
            shards(f"stable random subjects, {k} shards", k),
            shards(f"stable random subjects, {k} shards, heads", k, **HEAD_ONLY),
            paper(f"the paper's clustering, {k} clusters", k, **record),
            alone("one prompt for all"),
            whole(f"SISA, whole models, {k} shards", k),
            whole(f"SISA, whole models, {k} shards, 4 slices", k, 4),
            whole("full retraining", 1),
        ]
    )


def peers_of(data_name: str, preset: Params) -> dict[str, Maker]:
    return images_contest() if data_name == "cifar10" else people_contest(preset)
