"""The same person under several ids: what the records tell of it, as counts, and by name on a private page. A human decides."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.project import Project
from flows.requests.near import near_people
from flows.requests.private_page import check_page, keep_page
from flows.requests.quarantine import whole_layout
from lmeraser.erase.aliases import Alias, aliases_of, counts_of, near_aliases
from lmeraser.erase.facts import gather_facts, normalise_subjects
from lmeraser.erase.plan import Facts
from lmeraser.report.aliases_page import AliasFacts, AliasGroup, AliasMember, render_aliases

MOST, MEMBERS = 500, 50  # groups on a page, names in one


def find_aliases(project: Project, subjects: Sequence[str] | None, near: float | None, page: Path | None) -> dict[str, Any]:
    """Look for people who may be there under several ids, and write the page if one is wanted. Changes nothing of the project.

    Args: subjects: whom it is about, None: everybody; near: share as of `near.write_page`, None: near copies are not looked for.
    Returns: counts alone. Raises: BadInputError, ProjectError, StepFailedError; then there is no page.
    """
    if page is not None:
        check_page(project, page, "--page")
    asked = None if subjects is None else normalise_subjects(subjects)
    facts = gather_facts(whole_layout(project), project.params)
    found = aliases_of(facts, asked)
    if near is not None and asked is not None:
        found += near_aliases(near_people(project, asked, near))
    records, public = _records(facts)
    if page is not None:
        groups = [_group(alias, records, public, asked or ()) for alias in found[:MOST]]
        keep_page(project, page, render_aliases(AliasFacts(groups, len(found), None if asked is None else len(asked))), "--page")
    named = {} if asked is None else {"asked": len(asked), "without_records": sum(name not in records for name in asked)}
    return {**named, "groups": len(found), **counts_of(found), "shown": min(len(found), MOST) if page is not None else 0}


def _records(facts: Facts) -> tuple[dict[str, int], frozenset[str]]:
    """How many records each subject has, and who has public ones."""
    both = pa.concat_tables([facts.private.select(["subject"]), facts.public.select(["subject"])])
    counted = both.group_by("subject").aggregate([("subject", "count")]).to_pylist()
    return {row["subject"]: row["subject_count"] for row in counted}, frozenset(facts.public["subject"].unique().to_pylist())


def _group(alias: Alias, records: dict[str, int], public: frozenset[str], asked: Sequence[str]) -> AliasGroup:
    named = frozenset(asked)
    first = sorted(alias.subjects, key=lambda name: (name not in named, name))[:MEMBERS]  # whom it is about before all others
    members = [AliasMember(name, records.get(name, 0), name in public, name in named) for name in first]
    return AliasGroup(alias.why, alias.images, members, len(alias.subjects) - len(members))
