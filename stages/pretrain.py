"""pretrain: public.parquet, or a file of weights -> backbone.safetensors."""

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TRAIN, images_of, read_records
from lmeraser.learn.backbone import make_deterministic, save_backbone
from lmeraser.learn.pretraining import pretrain_backbone
from stages.runtime.entry import enter


def take(layout: Layout, params: Params) -> None:
    """A backbone that was trained elsewhere: no record has a say in it."""
    from lmeraser.learn.weights import take_weights

    taken = take_weights(params, layout.root)
    say(f"pretrain: {params.pretrain.model} from its file of weights")
    save_backbone(layout.backbone, taken.model, taken.mean, taken.std, params, taken.resampled)


def pretrain(layout: Layout, params: Params, _: list[str]) -> None:
    make_deterministic(params.device)
    if params.pretrain.weights:
        take(layout, params)
        return
    records = read_records(layout.public, TRAIN)
    ids = [record.id for record in records]
    pixels = decode_all(images_of(layout.public, records), params, "decode")
    model, mean, std = pretrain_backbone(ids, pixels, [record.label for record in records], params)
    say(f"pretrain: {params.pretrain.model} on {len(ids)} public records")
    save_backbone(layout.backbone, model, mean, std, params)


if __name__ == "__main__":
    enter(pretrain)
