"""Erase many people in several ways and compare every artifact: the exactness contract on real persons.

    python -m bench.exactness digits
    python -m bench.exactness signdigits        needs the image packs (LMERASER_SHARED_DATA)
    python -m bench.exactness signdigits --backbone efficientnet-lite0
    python -m bench.exactness cifar10 --audit-only --singles 100 --share 10 --batch 500 --change pretrain.epochs=2

Four projects: A erases 20 people one by one and then 10 at once, and is audited; B erases the same 30 at once; C erases them one
by one in reverse order; D never had them in its manifest and is built by plain `dvc repro`. All four must have the same dvc.lock
outs, and each erasure of A and C may change planned stages only. A and C run side by side.
--audit-only: A alone, which the audit builds again from its retained records; --share: so many people share a retraining, as
those do whose requests wait together. Both for data whose erasures take long.

Takes: about 20 (digits), 35 (signdigits) or 60 (cifar10 --audit-only) minutes on two cores.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.exactness.erasures import campaign
from bench.exactness.report import markdown
from bench.lab import RESULTS
from bench.lab.commands import bench_parser
from bench.lab.presets import BACKBONES
from bench.lab.sources import PACKS
from lmeraser.core.digest import readable_json


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("exactness", __doc__)
    parser.add_argument("data", choices=["digits", *PACKS])
    parser.add_argument("--backbone", choices=BACKBONES, help="over given weights, by their preset")
    parser.add_argument("--singles", type=int, default=20)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--share", type=int, default=1, help="people who share a retraining, with --audit-only")
    parser.add_argument("--audit-only", action="store_true", help="compare with the audit's rebuild alone")
    parser.add_argument("--change", nargs="*", default=[], help="params to change for this run, as section.key=value")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="lmeraser-exactness-") as folder:
        results = campaign(options, Path(folder))
    RESULTS.mkdir(exist_ok=True)
    name = "-".join(filter(None, ("exactness", options.data, options.backbone, results["environment"].get("gpu") and "gpu")))
    (RESULTS / f"{name}.json").write_bytes(readable_json(results))
    (RESULTS / f"{name}.md").write_text(markdown(results))
    print(markdown(results))
    equal = ("at_once_equal", "reverse_order_equal", "never_had_them_equal")
    sys.exit(0 if results["audit"]["equal"] and all(results.get(key, True) for key in equal) else 1)


if __name__ == "__main__":
    main()
