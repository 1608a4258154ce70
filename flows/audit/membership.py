"""audit --membership: a drill with people who are still in the model; nothing of the project changes.

For each person their clusters are tuned again without them, as a deletion would, and K times more with other seeds: see
`lmeraser/prove/membership.py`. The global head needs no test: its sums without a person are those that never held them.
Nobody is named in what comes out, and no result of a single person is given.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lmeraser.clusters.files import SlotMember, load_members, load_sizes
from lmeraser.core.digest import seed_for
from lmeraser.core.errors import BadInputError, RequestError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import track
from lmeraser.data.records import read_images, read_records
from lmeraser.erase.facts import normalise_subjects
from lmeraser.prove.membership import Verdict, check_references, in_words, judge, rank_p

if TYPE_CHECKING:
    from lmeraser.learn.membership import ClusterRecords

Clusters = dict[str, list[SlotMember]]  # slot to its members


def _eligible(layout: Layout, params: Params, clusters: Clusters) -> tuple[dict[str, list[str]], dict[str, str]]:
    """People of whom every cluster keeps a record without them, with their clusters; and the person of each record."""
    owner = {record.id: record.subject for part in params.parts for record in read_records(layout.part(part))}
    slots: dict[str, list[str]] = {}
    alone = set()
    for slot, members in clusters.items():
        people = {owner[member.id] for member in members}
        for person in people:
            slots.setdefault(person, []).append(slot)
        if len(people) == 1:
            alone |= people
    return {person: slots[person] for person in sorted(slots.keys() - alone)}, owner


def _drawn(eligible: dict[str, list[str]], named: Sequence[str], people: int, seed: int) -> list[str]:
    if not named:
        if people < 1:
            raise BadInputError(f"--people is {people}, expected at least 1")
        if not eligible:
            raise BadInputError("nobody can be tested: every cluster holds one person only")
        # The same people each time, so that a second run is a check of the first.
        return random.Random(seed_for(seed, "membership")).sample(list(eligible), min(people, len(eligible)))  # noqa: S311
    wanted = normalise_subjects(named)
    for place, subject in enumerate(wanted, start=1):
        if subject not in eligible:
            raise RequestError(
                f"subject {place} of {len(wanted)} cannot be tested: unknown, erased, without training records, or alone in a "
                "cluster; name others, or draw some with --people"
            )
    return wanted


def _records(layout: Layout, params: Params, slot: str, members: list[SlotMember]) -> "ClusterRecords":
    from lmeraser.data.decoding import decode_all
    from lmeraser.learn.membership import ClusterRecords

    images: dict[str, bytes] = {}
    for part in sorted({member.part for member in members}):
        images |= read_images(layout.part(part), {member.id: member.sha256 for member in members if member.part == part})
    ids = [member.id for member in members]
    pixels = decode_all([images[identity] for identity in ids], params, f"decode {slot}")
    return ClusterRecords(slot, ids, pixels, [member.label for member in members])


def membership(layout: Layout, params: Params, subjects: Sequence[str], people: int, retrainings: int) -> dict[str, Any]:
    """Test `people` drawn people, or the named ones, against `retrainings` references each.

    Raises: BadInputError, RequestError; ProjectError if the project is not built.
    """
    import numpy as np

    from lmeraser.clusters.skeleton import load_skeleton
    from lmeraser.learn.backbone import load_backbone, make_deterministic
    from lmeraser.learn.cluster_model import load_cluster_model
    from lmeraser.learn.membership import trial

    check_references(retrainings)
    if params.tune.kind != "sgd":
        raise BadInputError(
            "audit --membership asks what tuned clusters betray, and params.yaml has tune.kind "
            f"{params.tune.kind}: all of it comes from exact sums, so there is nothing to ask; `lmeraser audit --rebuild` shows "
            "that it is the model without them"
        )
    clusters = {size.slot: load_members(layout.members(size.slot)) for size in load_sizes(layout.clusters)}
    eligible, owner = _eligible(layout, params, clusters)
    chosen = _drawn(eligible, subjects, people, params.seed)
    make_deterministic(params.device)
    backbone, skeleton = load_backbone(layout.backbone, params), load_skeleton(layout.skeleton)
    slots = sorted({slot for person in chosen for slot in eligible[person]})
    read = {slot: _records(layout, params, slot, clusters[slot]) for slot in slots}
    served = {slot: model for slot in read if (model := load_cluster_model(layout.tuned(slot))) is not None}

    def measure() -> Any:
        for person in chosen:
            own = {slot: np.array([owner[identity] == person for identity in read[slot].ids]) for slot in eligible[person]}
            work = [(read[slot], own[slot], served[slot]) for slot in eligible[person]]
            yield from trial(work, backbone, skeleton, params, retrainings)

    steps = track(measure(), len(chosen) * (retrainings + 1), "membership", "retraining")
    losses = [step for step in steps if step is not None]
    before = [rank_p(person.before, person.references) for person in losses]
    after = [rank_p(person.after, person.references) for person in losses]
    return judge(before, after, retrainings).to_json()


def membership_lines(verdict: dict[str, Any]) -> list[str]:
    low, high = verdict["power_interval"]
    return in_words(Verdict(**verdict | {"power_interval": (low, high)}))
