"""Which changed copies of real images `plan --near` finds under other names, and how many strangers' images it lists beside them.

    python -m bench.near
    python -m bench.near --data signdigits mnist --leaving 200

Real images over EfficientNet-Lite0 with its publisher's weights. Some people leave; of each of their images there is one copy
under another name, changed in one way at a time. *Recall*: copies that are listed. *Precision*: copies among all that is listed,
where every leaving image has one copy; strangers' images are the others. The image packs are those of the other benches.

Takes: about six minutes of processor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from bench.compare.real.data import params_of, read_people
from bench.compare.real.features import decoded, given_backbone
from bench.lab import pipeline as pipe
from bench.lab.changes import changed
from bench.lab.commands import bench_parser
from bench.lab.report import table, write_report
from bench.near.copies import COPIES, copied
from lmeraser.clusters.skeleton import Skeleton, build_skeleton
from lmeraser.core.digest import number_from
from lmeraser.core.params import Params
from lmeraser.data.images import open_checked, to_array
from lmeraser.data.records import Record
from lmeraser.learn.backbone import Backbone, make_deterministic
from lmeraser.learn.near import SAMPLE, VIEWS, Looks, Strangers, Usual, View, near_ones, perceptual_hash, usual

BACKBONE = "efficientnet-lite0"
DATA = ("signdigits", "mnist", "cifar10", "omniglot")
SHARES = (0.01, 0.05, 0.2)
SHIPPED = 0.05


@dataclass(frozen=True)
class Found:
    """One way of changing copies in one data set under one share. Attributes: recalls: shares; false: strangers' images."""

    data: str
    kind: str
    share: float
    leaving: int
    strangers: int
    recall: float
    by_features: float
    by_hash: float
    false: int

    @property
    def precision(self) -> float:
        listed = self.recall * self.leaving + self.false
        return self.recall * self.leaving / listed if listed else 1.0


class Eyes:
    """As the stage `near` looks at images."""

    def __init__(self, public: Sequence[bytes], records: Sequence[Record], params: Params) -> None:
        make_deterministic(params.device)
        self._params = params
        self._backbone: Backbone = given_backbone(params)
        shelf = pipe.Shelf(list(records), decoded(public, params))
        # Neither what a discriminant chooses on public records nor the tree decides a feature.
        plain = changed(params, {"head.kind": "ridge", "skeleton.leaves": 2})
        rows = self._backbone.features(shelf.pixels, params.embed.batch)
        features = pipe.public_features(rows, shelf.records, self._backbone.widths, plain)
        self._skeleton: Skeleton = build_skeleton(features, plain)

    def look(self, images: Sequence[bytes], view: View = VIEWS[0]) -> Looks:
        seen = [view(open_checked(data, self._params.image.max_pixels)) for data in images]
        pixels = np.stack([to_array(image, self._params.image) for image in seen])
        features = self._skeleton.quantise(self._backbone.features(pixels, self._params.embed.batch)).astype(np.float32)
        return Looks(features, np.array([perceptual_hash(image) for image in seen], dtype=np.uint64))


def _drawn(records: Sequence[Record], most: int, name: str) -> list[Record]:
    """The records of whole people, drawn by a hash, until there are so many."""
    people = sorted({record.subject for record in records}, key=lambda subject: number_from(name, subject))
    kept: list[Record] = []
    for person in people:
        if len(kept) >= most:
            break
        kept += [record for record in records if record.subject == person]
    return sorted(kept)


def measure(data_name: str, leaving_most: int, most: int) -> list[Found]:
    params = params_of(data_name, BACKBONE, seed=0)
    people = read_people(data_name, params)
    private = _drawn([*people.train, *people.test], most, "near: private")
    public = _drawn(people.public, most // 3, "near: public")
    eyes = Eyes([people.images[record.sha256] for record in public], public, params)
    leaving = _drawn(private, leaving_most, "near: leaving")
    gone = {record.subject for record in leaving}
    staying = [record for record in private if record.subject not in gone]
    looks = eyes.look([people.images[record.sha256] for record in staying])
    views = [eyes.look([people.images[record.sha256] for record in leaving], view) for view in VIEWS]
    limits = _limits(staying, looks, eyes, people.images)
    found = []
    for kind in COPIES:
        copies = eyes.look([copied(people.images[record.sha256], kind) for record in leaving])
        for share, limit in limits.items():
            only = (limit, limit._replace(bits=0), limit._replace(features=0.0))
            recall, by_features, by_hash = (len(near_ones(views, copies, one)) / len(leaving) for one in only)
            false = len(near_ones(views, looks, limit))
            found.append(Found(data_name, kind, share, len(leaving), len(staying), recall, by_features, by_hash, false))
    return found


def _limits(staying: Sequence[Record], looks: Looks, eyes: Eyes, images: Mapping[str, bytes]) -> dict[float, Usual]:
    """What is usual, by share, as the stage tells it."""
    person = {subject: number for number, subject in enumerate(sorted({record.subject for record in staying}))}
    place = {digest: number for number, digest in enumerate(sorted({record.sha256 for record in staying}))}
    whose = np.array([person[record.subject] for record in staying], dtype=np.int64)
    image = np.array([place[record.sha256] for record in staying], dtype=np.int64)
    first = np.argsort([record.id for record in staying])[:SAMPLE]
    views = [looks.take(first), *(eyes.look([images[staying[row].sha256] for row in first], view) for view in VIEWS[1:])]
    return {share: usual(views, whose[first], image[first], Strangers(looks, whose, image), share) for share in SHARES}


def _summary(found: Sequence[Found], name: str, share: float) -> str:
    these = [one for one in found if one.data == name and one.share == share]
    mean = sum(one.recall for one in these) / len(these)
    return f"{mean:.2f}; {these[0].false / these[0].leaving:.2f}"


def report(found: Sequence[Found]) -> None:
    names = list(dict.fromkeys(one.data for one in found))
    shipped = {(one.data, one.kind): one for one in found if one.share == SHIPPED}
    body = [
        f"Over {BACKBONE} with its publisher's weights. One copy of each leaving image, under another name; limits at the share "
        f"that ships, {SHIPPED}. In each cell: recall by either (by features alone, by hash alone); precision."
    ]
    rows = []
    for kind in COPIES:
        cells = [shipped[name, kind] for name in names]
        texts = [f"{one.recall:.2f} ({one.by_features:.2f}, {one.by_hash:.2f}); {one.precision:.2f}" for one in cells]
        rows.append([kind, *texts])
    counts = {name: next(one for one in found if one.data == name) for name in names}
    head = [f"{name}: {one.leaving} leaving images, {one.strangers:,} of strangers" for name, one in counts.items()]
    body.append(table(["copy", *head], rows))
    body.append("By share: mean recall over all ways, and strangers' images that are listed for each leaving image.")
    body.append(table(["share", *names], [[f"{share}", *(_summary(found, name, share) for name in names)] for share in SHARES]))
    facts = {"backbone": BACKBONE, "rows": [asdict(one) | {"precision": one.precision} for one in found]}
    write_report("near", "Which near copies are found", body, facts)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = bench_parser("near", __doc__)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA[:3]))
    parser.add_argument("--leaving", type=int, default=60, help="images of people who leave, about")
    parser.add_argument("--most", type=int, default=600, help="private images, about; a third as many public ones")
    args = parser.parse_args(arguments)
    found: list[Found] = []
    for name in args.data:
        found += measure(name, args.leaving, args.most)
        report(found)  # what is measured is kept if the next one fails


if __name__ == "__main__":
    main()
