"""What a served model is called: a digest of all that answers, and of nothing that does not."""

from pathlib import Path

from lmeraser.core.digest import canonical_json, sha256, sha256_of_file
from lmeraser.core.layout import Layout
from lmeraser.serve.serving import ServedModel

FORMAT = "lmeraser served model 1"
KNOWN = 4096  # files whose digest is remembered

_known: dict[tuple[int, ...], str] = {}  # by inode, size and time: a quarantine's copy is links to the same files


def digest_of(path: Path) -> str:
    """SHA-256 of a file, read once while it is the same: artifacts are replaced and never written into."""
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _known:
        if len(_known) >= KNOWN:
            _known.clear()
        _known[key] = sha256_of_file(path)
    return _known[key]


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
        "backbone": digest_of(layout.backbone),
        "skeleton": digest_of(layout.skeleton),
        "router": digest_of(layout.router),
        "sizes": digest_of(layout.sizes) if params.serve.size_weight or params.cluster.method == "random" else None,
        "slots": {slot: digest_of(layout.tuned(slot)) for slot in model.slots},
        "head": head,
        "image": params.image.model_dump(mode="json", exclude={"max_pixels"}),
        "serve": params.serve.model_dump(mode="json"),
        "method": params.cluster.method,
        "batch": batch,
        "one_pass": one_pass,
    }
    return sha256(canonical_json(made_of))
