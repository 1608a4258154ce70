"""evaluate: the served model on private test records -> metrics/."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from lmeraser.clusters.assignment import rule_of
from lmeraser.clusters.people import People
from lmeraser.core.digest import readable_json
from lmeraser.core.environment import grouped
from lmeraser.core.errors import StepFailedError
from lmeraser.core.files import write_atomically
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.core.progress import say
from lmeraser.data.records import TRAIN, Record, images_of, read_images, read_records
from lmeraser.erase.blast import cost_per_subject
from lmeraser.learn.backbone import make_deterministic
from lmeraser.learn.features import features_of
from lmeraser.pipeline.mixing import environments_of, mixed
from lmeraser.serve.evaluation import Scores, calibration_error, deletion_cost, log_loss, score
from lmeraser.serve.looking import AskedImages, RememberedLooks
from lmeraser.serve.picture import draw_overview
from lmeraser.serve.serving import ServedModel
from lmeraser.serve.yardstick import BEHIND, advice, drawn, linear_head, penalty_for
from stages.runtime.entry import enter


def load(layout: Layout, params: Params) -> tuple[list[Record], list[bytes]]:
    """Private training records, sorted by id, and their images."""
    records: list[Record] = []
    images: dict[str, bytes] = {}
    for part in params.parts:
        part_records = read_records(layout.part(part), TRAIN)
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


def cost(layout: Layout, params: Params, model: ServedModel, people: People) -> dict[str, Any] | None:
    """Expected cost of erasing one person; None where nothing is tuned, or where only a replay can tell (the paper's variant)."""
    if params.cluster.method == "anchors" or params.tune.kind != "sgd":
        return None
    tree, rule = model.skeleton.hierarchy, rule_of(params.cluster)
    costs = cost_per_subject(people.leaves(layout), people.subject, tree, rule, params.slots)
    return deletion_cost(costs, len(people), len(model.slots))


class Yardstick:
    """Linear heads on all private data over the served model's features: what a user would have who could not forget."""

    def __init__(self, model: ServedModel, tests: list[Record], asked: Any, layout: Layout, params: Params) -> None:
        """Args: asked: (n, w) plain features of the tests' images."""
        self.model, self.layout, self.params, self.asked = model, layout, params, asked
        self.truth = [test.label for test in tests]
        train, images = load(layout, params)
        self.labels = [record.label for record in train]
        self.known = features_of(images, model.backbone, params, f"decode {TRAIN}")
        self.public = read_records(layout.public, TRAIN)

    @cached_property
    def public_features(self) -> Any:
        """Of the public records that a penalty is chosen on: one pass for both yardsticks."""
        records = [self.public[row] for row in drawn(self.public)]
        return features_of(images_of(self.layout.public, records), self.model.backbone, self.params, "decode public")

    def over(self, standard: Callable[[Any], Any]) -> tuple[float | None, float | None]:
        """Accuracy and penalty. Args: standard: (n, w) features of the network to those that the head stands on."""
        try:
            pinned = self.params.evaluate.linear_penalty
            penalty = penalty_for(pinned, self.public, lambda _: standard(self.public_features))
            return linear_head(standard(self.known), self.labels, standard(self.asked), self.truth, penalty), penalty
        except StepFailedError as error:
            # Only told: a comparison that is not found must not keep anybody from being forgotten.
            say(f"evaluate: warning: {error}")
            return None, None


def yardsticks(model: ServedModel, tests: list[Record], asked: Any, layout: Layout, params: Params) -> dict[str, float | None]:
    """Accuracy and penalty of a linear head over the last layer, and of one over all depths; None where there is none."""
    names = ("last", "last_penalty", "depths", "depths_penalty")
    if not params.evaluate.linear_head:
        return dict.fromkeys(names)
    measure = Yardstick(model, tests, asked, layout, params)
    width, skeleton = model.backbone.widths[-1], model.skeleton
    last = measure.over(lambda features: skeleton.standardise_last(features, width))
    depths = measure.over(skeleton.standardise) if params.features.depths else (None, None)
    return dict(zip(names, (*last, *depths), strict=True))


def write(layout: Layout, scores: Scores, metrics: dict[str, Any]) -> None:
    write_atomically(layout.metrics / "metrics.json", readable_json(metrics))
    for name, table in (("classes", scores.classes), ("clusters", scores.clusters)):
        write_atomically(layout.metrics / f"{name}.csv", table.to_csv(index=False).encode())
    write_atomically(layout.metrics / "overview.png", draw_overview(metrics, scores.clusters))


def evaluate(layout: Layout, params: Params, _: list[str]) -> None:
    make_deterministic(params.device)
    model = ServedModel.load(layout, params)
    images = AskedImages(layout, params)
    looks = RememberedLooks(images, model.backbone, layout, params)
    tests, answers = images.records, model.answer(looks)
    looks.finish()
    people = People.of(layout, params.parts)
    scores = score(model, tests, answers, people.in_slots(layout, model.slots))
    linear = yardsticks(model, tests, looks.plain(), layout, params)
    truth = [test.label for test in tests]
    metrics: dict[str, Any] = {
        "accuracy": scores.overall | {"linear_head": linear["last"], "linear_head_depths": linear["depths"]},
        "log_loss": log_loss(answers.served, answers.labels, truth),
        "calibration_error": calibration_error(answers.served, answers.labels, truth),
        "deletion": cost(layout, params, model, people),
        "records": {"train": len(people), "test": len(tests)},
        "labels": {"trained": len(people.labels), "test_only": len(set(truth) - people.labels)},
        "linear_penalty": linear["last_penalty"],
        "linear_penalty_depths": linear["depths_penalty"],
        "environments": environments(layout, params),
    }
    write(layout, scores, metrics)
    tell(metrics["accuracy"], len(tests), params)


def tell(accuracy: dict[str, float | None], tests: int, params: Params) -> None:
    """The served accuracy, and a warning where a head that cannot forget is better by more than BEHIND."""
    served, last, depths = accuracy["served"], accuracy["linear_head"], accuracy["linear_head_depths"]
    deep = "" if depths is None else f", over all depths: {depths}"
    beside = "" if last is None else f" (linear head on all data: {last}{deep})"
    say(f"evaluate: served accuracy {served} on {tests} private test records{beside}")
    best = max((value for value in (last, depths) if value is not None), default=None)
    if served is not None and best is not None and round(best - served, 6) > BEHIND:  # as many places as they are told by
        points = 100 * (best - served)
        say(f"evaluate: warning: served is {points:.1f} points below the linear head; {advice(accuracy, params)}")


if __name__ == "__main__":
    enter(evaluate)
