"""validate: the gate before training. Writes passed.json (constant: tune depends on it) and report.json (counts)."""

from lmeraser.core.digest import readable_json
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.erase.erased import SuppressionList
from lmeraser.gate.checks import check_all, gather
from stages.runtime.entry import enter


def validate(layout: Layout, params: Params, _: list[str]) -> None:
    suppression_list = SuppressionList.of(layout)
    report = check_all(gather(layout, params, suppression_list.is_erased, suppression_list.images))
    write_atomically(layout.validation / "report.json", readable_json(report))
    # The same bytes whenever the gate holds: a deletion changes the report, but must not make every slot stale.
    write_atomically(layout.validation / "passed.json", readable_json(dict.fromkeys(report, "passed")))
    say(f"validate: {sum(suite['expectations'] for suite in report.values())} expectations hold")


if __name__ == "__main__":
    enter(validate)
