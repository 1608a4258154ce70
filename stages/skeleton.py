"""skeleton: public.parquet and the backbone -> skeleton.safetensors."""

from lmeraser.clusters.skeleton import PublicFeatures, Skeleton, build_skeleton, save_skeleton
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import TRAIN, images_of, read_records
from lmeraser.data.units import group_units
from lmeraser.learn.backbone import load_backbone, make_deterministic, require_own_rows
from lmeraser.learn.environment import network_environment
from lmeraser.learn.features import features_of
from stages.runtime.entry import enter


def skeleton(layout: Layout, params: Params, _: list[str]) -> None:
    make_deterministic(params.device)
    backbone = load_backbone(layout.backbone, params)
    require_own_rows(backbone.model, params)
    records = read_records(layout.public, TRAIN)
    features = features_of(images_of(layout.public, records), backbone, params, "decode")
    _, unit = group_units(records, params.cluster.unit)
    labels, people = [record.label for record in records], [record.subject for record in records]
    made = build_skeleton(PublicFeatures(features, backbone.widths, unit, labels, people), params)
    _tell_axes(made, params)
    leaves, wanted = made.hierarchy.n_leaves, params.skeleton.leaves
    alike = f", of {wanted} asked for: the other public units are alike" if leaves < wanted else ""
    say(f"skeleton: {leaves} public leaves{alike}")
    save_skeleton(layout.skeleton, made, network_environment(params.device))


def _tell_axes(made: Skeleton, params: Params) -> None:
    axes, wanted, width = made.axes.shape[1], params.features.dim, len(made.mean)
    if wanted and wanted >= width:
        say(f"skeleton: features.dim {wanted} is not below the network's {width} features: they are not projected")
    elif wanted and axes < wanted:
        say(f"skeleton: {axes} public axes of features.dim {wanted}: the public records differ in no more directions")
    if params.head.kind == "discriminant":
        shrinkage, evenness, temperature = made.chosen
        say(f"skeleton: shrinkage {shrinkage:g} records a label, evenness {evenness:g}, temperature {temperature:.3g}")


if __name__ == "__main__":
    enter(skeleton)
