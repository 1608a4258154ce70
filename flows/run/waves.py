"""Waves: stages that run once the waves before are done. Every build and every erasure is a list of them.

    a first build    frozen | parts, apart | gate | slots, apart | answering
    an erasure       split, parts, gate | slots, apart | answering

Who runs a wave is one question (`Waves.take` in `flows/run/build.py`): this machine's processes, or workers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmeraser.clusters.files import load_sizes
from lmeraser.core.layout import Layout
from lmeraser.pipeline.files import StageName

HANDED_OUT = ("embed", "tune")  # kinds of stages that a worker may run
Seconds = dict[str, float]  # by stage, or by what else took them
Workers = Callable[[Sequence[str]], Seconds]  # runs stages elsewhere; what they make lies here afterwards


@dataclass(frozen=True)
class Wave:
    """Attributes:
    names: of the stages, in an order in which they can run.
    apart: no one reads what another one makes, and they are worth dividing among processes or workers.
    before: folder of the state before, from which they are updated; None: they run whole.
    """

    names: Sequence[str]
    apart: bool = False
    before: Path | None = None

    @property
    def may_go_out(self) -> bool:
        """Whether workers may run it. An update costs what changed, and the state before lies here alone."""
        return self.apart and bool(self.names) and self.before is None


def shares(names: Sequence[str], layout: Layout, count: int) -> list[list[str]]:
    """Divide stages that stand apart into `count` shares, the largest cluster first to the least loaded; parts weigh the same."""
    stages = [StageName.parse(name) for name in names]
    records: dict[str, int] = {}
    if any(stage.kind == "tune" for stage in stages):
        records = {size.slot: size.records for size in load_sizes(layout.clusters)}
    divided: list[list[str]] = [[] for _ in range(count)]
    load = [0] * count
    for stage in sorted(stages, key=lambda stage: (-records.get(stage.item, 0), stage.item)):
        least = load.index(min(load))
        divided[least].append(str(stage))
        load[least] += records.get(stage.item, 0) + 1  # an empty slot costs something as well
    return divided
