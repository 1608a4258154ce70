"""validate: the gate before training. Writes passed.json (constant: tune depends on it) and report.json (counts)."""

from lmeraser.core.digest import readable_json
from lmeraser.core.files import write_whole
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.erase.erased import Gatekeeper
from lmeraser.gate.checks import check_all, gather
from stages.runtime.entry import enter


def validate(layout: Layout, params: Params, _: list[str]) -> None:
    keeper = Gatekeeper.of(layout)
    report = check_all(gather(layout, params, keeper.is_erased))
    write_whole(layout.validation / "report.json", readable_json(report))
    # The same bytes whenever the gate holds: a deletion changes the report, but must not make every slot stale.
    write_whole(layout.validation / "passed.json", readable_json(dict.fromkeys(report, "passed")))
    say(f"validate: {sum(suite['expectations'] for suite in report.values())} expectations hold")


if __name__ == "__main__":
    enter(validate)
