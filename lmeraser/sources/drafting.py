"""A manifest drafted from a folder of images: whose each one is, what it shows, which become public, which are for testing.

Pure: paths in, rows and counts out. A person's share is drawn by a hash of their name alone: the same folder gives the same
rows, and a person who joins moves nobody else. Counts are all that is told; a name, a label or a path is nobody else's business.
"""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import median

from lmeraser.core.digest import sha256
from lmeraser.core.errors import BadInputError
from lmeraser.core.names import MAX_LENGTH, normalise_name, unseen
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.sources.base import COLUMNS
from lmeraser.sources.image_folder import Image

SPLIT_FOLDERS = {"train": TRAIN, "training": TRAIN, "test": TEST, "testing": TEST, "val": TEST, "valid": TEST, "validation": TEST}
FOLDER = "folder"  # --label-from: the first folder on the way
FEW = 5  # private training records of a label, below which it is told
LARGE = 0.5  # share of the private records of one person, above which it is told
NO_LABEL, NO_SUBJECT, LONG = "no label", "no subject match", "path too long"
ODD_TEXT = "label or subject with characters that nobody sees"


@dataclass(frozen=True)
class Rules:
    """How a path becomes a row.

    Attributes:
        label: FOLDER, or a regular expression; subject: likewise, None: every image is its own subject.
        test: share of the private people (or images) that are for testing; None: folders named train and test say it.
        by_subject: whether a person is for testing as a whole.
        public: share of the people that become public; or public_labels: of these labels; or public_match: whose paths match.
    """

    label: str = FOLDER
    subject: str | None = None
    test: float | None = None
    by_subject: bool = True
    public: float = 0.0
    public_labels: frozenset[str] = frozenset()
    public_match: str | None = None


@dataclass(frozen=True)
class Row:
    path: str
    label: str
    subject: str
    visibility: str
    split: str


@dataclass
class Draft:
    """Attributes: rows: in the order of paths; left_out: (path, reason); partly_public: people of whom only some images match."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    partly_public: int = 0


def pattern(text: str, option: str) -> re.Pattern[str]:
    """Raises: BadInputError for what is no regular expression, or has no group to take the name from."""
    try:
        compiled = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        at = getattr(error, "pos", None)
        where = "" if at is None else f" (at character {at + 1})"
        raise BadInputError(
            f"{option}: not a regular expression{where}; put it in single quotes, and a backslash before brackets of names"
        ) from error
    return compiled


def _taker(text: str, option: str) -> Callable[[str], str]:
    """A function from a path to what the first group matches, or the one named as the option; empty if nothing does."""
    compiled = pattern(text, option)
    if not compiled.groups:
        raise BadInputError(f"{option}: the expression has no group; put brackets around the name, as in '(person[0-9]+)_'")
    group: int | str = next((name for name in ("label", "subject") if name in compiled.groupindex and name in option), 1)

    def take(path: str) -> str:
        match = compiled.search(path)
        return (match[group] or "") if match else ""

    return take


def check_rules(rules: Rules) -> None:
    """Raises: BadInputError for an expression that cannot be used."""
    if rules.label != FOLDER:
        _taker(rules.label, "--label-from")
    if rules.subject is not None:
        _taker(rules.subject, "--subject-from")
    if rules.public_match is not None:
        pattern(rules.public_match, "--public-match")


def split_folders(images: Sequence[Image]) -> bool:
    """Whether all first folders are named as parts of a data set, `train` among them."""
    firsts = {image.path.split("/")[0].lower() for image in images if "/" in image.path}
    return bool(firsts) and firsts <= SPLIT_FOLDERS.keys() and TRAIN in {SPLIT_FOLDERS[first] for first in firsts}


def chance(purpose: str, name: str) -> float:
    """A number in [0, 1) that a name draws for a purpose, always the same."""
    return int(sha256(f"{purpose}\0{name}".encode())[:13], 16) / 16**13


def draw(purpose: str, names: set[str], share: float) -> set[str]:
    """The names that fall below a share: of two or more at least one, and not all, unless the share is 0 or 1."""
    order = sorted(names, key=lambda name: (chance(purpose, name), name))
    count = sum(chance(purpose, name) < share for name in order)
    if 0 < share < 1 and len(order) > 1:
        count = min(max(count, 1), len(order) - 1)
    return set(order[:count])


def draft(images: Sequence[Image], rules: Rules) -> Draft:
    """The rows of a manifest. Args: images: sorted by path.

    Raises: BadInputError for rules that do not hold together, or that match nothing.
    """
    divided = split_folders(images)
    if divided and rules.test is not None:
        raise BadInputError("--test: the folders are named train and test, which says it already; leave --test out")
    result = Draft()
    named = _named(images, rules, divided, result)
    _require_some(named, result, rules)
    public = _public(named, rules, result)
    private = {subject for _, _, subject in named} - public
    share = 0.0 if rules.test is None else rules.test
    tested = (
        draw("test", private, share) if rules.by_subject else draw("test", {path for path, _, s in named if s in private}, share)
    )
    for path, label, subject in named:
        if divided:
            split = SPLIT_FOLDERS[path.split("/")[0].lower()]
        else:
            split = TEST if (subject if rules.by_subject else path) in tested else TRAIN
        result.rows.append(Row(path, label, subject, PUBLIC if subject in public else PRIVATE, split))
    return result


def _named(images: Sequence[Image], rules: Rules, divided: bool, result: Draft) -> list[tuple[str, str, str]]:
    """Path, label and subject of each image that has both."""
    label_of = None if rules.label == FOLDER else _taker(rules.label, "--label-from")
    subject_of = _taker(rules.subject, "--subject-from") if rules.subject is not None else None
    named = []
    for image in images:
        folders = PurePosixPath(image.path).parts[1 if divided else 0 : -1]
        label = normalise_name(label_of(image.path) if label_of else folders[0] if folders else "")
        subject = normalise_name(subject_of(image.path) if subject_of else image.path)
        problem = _problem(image.path, label, subject)
        if problem:
            result.left_out.append((image.path, problem))
        else:
            named.append((image.path, label, subject))
    return named


def _problem(path: str, label: str, subject: str) -> str:
    """Why an image can be no row; empty if it can. The rules are those of a build (`check_table` in sources/splitting.py)."""
    if len(path) > MAX_LENGTH:
        return LONG
    if not label:
        return NO_LABEL
    if not subject:
        return NO_SUBJECT
    return ODD_TEXT if unseen(label) or unseen(subject) else ""


def _require_some(named: Sequence[tuple[str, str, str]], result: Draft, rules: Rules) -> None:
    if named:
        return
    reasons = Counter(reason for _, reason in result.left_out)
    if not reasons:
        raise BadInputError("FOLDER holds no PNG, JPEG or WebP image; give the folder that holds the folders of images")
    if reasons[NO_LABEL] == reasons.total():
        way = "no image lies in a folder of its label" if rules.label == FOLDER else "--label-from matches no path"
        raise BadInputError(f"{way} ({reasons.total()} images); expected LABEL/IMAGE below FOLDER, or --label-from 'REGEX'")
    if reasons[NO_SUBJECT]:
        raise BadInputError(
            f"--subject-from matches none of {reasons[NO_SUBJECT]} paths; they are searched as LABEL/NAME.jpg, without FOLDER"
        )
    raise BadInputError(
        f"none of {reasons.total()} images has a label and a subject of visible characters; rename them and retry"
    )


def _public(named: Sequence[tuple[str, str, str]], rules: Rules, result: Draft) -> set[str]:
    """The people who become public, each as a whole: all of their images match, or a hash draws them."""
    subjects = {subject for _, _, subject in named}
    if not rules.public_labels and rules.public_match is None:
        return draw("public", subjects, rules.public)
    unknown = rules.public_labels - {label for _, label, _ in named}
    if unknown:
        raise BadInputError(
            f"--public-labels: {len(unknown)} of {len(rules.public_labels)} are no labels here; check the spelling"
        )
    search = pattern(rules.public_match, "--public-match").search if rules.public_match is not None else None
    matching = {s for path, label, s in named if (search(path) if search else label in rules.public_labels)}
    others = {s for path, label, s in named if not (search(path) if search else label in rules.public_labels)}
    if not matching:
        raise BadInputError(
            "--public-match: the expression matches no path; a path is searched as LABEL/NAME.jpg, without FOLDER"
        )
    result.partly_public = len(matching & others)
    return matching - others


def to_csv(rows: Sequence[Row], prefix: str = "") -> bytes:
    """Args: prefix: of every path, where the manifest lies above the folder."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((prefix + row.path, row.label, row.subject, row.visibility, row.split) for row in rows)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Findings:
    """What a draft holds, as counts.

    Attributes:
        both: people with training and test records; few: labels with fewer than FEW private training records.
        alike: people whose names differ by upper and lower case alone.
        largest: share of the private records that are one person's.
        repeated, shared, two_labels: images whose bytes another has: of the same person, of another, with another label.
    """

    images: int
    labels: int
    subjects: int
    records_min: int
    records_median: float
    records_max: int
    public: int
    private: int
    public_subjects: int
    private_subjects: int
    test: int
    both: int
    few: int
    alike: int
    largest: float
    repeated: int
    shared: int
    two_labels: int


def findings(rows: Sequence[Row], images: Sequence[Image]) -> Findings:
    """Count what the rows hold. Args: images: of all rows, by path, and perhaps others."""
    per_subject = Counter(row.subject for row in rows)
    visibility = {row.subject: row.visibility for row in rows}
    private = [row for row in rows if row.visibility == PRIVATE]
    splits: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        splits[row.subject].add(row.split)
    trained = Counter(row.label for row in private if row.split == TRAIN)
    own = Counter(row.subject for row in private)
    counts = sorted(per_subject.values())
    same = _same_bytes(rows, {image.path: image.sha256 for image in images})
    return Findings(
        images=len(rows),
        labels=len({row.label for row in rows}),
        subjects=len(per_subject),
        records_min=counts[0] if counts else 0,
        records_median=float(median(counts)) if counts else 0.0,
        records_max=counts[-1] if counts else 0,
        public=len(rows) - len(private),
        private=len(private),
        public_subjects=sum(shown == PUBLIC for shown in visibility.values()),
        private_subjects=len(own),
        test=sum(row.split == TEST for row in rows),
        both=sum(len(parts) > 1 for parts in splits.values()),
        few=sum(trained[label] < FEW for label in {row.label for row in private}),
        alike=len(per_subject) - len({subject.casefold() for subject in per_subject}),
        largest=max(own.values(), default=0) / max(len(private), 1),
        repeated=same[0],
        shared=same[1],
        two_labels=same[2],
    )


def _same_bytes(rows: Sequence[Row], digests: dict[str, str]) -> tuple[int, int, int]:
    """Images beyond the first of the same bytes: of the same person and label, of another person, of another label."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[digests[row.path]].append(row)
    repeated = shared = labels = 0
    for group in groups.values():
        subjects, shown = {row.subject for row in group}, {row.label for row in group}
        repeated += len(group) - len({(row.subject, row.label, row.split) for row in group})
        shared += len(subjects) - 1
        labels += len(shown) - 1
    return repeated, shared, labels


def problems(rows: Sequence[Row]) -> list[str]:
    """Why a build would refuse these rows, and what to do; empty if it would not (`check_shares` in sources/splitting.py)."""
    trained = {
        shown: {row.label for row in rows if row.visibility == shown and row.split == TRAIN} for shown in (PUBLIC, PRIVATE)
    }
    lines = []
    if not any(row.visibility == PUBLIC for row in rows):
        lines.append(
            "no record is public, and the backbone learns from public ones alone; say who may stay for ever: --public 30"
        )
    elif len(trained[PUBLIC]) < 2:
        lines.append(
            f"the public training records have {len(trained[PUBLIC])} labels, expected two or more; make more of them public"
        )
    if not any(row.visibility == PRIVATE for row in rows):
        lines.append("no record is private: there is nobody who could be forgotten; make fewer of them public")
    elif len(trained[PRIVATE]) < 2:
        lines.append(f"the private training records have {len(trained[PRIVATE])} labels, expected two or more; see --label-from")
    if len({row.subject for row in rows}) == 1:
        lines.append("every image is one person's, expected two people or more; see --subject-from")
    return lines
