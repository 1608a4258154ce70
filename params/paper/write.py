"""The presets of the paper's eight pairs, written from one template:

    python params/paper/write.py

Xu et al. 2024 (arXiv:2404.11056, section 5) tune CIFAR-10, CIFAR-100, SVHN and GTSRB over ViT-B/16 and Swin-B with ImageNet-22k
weights, at 224 px with a frame of 30 px. Size, interpolation and crop are those of timm's config of the model (a test compares).
The public set is another one of the four: tree, scales and projection come from it.
"""

from pathlib import Path
from string import Template

FOLDER = Path(__file__).resolve().parent
SETS: dict[str, dict[str, object]] = {  # n_max: about a fortieth of the training records
    "cifar10": {"name": "CIFAR-10", "public": "cifar100", "n_max": 1250, "shift": 16, "flip": "true"},
    "cifar100": {"name": "CIFAR-100", "public": "cifar10", "n_max": 1250, "shift": 16, "flip": "true"},
    "svhn": {"name": "SVHN", "public": "gtsrb", "n_max": 1850, "shift": 8, "flip": "false"},
    "gtsrb": {"name": "GTSRB", "public": "svhn", "n_max": 1000, "shift": 8, "flip": "false"},
}
MODELS = {
    "vit": {"name": "ViT-B/16", "model": "vit_base_patch16_224.augreg_in21k"},
    "swin": {"name": "Swin-B", "model": "swin_base_patch4_window7_224.ms_in22k"},
}
PREPARED = {"size": 224, "interpolation": "bicubic", "crop": 0.9}  # both models
SLOTS = 64


def slots() -> str:
    """Sixteen to a line, under the opening bracket."""
    names = [f"c{number:02d}" for number in range(SLOTS)]
    return (",\n" + " " * 8).join(", ".join(names[start : start + 16]) for start in range(0, SLOTS, 16))


def presets() -> dict[str, str]:
    """Name of each file and its text."""
    template = Template((FOLDER / "template.txt").read_text(encoding="utf-8"))
    found = {}
    for private, data in SETS.items():
        for short, model in MODELS.items():
            values = PREPARED | data | {"model": model["model"], "private": private, "slots": slots()}
            pair = f"{data['name']} over {model['name']}"
            found[f"{private}-{short}.yaml"] = template.substitute(values, pair=pair)
    return found


if __name__ == "__main__":
    for name, text in presets().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
