"""Near copies under other names: what looks alike is listed for a human decision, and what was chosen goes along.

Of the comparison nothing stays but the page, which lies where whoever asked wants it: outside the project, for its owner alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.project import Project
from flows.requests.private_page import check_page, keep_page
from flows.requests.quarantine import whole_layout
from flows.run.questions import ask
from lmeraser.core.digest import part_of
from lmeraser.core.layout import Layout
from lmeraser.data.columns import among
from lmeraser.data.records import read_images
from lmeraser.erase.facts import gather_facts, normalise_subjects
from lmeraser.erase.near import Choices, Leaving
from lmeraser.erase.plan import Facts
from lmeraser.report.near_page import NearFacts, NearImage, render_near, thumbnail

SHARE = 0.05  # of the sample that has a stranger nearer than usual
MOST = 500  # images on a page
OPTION = "--near"  # that names the page


@dataclass(frozen=True)
class _State:
    """The state that a plan is made on. Attributes: others: records of those who stay, `public` true or false of each."""

    layout: Layout
    facts: Facts
    leaving: Leaving
    left_out: Sequence[str]
    others: pa.Table

    @classmethod
    def of(cls, project: Project, subjects: Sequence[str], images: Sequence[str]) -> "_State":
        layout = whole_layout(project)
        facts = gather_facts(layout, project.params)
        leaving = Leaving.of(facts, normalise_subjects(subjects) if subjects else [], images)
        left_out = _asked_for_already(project, layout, facts)
        gone = pa.array([*leaving.records, *left_out], pa.string())
        both = [
            records.append_column("public", pa.array([public] * records.num_rows, pa.bool_()))
            for records, public in ((facts.private, False), (facts.public, True))
        ]
        records = pa.concat_tables([table.select([*facts.private.column_names, "public"]) for table in both])
        return cls(layout, facts, leaving, left_out, records.filter(pc.invert(pc.is_in(records["id"], value_set=gone))))


def _asked_for_already(project: Project, layout: Layout, facts: Facts) -> list[str]:
    """Ids of records of those who were erased, or are about to be: nobody needs to decide about them again."""
    requests = project.ledger.all(open_only=True)
    pseudonyms = {*project.erased.pseudonyms, *(pseudonym for request in requests for pseudonym in request.pseudonyms)}
    if not pseudonyms:
        return []
    roster = project.roster(layout)
    return list(Leaving.of(facts, roster.named(pseudonyms), roster.images(pseudonyms)).records)


def write_page(project: Project, subjects: Sequence[str], images: Sequence[str], page: Path, share: float) -> dict[str, Any]:
    """Look for near copies and write the page. Args: images: digests; share: as `NearFacts`. Returns: counts alone.

    Raises: BadInputError, ProjectError, StepFailedError; then there is no page.
    """
    check_page(project, page, OPTION)
    state = _State.of(project, subjects, images)
    answer = _asked(project, state, share)
    facts = NearFacts(
        plan=state.leaving.plan,
        leaving=len(state.leaving.records),
        compared=answer["compared"],
        found=answer["found"],
        share=share,
        sampled=answer["sampled"],
        usual_distance=answer["usual_distance"],
        usual_bits=answer["usual_bits"],
        images=_images(project, state, answer["matches"]),
    )
    keep_page(project, page, render_near(facts), OPTION)
    return {
        "near": {
            "found": facts.found,
            "shown": len(facts.images),
            "same_bytes": sum(image.same for image in facts.images),
            "public": sum(image.public for image in facts.images),
            "people": len({image.person for image in facts.images}),
            "compared": facts.compared,
            "sampled": facts.sampled,
        }
    }


def _asked(project: Project, state: _State, share: float) -> dict[str, Any]:
    """What `stages/near.py` says."""
    question = {"leaving": list(state.leaving.records), "left_out": list(state.left_out), "share": share, "most": MOST}
    answer: dict[str, Any] = ask(project, state.layout, "near", project.layout.near, question)
    return answer


def near_people(project: Project, subjects: Sequence[str], share: float) -> list[tuple[str, str]]:
    """Of each image that looks like one of these people's: somebody else who has it, and whom of them it looks like.

    At most `MOST` images, the nearest ones. Who is erased or named by an open request is left out. Raises: as `write_page`.
    """
    state = _State.of(project, subjects, [])
    if not state.leaving.records:
        return []
    matches = _asked(project, state, share)["matches"]
    everybody = pa.concat_tables([state.facts.private, state.facts.public]).select(["id", "subject"])
    wanted = {match[name] for match in matches for name in ("other", "leaving")}
    whose = {row["id"]: row["subject"] for row in everybody.filter(among(everybody["id"], wanted)).to_pylist()}
    return [(whose[match["other"]], whose[match["leaving"]]) for match in matches]


def _images(project: Project, state: _State, matches: Sequence[dict[str, Any]]) -> list[NearImage]:
    """What the page shows of each match, people numbered as they come."""
    everybody = pa.concat_tables([state.facts.private, state.facts.public])
    wanted = {match[name] for match in matches for name in ("other", "leaving")}
    rows = everybody.filter(among(everybody["id"], wanted)).to_pylist()
    record = {row["id"]: row for row in rows}
    pictures = _thumbnails(project, state, rows)
    holders = _holders(state.others, {record[match["other"]]["sha256"] for match in matches})
    people: dict[str, int] = {}
    shown = []
    for match in matches:
        other, leaving = record[match["other"]], record[match["leaving"]]
        records, public = holders[other["sha256"]]
        shown.append(
            NearImage(
                picture=pictures[other["id"]],
                leaving=pictures[leaving["id"]],
                sha256=other["sha256"],
                same=other["sha256"] == leaving["sha256"],
                person=people.setdefault(other["subject"], len(people) + 1),
                records=records,
                public=public,
                distance=match["distance"],
                bits=match["bits"],
                by_features=match["by_features"],
                by_hash=match["by_hash"],
            )
        )
    return shown


def _holders(others: pa.Table, digests: set[str]) -> dict[str, tuple[int, bool]]:
    """Of each image, how many records of those who stay have it, and whether one of them is public."""
    theirs = others.filter(among(others["sha256"], digests))
    counted = theirs.group_by("sha256").aggregate([("public", "count"), ("public", "max")]).to_pylist()
    return {row["sha256"]: (row["public_count"], row["public_max"]) for row in counted}


def _thumbnails(project: Project, state: _State, rows: Sequence[dict[str, Any]]) -> dict[str, bytes]:
    """Of each record, by its id."""
    public = set(state.facts.public["id"].to_pylist())
    parts = project.params.parts
    wanted: dict[Path, dict[str, str]] = {}
    for row in rows:
        part = state.layout.public if row["id"] in public else state.layout.part(parts[part_of(row["subject"], len(parts))])
        wanted.setdefault(part, {})[row["id"]] = row["sha256"]
    images = {identity: data for part, ids in wanted.items() for identity, data in read_images(part, ids).items()}
    most = project.params.image.max_pixels
    return {identity: thumbnail(data, most) for identity, data in images.items()}


def chosen_images(
    project: Project, subjects: Sequence[str], images: Sequence[str], text: str, request_id: str | None = None
) -> list[str]:
    """The digests of the near copies that go along, as a file of choices says. Changes nothing.

    Args: text: of the file. request_id: of a request that may be known: then its people may be gone, and the ledger alone tells
        whether it is about the same.
    Raises: BadInputError if the choices are not whole, of another plan, or name what nobody else has.
    """
    choices = Choices.read(text, "--with-near")
    if request_id is None or project.ledger.find(request_id) is None:
        state = _State.of(project, subjects, images)
        choices.check(state.leaving, state.others["sha256"].unique().to_pylist(), "--with-near")
    return [digest for digest in choices.images if digest not in images]
