"""The report of `bench.gpu`: JSON for programs and Markdown for people, written anew after each section."""

import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from bench.lab.report import STARTED, processor, table
from lmeraser.core.digest import readable_json
from lmeraser.core.files import write_atomically

Sections = dict[str, dict[str, Any]]


def origin(revision: str | None) -> dict[str, Any]:
    """What a reader needs to run it again."""
    return {
        "command": shlex.join(["python", "-m", "bench.gpu", *sys.argv[1:]]),
        "revision": revision or STARTED[0],
        "code": STARTED[1],
        "processor": processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "torch": torch.__version__,
    }


class Report:
    """All sections so far."""

    def __init__(self, folder: Path, made: dict[str, Any], small: bool) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = {**made, "small": small, "equal": False, "failed": [], "unequal": [], "sections": {}}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, section: dict[str, Any]) -> None:
        """Take a section in, print it, and write both files. `equal`: nothing differs and nothing failed or was left out."""
        sections: Sections = self.facts["sections"]
        sections[name] = section
        self.facts["failed"] = [key for key, part in sections.items() if "error" in part or "skipped" in part]
        self.facts["unequal"] = [key for key, part in sections.items() if part.get("equal") is False]
        self.facts["equal"] = not self.facts["failed"] and not self.facts["unequal"]
        print(f"{name}: {readable_json(section).decode()}", flush=True)
        write_atomically(self.folder / "gpu.json", readable_json(self.facts))
        write_atomically(self.folder / "gpu.md", markdown(self.facts).encode())


def _of(sections: Sections, kind: str) -> dict[str, dict[str, Any]]:
    """The sections of a kind that ended well, by what follows the kind in their names."""
    return {
        name.removeprefix(f"{kind} "): section
        for name, section in sections.items()
        if name.startswith(f"{kind} ") and not {"error", "skipped"} & section.keys()
    }


def _yes(value: bool) -> str:
    return "yes" if value else "**no**"


def _memory(section: dict[str, Any]) -> str:
    return f"{section['peak_gib']:.2f}" if "peak_gib" in section else ""


def _share(shares: dict[str, float], kind: str) -> str:
    return f"{shares[kind]:.1%}" if kind in shares else ""


def _bits(sections: Sections) -> list[str]:
    tuned = [
        [
            name,
            section["steps"],
            _yes(section["equal"]),
            _yes(section["short_way"]),
            _yes(section["torchs_defaults_give_these_bits"]),
        ]
        for name, section in _of(sections, "tuning").items()
    ]
    attention = [
        [
            name,
            section["kernel"],
            _yes(section["equal"]),
            f"{section['milliseconds']:.2f}",
            section["torchs_defaults_kernel"],
            _yes(section["torchs_defaults_repeat"]),
            f"{section['torchs_defaults_milliseconds']:.2f}",
        ]
        for name, section in _of(sections, "attention").items()
    ]
    rows = [
        [
            name,
            section["batch"],
            _yes(section["equal"]),
            ", ".join(size for size, same in section["other_batch_sizes"].items() if same) or "none",
            ", ".join(size for size, same in section["other_batch_sizes"].items() if not same) or "none",
        ]
        for name, section in _of(sections, "rows").items()
    ]
    erased = [[name, section["records"], _yes(section["equal"])] for name, section in _of(sections, "erasing").items()]
    return [
        table(["a cluster tuned twice", "steps", "bit-equal", "gradient by the stem", "torch's defaults: same bits"], tuned),
        table(
            ["attention, forward and backward", "kernel", "repeats", "ms", "torch's defaults: kernel", "repeats", "ms"], attention
        ),
        table(["an image's features", "batch", "equal at each place", "equal in batches of", "other bits in batches of"], rows),
        table(["a record subtracted", "records", "head equal to a rebuild"], erased),
    ]


def _speed(sections: Sections) -> list[str]:
    training = []
    for name, section in _of(sections, "training").items():
        rates, parts = section["images_per_second"], section["milliseconds_per_batch"]
        training.append(
            [
                name,
                *(f"{rates[key]:,.0f}" if rates[key] else "" for key in ("ours", "our_network_alone", "plain", "papers")),
                _share(section["utilisation"], "bfloat16"),
                _share(section["utilisation_of_the_network_alone"], "bfloat16"),
                _share(section["utilisation_plain"], "bfloat16"),
                f"{parts['augment']:.1f} / {parts['move_and_normalise']:.1f} / {parts['network']:.1f}",
                f"{parts['network_under_torchs_defaults']:.1f}",
                _memory(section),
            ]
        )
    embedding = [
        [
            name,
            *(f"{section['images_per_second'][key]:,.0f}" for key in ("ours_float32", "plain_float32", "plain_bfloat16")),
            _share(section["utilisation"]["ours_float32"], "float32"),
            _share(section["utilisation"]["ours_float32"], "bfloat16"),
            _share(section["utilisation"]["plain_bfloat16"], "bfloat16"),
            _memory(section),
        ]
        for name, section in _of(sections, "embedding").items()
    ]
    return [
        table(
            [
                *("training step, images/s", "ours, all of it", "its network alone", "plain loop", "the paper's loop"),
                *("ours of the bf16 rate", "network of it", "plain of it", "ms a batch: augment / move / network"),
                *("network, torch's defaults", "peak GiB"),
            ],
            training,
        ),
        table(
            [
                *("embedding, images/s", "ours, float32", "plain, float32", "plain, bfloat16"),
                *("ours of the float32 rate", "of the bf16 rate", "plain bfloat16 of it", "peak GiB"),
            ],
            embedding,
        ),
    ]


def markdown(facts: dict[str, Any]) -> str:
    sections: Sections = facts["sections"]
    where = sections.get("environment", {}).get("environment", {})
    versions = ", ".join(
        f"{key} {where[key]}" for key in ("torch", "timm", "numpy", "cuda", "cudnn", "gpu_driver") if key in where
    )
    rates = sections.get("products", {}).get("flop_per_second", {})
    ceilings = ", ".join(f"{name} {rate / 1e12:,.1f} TFLOP/s" for name, rate in rates.items()) or "not measured"
    body = [
        "# One GPU" + (" (the small run: no GPU, no speed)" if facts["small"] else ""),
        f"`{facts['command']}` at revision {facts['revision']} (files of lmeraser and stages: {facts['code']}); "
        f"{facts['device']}, {facts['processor']}; {versions}.",
        "Networks of timm with random weights (bits and speed need no trained ones), random images, the paper's preset for ViTs "
        "(`params/paper/cifar10-vit.yaml`).",
        f"All equal: {_yes(facts['equal'])}. Unequal: {', '.join(facts['unequal']) or 'nothing'}. Failed or left out: "
        f"{', '.join(facts['failed']) or 'nothing'}.",
        *_bits(sections),
        *_speed(sections),
        f"Matrix products measured in the same run: {ceilings}. Utilisation is the model's FLOPs (`bench/gpu/flops.py`; "
        "Chowdhery et al. 2022, appendix B) times images a second, over that rate. The plain loops run under torch's defaults, "
        "over tensors that lie on the device, without augmentation.",
    ]
    notes = [f"{name}: {section.get('error') or 'left out, ' + section['skipped']}" for name, section in sections.items()
             if {"error", "skipped"} & section.keys()]  # fmt: skip
    return "\n\n".join([*body, *(f"- {note}" for note in notes)]) + "\n"
