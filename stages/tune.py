"""tune@cNN: one cluster's members and the recipe (the frozen backbone, params, code) -> cNN.safetensors (prompt and head).

Several slots may be named: one process then imports torch and loads the backbone once. An empty slot needs no torch.
"""

from lmeraser.clusters.files import SlotMember, load_members
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import read_images
from lmeraser.data.tensors import write_tensors
from lmeraser.pipeline.recipe import check_recipe
from stages.runtime.entry import enter


def images_of(members: list[SlotMember], layout: Layout) -> dict[str, bytes]:
    """Images by record id; each is checked against the digest in the cluster's own file as it is read."""
    images: dict[str, bytes] = {}
    for part in sorted({member.part for member in members}):
        wanted = {member.id: member.sha256 for member in members if member.part == part}
        images |= read_images(layout.part(part), wanted)
    return images


def train(work: dict[str, list[SlotMember]], layout: Layout, params: Params) -> None:
    """Train the named slots one after the other; each shares nothing but the frozen backbone with the next."""
    from lmeraser.clusters.skeleton import load_skeleton
    from lmeraser.data.decoding import decode_all
    from lmeraser.learn.backbone import load_backbone, make_deterministic
    from lmeraser.learn.cluster_model import save_cluster_model
    from lmeraser.learn.tuning import tune_cluster

    check_recipe(layout, params)
    make_deterministic(params.device)
    backbone = load_backbone(layout.backbone, params)
    skeleton = load_skeleton(layout.skeleton)
    for slot, members in work.items():
        images = images_of(members, layout)
        ids = [member.id for member in members]
        pixels = decode_all([images[identity] for identity in ids], params, f"decode {slot}")
        labels = [member.label for member in members]
        model = tune_cluster(ids, pixels, labels, backbone, skeleton, params, slot)
        say(f"tune {slot}: {len(ids)} records")
        save_cluster_model(layout.tuned(slot), model, params)


def tune(layout: Layout, params: Params, slots: list[str]) -> None:
    work = {}
    for slot in slots:
        members = load_members(layout.members(slot))
        if params.tune.kind != "sgd":
            write_tensors(layout.tuned(slot), {}, {"state": params.tune.kind})
        elif members:
            work[slot] = members
        else:
            write_tensors(layout.tuned(slot), {}, {"state": "empty"})
    if work:
        train(work, layout, params)


if __name__ == "__main__":
    enter(tune)
