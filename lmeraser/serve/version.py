"""What a served model is called: a digest of all that answers, and of nothing that does not."""

from lmeraser.core.digest import canonical_json, sha256, sha256_of_file
from lmeraser.core.layout import Layout
from lmeraser.serve.serving import ServedModel

FORMAT = "lmeraser served model 1"


def version_of(model: ServedModel, layout: Layout, head: str | None, batch: int, one_pass: bool) -> str:
    """SHA-256 over the digests of backbone, skeleton, router, slots and head, and over the params that answers depend on.

    Slots that are left out are not in it: two models that answer alike are one version. Nor is the environment: it moves last
    bits, and stands in the artifacts that are digested.

    Args:
        layout: the artifacts that the model was read from; head: SHA-256 of the global head's file; None while it is withheld.
        batch: records in a pass of the network.
    """
    params = model.params
    made_of = {
        "format": FORMAT,
        "backbone": sha256_of_file(layout.backbone),
        "skeleton": sha256_of_file(layout.skeleton),
        "router": sha256_of_file(layout.router),
        "sizes": sha256_of_file(layout.sizes) if params.serve.size_weight or params.cluster.method == "random" else None,
        "slots": {slot: sha256_of_file(layout.tuned(slot)) for slot in model.slots},
        "head": head,
        "image": params.image.model_dump(mode="json", exclude={"max_pixels"}),
        "serve": params.serve.model_dump(mode="json"),
        "method": params.cluster.method,
        "batch": batch,
        "one_pass": one_pass,
    }
    return sha256(canonical_json(made_of))
