"""evaluate: the served model on private test records -> metrics/."""

from typing import Any

from lmeraser.clusters.assignment import rule_of
from lmeraser.clusters.files import load_members, load_placements
from lmeraser.core.digest import readable_json
from lmeraser.core.environment import grouped
from lmeraser.core.errors import StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.decoding import decode_all
from lmeraser.data.records import TEST, TRAIN, Record, read_images, read_records
from lmeraser.erase.blast import cost_per_subject
from lmeraser.learn.backbone import make_deterministic
from lmeraser.learn.embedding import features_of
from lmeraser.pipeline.mixing import environments_of, mixed
from lmeraser.serve.evaluation import Scores, deletion_cost, score
from lmeraser.serve.picture import draw_overview
from lmeraser.serve.serving import Answers, ServedModel
from lmeraser.serve.yardstick import linear_head, penalty_for
from stages.runtime.entry import enter


def load(layout: Layout, params: Params, split: str) -> tuple[list[Record], list[bytes]]:
    """Private records of one split, sorted by id, and their images."""
    records: list[Record] = []
    images: dict[str, bytes] = {}
    for part in params.parts:
        part_records = read_records(layout.part(part), split)
        records += part_records
        images |= read_images(layout.part(part), {record.id: record.sha256 for record in part_records})
    records.sort()
    return records, [images[record.id] for record in records]


def environments(layout: Layout, params: Params) -> int:
    """How many environments made the model; several are told in one line."""
    made_in = environments_of(layout, params)
    line = mixed(made_in)
    if line:
        say(f"evaluate: warning: {line}")
    return len(grouped(made_in))


def cost(layout: Layout, params: Params, model: ServedModel, subject_of: dict[str, str]) -> dict[str, Any] | None:
    """Expected cost of erasing one person; None for the paper's variant, whose clusters only a replay can tell."""
    if params.cluster.method == "anchors":
        return None
    members = [member for part in params.parts for member in load_placements(layout.leaves(part), part)]
    tree = model.skeleton.hierarchy
    costs = cost_per_subject(members, subject_of, tree, rule_of(params.cluster), params.slots)
    return deletion_cost(costs, len(members), len(model.slots))


def penalty_of(model: ServedModel, layout: Layout, params: Params) -> float:
    """The yardstick's, with features of the served model."""
    public = read_records(layout.public, TRAIN)

    def features(rows: list[int]) -> Any:
        records = [public[row] for row in rows]
        images = read_images(layout.public, {record.id: record.sha256 for record in records})
        raw = features_of([images[record.id] for record in records], model.backbone, params, "decode public")
        return model.skeleton.standardise(raw)

    return penalty_for(params.evaluate.linear_penalty, public, features)


def yardstick(
    model: ServedModel, tests: list[Record], pixels: Any, layout: Layout, params: Params
) -> tuple[float | None, float | None]:
    """Accuracy of the linear head on all private data, and its penalty; None for both where it is not asked for or not found."""
    if not params.evaluate.linear_head:
        return None, None
    try:
        penalty = penalty_of(model, layout, params)
        train, images = load(layout, params, TRAIN)
        standard = model.skeleton.standardise
        known = standard(features_of(images, model.backbone, params, f"decode {TRAIN}"))
        asked = standard(model.backbone.features(pixels, params.embed.batch))
        labels, truth = [record.label for record in train], [test.label for test in tests]
        return linear_head(known, labels, asked, truth, penalty), penalty
    except StepFailedError as error:
        # Only told: a comparison that is not found must not keep anybody from being forgotten.
        say(f"evaluate: warning: {error}")
        return None, None


def write(layout: Layout, scores: Scores, metrics: dict[str, Any]) -> None:
    write_atomically(layout.metrics / "metrics.json", readable_json(metrics))
    for name, table in (("classes", scores.classes), ("clusters", scores.clusters)):
        write_atomically(layout.metrics / f"{name}.csv", table.to_csv(index=False).encode())
    write_atomically(layout.metrics / "overview.png", draw_overview(metrics, scores.clusters))


def evaluate(layout: Layout, params: Params, _: list[str]) -> None:
    make_deterministic(params.device)
    model = ServedModel.load(layout, params)
    tests, images = load(layout, params, TEST)
    pixels = decode_all(images, params, f"decode {TEST}")
    answers: Answers = model.predict(pixels)
    training = [record for part in params.parts for record in read_records(layout.part(part), TRAIN)]
    subject_of = {record.id: record.subject for record in training}
    people = [len({subject_of[member.id] for member in load_members(layout.members(slot))}) for slot in model.slots]
    scores = score(model, tests, answers, people)
    known = {record.label for record in training}
    linear, penalty = yardstick(model, tests, pixels, layout, params)
    metrics: dict[str, Any] = {
        "accuracy": scores.overall | {"linear_head": linear},
        "deletion": cost(layout, params, model, subject_of),
        "records": {"train": len(training), "test": len(tests)},
        "labels": {"trained": len(known), "test_only": len({test.label for test in tests} - known)},
        "linear_penalty": penalty,
        "environments": environments(layout, params),
    }
    write(layout, scores, metrics)
    served = metrics["accuracy"]["served"]
    say(f"evaluate: served accuracy {served} on {len(tests)} private test records (linear head on all data: {linear})")


if __name__ == "__main__":
    enter(evaluate)
