"""head: every part's exact sums -> head.safetensors, by one solve."""

from lmeraser.clusters.files import load_sizes
from lmeraser.clusters.global_head import load_rule, load_sums, save_head, solve
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from stages.runtime.entry import enter


def head(layout: Layout, params: Params, _: list[str]) -> None:
    parts = (load_sums(layout.sums(part)) for part in params.parts)  # one at a time: a Gram matrix may have hundreds of megabytes
    save_head(layout.head, solve(parts, load_rule(layout.skeleton, params), load_sizes(layout.clusters)))
    say(f"head: solved from {len(params.parts)} parts")


if __name__ == "__main__":
    enter(head)
