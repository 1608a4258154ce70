"""Ours against what a user would pick instead: accuracy, cost of a deletion, storage and inference, on the same ground.

    python -m bench.compare cifar10              CIFAR-100 public, CIFAR-10 private; see --peers
    python -m bench.compare signdigits           real people; also mnist, omniglot, and …-shift (a backbone of CIFAR-100)
    python -m bench.compare cifar10 --report     only write the tables of what was measured so far
    python -m bench.compare all                  one table over all data sets, from what was measured so far
    python -m bench.compare real                 over EfficientNet-Lite0 (ImageNet) and DINOv2 ViT-S/14, every data set
    python -m bench.compare mnist --backbone dinov2-small        one of them

Three seeds of everything that is random: backbone, projection, order, augmentation. Every peer's rebuild check trains groups of
the retained records anew after a deletion and compares bytes. What was measured is kept in bench/results/compare-DATA.json by
seed, peer and params, and is not measured again unless --fresh. Expect ours at or above the linear head on all private data, at a
hundredth of the cost of tuning again.

    python -m bench.compare real --device cuda   the peers that train through the network: one prompt for all, full fine-tuning

Given backbones want their files of weights in LMERASER_TEST_WEIGHTS or weights/ beside the repository. Their features are
extracted once and kept in .bench/; results are in bench/results/compare-real.json.

Takes: hours on two cores for cifar10; what was measured before is not measured again.
"""

from collections.abc import Sequence

from bench.compare.contest import contest, overview
from bench.compare.real.contest import real
from bench.lab.changes import changed, read_changes
from bench.lab.commands import bench_parser
from bench.lab.presets import BACKBONES, preset_of


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("compare", __doc__)
    parser.add_argument("data")
    parser.add_argument("--backbone", action="append", choices=BACKBONES, help="a given backbone, instead of one trained here")
    parser.add_argument(
        "--device",
        choices=["cpu", "cuda"],
        default="cpu",
        help="cuda: over given backbones, those peers alone that train through the network",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="*", default=[], help="only those whose names hold one of these")
    parser.add_argument("--compared", type=int, default=6, help="groups whose bytes the rebuild check compares")
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    args = parser.parse_args(arguments)
    if args.data == "all":
        overview()
    elif args.data == "real" or args.backbone:
        real(args.data, args)
    else:
        contest(args.data, changed(preset_of(args.data), read_changes(args.change)), args)


if __name__ == "__main__":
    main()
