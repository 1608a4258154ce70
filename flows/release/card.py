"""The model card of an export: Hugging Face's metadata, with a block `erasure` of what a holder must know and do.

Source: https://huggingface.co/docs/hub/model-cards, checked by `huggingface_hub`.
"""

from collections.abc import Mapping
from typing import Any

from lmeraser.core.layout import EXPORT_FILE
from lmeraser.prove.export import HOLDER, LIMITS, Exported

TAGS = ["image-classification", "machine-unlearning", "exact-unlearning", "safetensors"]
TEXT = """\
# {name}

An image classifier over a frozen backbone ({backbone}), tuned on people's images with
[lmeraser](https://arxiv.org/abs/2404.11056)'s clusters, so that each person can be erased from it exactly.
Certified erasures before this export: {count}.

## Use

```python
import lmeraser

model = lmeraser.load("this folder")
labels, probabilities, parts = model.predict(images)  # (n, height, width[, channels]) uint8; seen as {channels}, {size} px
```

Neither the project nor DVC nor Prefect is needed, nor a network.

## Check

`lmeraser verify FOLDER --key PUBLIC.pem` checks the signature of `{file}` and every file that it names. Get the public key from
the issuer by another way than this folder.

## What whoever holds a copy must do

{holder}

## What this does not show

{limits}

## How good it is

Accuracy on private test records at the export, as `metrics/metrics.json` of the project has it: {accuracy}.
"""


def card(name: str, exported: Exported, about: Mapping[str, Any]) -> bytes:
    """README.md of an export. Args: about: model, size (px), channels, license, accuracy (None where there is none)."""
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="lmeraser",
        license=about["license"],
        pipeline_tag="image-classification",
        tags=TAGS,
        model_name=name,
        eval_results=_results(about["accuracy"]),
        erasure={
            "model_version": exported.model_version,
            "certificates": exported.certificates,
            "chain_head_sha256": exported.head,
            "last_audit": dict(exported.audits) or None,
            "environment": exported.fingerprint,
            "code_revision": exported.code_revision,
            "exported_at": exported.exported_at,
            "when_a_newer_version_appears": HOLDER[1],
        },
    )
    text = TEXT.format(
        name=name,
        backbone=about["model"],
        size=about["size"],
        channels=about["channels"],
        count=exported.certificates,
        file=EXPORT_FILE,
        holder="\n".join(f"- {line}" for line in HOLDER),
        limits="\n".join(f"- {line}" for line in LIMITS),
        accuracy="not measured" if about["accuracy"] is None else f"{about['accuracy']:.4f}",
    )
    return f"---\n{data.to_yaml()}\n---\n\n{text}".encode()


def _results(accuracy: float | None) -> Any:
    from huggingface_hub import EvalResult

    if accuracy is None:
        return None
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type="private",
            dataset_name="private test records",
            metric_type="accuracy",
            metric_value=accuracy,
        )
    ]
