"""Size of a proof of absence, and processor time of making and checking it, for 10^3 to 10^6 retained people.

    python -m bench.absence

Pseudonyms of made-up people by a fixed key; one tree; proofs of 100 others at once. Sizes are bytes of canonical JSON, as a
certificate holds them before its base64, and do not depend on the machine; one thread.

Takes: half a minute.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from bench.lab.commands import bench_parser
from bench.lab.report import table, write_report
from lmeraser.core.digest import canonical_json
from lmeraser.erase.erased import SubjectKey
from lmeraser.prove.absence import Tree, check_absence, largest_proof

PEOPLE, ASKED = (1_000, 10_000, 50_000, 1_000_000), 100
KEY = SubjectKey(b"lmeraser: bench of absence, key.")


@dataclass(frozen=True)
class Cost:
    """Attributes: pseudonyms_s, proofs_s: processor seconds for all; check_ms: of one proof; bytes_*: of one proof."""

    people: int
    pseudonyms_s: float
    proofs_s: float
    check_ms: float
    bytes_mean: float
    bytes_most: int
    siblings_most: int


def measure(people: int) -> Cost:
    start = time.process_time()
    retained = [KEY.pseudonym(f"person-{number}") for number in range(people)]
    named = time.process_time()
    asked = sorted(KEY.pseudonym(f"erased-{number}") for number in range(ASKED))
    begun = time.process_time()
    absence = Tree(retained).absence(asked)
    made = time.process_time()
    check_absence(absence, asked)
    checked = time.process_time()
    sizes = [len(canonical_json(proof)) for proof in absence.to_json()["proofs"]]
    return Cost(
        people,
        named - start,
        made - begun,
        1000 * (checked - made) / ASKED,
        mean(sizes),
        max(sizes),
        max(len(proof.siblings) for proof in absence.proofs),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    bench_parser("absence", __doc__).parse_args(arguments)
    costs = [measure(people) for people in PEOPLE]
    head = ["retained people", "pseudonyms, s", f"tree and {ASKED} proofs, s", "check of one, ms"]
    head += ["bytes of one, mean", "most", "siblings, most"]
    rows = [
        [
            f"{cost.people:,}",
            f"{cost.pseudonyms_s:.2f}",
            f"{cost.proofs_s:.2f}",
            f"{cost.check_ms:.3f}",
            f"{cost.bytes_mean:,.0f}",
            f"{cost.bytes_most:,}",
            cost.siblings_most,
        ]
        for cost in costs
    ]
    note = (
        f"Processor seconds of a machine whose cores others used as well: read them as upper bounds. A request is refused if its "
        f"certificate could be too large with {largest_proof():,} bytes a person."
    )
    write_report("absence", "What proofs of absence cost", [table(head, rows), note], {"rows": [asdict(cost) for cost in costs]})


if __name__ == "__main__":
    main()
