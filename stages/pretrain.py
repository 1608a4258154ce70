"""pretrain: public.parquet -> backbone.safetensors."""

from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.core.records import TRAIN, read_images, read_records
from lmeraser.learn.backbone import make_deterministic, save_backbone
from lmeraser.learn.embedding import decode_all
from lmeraser.learn.pretraining import pretrain_backbone
from stages.entry import enter


def pretrain(layout: Layout, params: Params, _: list[str]) -> None:
    make_deterministic(params.device)
    records = read_records(layout.public, TRAIN)
    images = read_images(layout.public, {record.id: record.sha256 for record in records})
    ids = [record.id for record in records]
    pixels = decode_all([images[identity] for identity in ids], params, "decode")
    model, mean, std = pretrain_backbone(ids, pixels, [record.label for record in records], params)
    say(f"pretrain: {params.pretrain.model} on {len(ids)} public records")
    save_backbone(layout.backbone, model, mean, std, params)


if __name__ == "__main__":
    enter(pretrain)
