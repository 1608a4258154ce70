"""The scan of every store, in a process of its own: `python -m flows.purge.scan PROJECT < terms.json`.

A new process shares no memory, no open file and no cached listing with the purge. Search terms are personal data: they come
through standard input alone, and what goes out is counts and names of files that git tracks. `lmeraser/prove/scan.py` looks,
`places` says where, `report` what may be told of it.
"""

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from flows import processes
from flows.forks import client as forks
from flows.purge.delete import live
from flows.purge.git_history import Repository
from flows.purge.journal import remembered
from flows.purge.known import open_index
from flows.purge.places import places
from flows.purge.plan import told_unknown
from flows.purge.report import EVERYTHING, NEW, READINGS, ScanReport, report_of
from flows.purge.search_terms import words_of_open_requests
from lmeraser.core.errors import LmeraserError, StepFailedError
from lmeraser.core.layout import Layout
from lmeraser.core.params import load_params
from lmeraser.core.progress import say
from lmeraser.erase.erased import ErasedList, SuppressionList, people_among
from lmeraser.prove.reading import Reading
from lmeraser.prove.scan import scan
from lmeraser.prove.search_terms import SearchTerms
from lmeraser.prove.turns import Turns, load_or_create_audit_key

MODULE = "flows.purge.scan"  # this one


def scan_stores(layout: Layout, search_terms: SearchTerms, pseudonyms: Iterable[str] = (), reading: str = NEW) -> ScanReport:
    """Scan in a new process: for the terms, for everybody on the lists, and for those behind the pseudonyms, whatever lists say.

    A copy of the process that forks is one: that has imported what the scan needs and opened nothing of the project but its code.

    Args: reading: what is read: see `ScanReport`. Raises: StepFailedError if a store could not be looked at, or if nothing was.
    """
    asked = {"search_terms": search_terms.to_json(), "pseudonyms": sorted(pseudonyms), "reading": reading}
    given = json.dumps(asked).encode()
    done = forks.ask(layout, MODULE, [str(layout.root)], given) or processes.read_only(
        [sys.executable, "-m", MODULE, str(layout.root)], layout.root, given, processes.environment_of(layout)
    )
    if done.returncode:
        complaint = done.stderr.decode(errors="replace")
        lines = [line.removeprefix("error: ") for line in complaint.splitlines() if line.startswith("error: ")]
        # A traceback's text may hold a path; its last line begins with the kind of error, which holds none.
        kind = (complaint.strip().splitlines() or [""])[-1].partition(":")[0]
        kind = kind if kind.isidentifier() else f"exit status {done.returncode}"
        raise StepFailedError(
            lines[0] if lines else f"the scan of all stores failed ({kind}); `lmeraser audit --stores` repeats it"
        )
    report = ScanReport.from_json(json.loads(done.stdout))
    for note in report.notes:
        say(f"scan: {note}")
    return report


def audit_stores(layout: Layout, canaries: Iterable[str] = (), share: int = 1) -> ScanReport:
    """`lmeraser audit --stores`: look for all that was ever condemned, for every erased subject, and for the user's canaries; and
    for what a scan of an open request found. Args: share: read one file of so many, whose turn it is today."""
    condemned = remembered(layout)
    search_terms = SearchTerms(condemned.objects, condemned.run_entries, texts=frozenset(filter(None, canaries)))
    reading = EVERYTHING if share == 1 else f"1/{share}"
    report = scan_stores(layout, search_terms.with_words_of(words_of_open_requests(layout)), reading=reading)
    unknown, problem = told_unknown(layout)
    rows = tuple(replace(row, unknown=unknown.get(row.store, 0)) for row in report.stores)
    more = (f"objects that nobody can tell what they were made of: {problem}",) if problem else ()
    return replace(report, stores=rows, exempt=(*report.exempt, *more))


def _reading(layout: Layout, kind: str, pseudonyms: Iterable[str]) -> Reading:
    """What a scan of this kind reads. The index is kept up to date by each of them."""
    people = people_among(ErasedList.known(layout).pseudonyms | frozenset(pseudonyms))
    if kind in READINGS:
        return Reading(open_index(layout), people, trusting=kind == NEW)
    turns = Turns(load_or_create_audit_key(layout.audit_key), today(), int(kind.partition("/")[2]))
    return Reading(open_index(layout), people, has_turn=turns.has_turn)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def scan_in_this_process(
    layout: Layout, search_terms: SearchTerms, pseudonyms: Iterable[str] = (), reading: str = NEW
) -> ScanReport:
    """The scan itself. Raises: VerificationError if there was nothing to look for or at, StepFailedError if a store is away."""
    suppression_list = SuppressionList.of(layout, pseudonyms)
    # Content that the current dvc.lock names is not condemned any more: a clean run made it again.
    terms = replace(search_terms, objects=search_terms.objects - live(layout)[0])
    where = places(layout, load_params(layout.params))
    chosen = _reading(layout, reading, pseudonyms)
    reports = scan(where.stores, terms, suppression_list.is_erased, chosen, suppression_list.images)
    problem = Repository.of(layout).problem
    history = [f"older versions of the pipeline: git's history cannot be read whole ({problem})"] if problem else []
    exempt = [*search_terms.exempt(), *where.exempt(), *history]
    return report_of(layout, where.stores, reports, exempt, chosen.notes, reading)


def main() -> int:
    try:
        layout = Layout(Path(sys.argv[1]).resolve())
        asked = json.load(sys.stdin)
        report = scan_in_this_process(layout, SearchTerms.from_json(asked["search_terms"]), asked["pseudonyms"], asked["reading"])
    except LmeraserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(report.to_pipe()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
