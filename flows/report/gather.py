"""Everything that the report page says of a project, read once: the ledger, certificates, metrics, git's history, artifacts.

What is missing or damaged is a line of the page and no error: a page about what is wrong must not need that nothing is.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from flows.project import Project
from flows.report import of_certificates, of_ledger, of_model
from flows.report.revisions import History, state_of
from flows.report.seconds import has_ledger
from lmeraser.core.errors import BadInputError, LmeraserError
from lmeraser.prove.home import read_project_id
from lmeraser.report.facts import LedgerFacts, Prompt, ReportFacts
from lmeraser.report.states import State

T = TypeVar("T")


def gather(project: Project, as_of: str | None = None) -> ReportFacts:
    """The facts of the page. Nothing of the project is changed, and no ledger is made.

    Args: as_of: the time that requests are late by (ISO 8601, UTC); None: the ledger's last event, so that equal files give an
        equal page.
    Raises: ParamsError; ProjectError if the ledger cannot be read.
    """
    layout, least = project.layout, project.params.evaluate.min_group
    problems: list[str] = []

    def read(act: Callable[[], T], without: T) -> T:
        try:
            return act()
        except LmeraserError as error:
            problems.append(str(error))
            return without

    kept = of_ledger.read_ledger(project.ledger) if has_ledger(layout) else of_ledger.Kept((), (), {}, LedgerFacts())
    verified = of_certificates.verify_all(layout, kept.head)
    signed = max((predicate["completed_at"] for predicate in verified.predicates), default=None)
    when = as_of or kept.as_of or signed
    history = History(layout)
    state = read(lambda: state_of(history, None, "workspace", least), State("workspace", {}))
    nobody: frozenset[str] = frozenset()
    out = read(lambda: of_model.left_out(layout), nobody)
    told = kept.ledger.there
    work = of_ledger.work_of(kept) if told else of_certificates.work_of(verified.predicates)
    erasures = of_ledger.erasures_of(kept) if told else of_certificates.erasures_of(verified.predicates)
    clusters = of_model.cluster_facts(state, erasures, out)
    points, unread = of_model.accuracy_history(history, state.metrics, when)
    when = when or max((point.at for point in points), default=None)
    no_prompts: tuple[tuple[Prompt, ...], int] = ((), 0)
    prompts, withheld = read(lambda: of_model.prompts_of(layout, clusters), no_prompts)
    environment, mixed = of_model.environment_of(layout, project.params)
    return ReportFacts(
        project=read(lambda: read_project_id(layout.project_id), None),
        as_of=when,
        least=least,
        ledger=kept.ledger,
        requests=of_ledger.request_facts(kept, when or ""),
        certificates=verified.files,
        chain=verified.chain,
        history=points,
        unread=unread,
        work=work,
        audits=of_ledger.audits_of(kept.events),
        clusters=clusters,
        tree=read(lambda: of_model.tree_of(layout) if clusters else (), ()),
        prompts=prompts,
        prompts_withheld=withheld,
        metrics=state.metrics,
        environment=environment,
        environment_problem=mixed,
        problems=tuple(dict.fromkeys(problems)),
    )


def check_time(text: str | None) -> str | None:
    """ISO 8601 in the spelling that the ledger has: UTC, seconds. Raises: BadInputError."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError) as error:
        raise BadInputError("--as-of is no time; expected ISO 8601, such as 2026-11-28 or 2026-11-28T12:00:00+00:00") from error
