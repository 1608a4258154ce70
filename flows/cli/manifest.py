"""`lmeraser manifest FOLDER`: a table of records for a plain folder of images, and what is in that folder."""

import argparse
import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.command import BAD_INPUT, WIDTH, Result

if TYPE_CHECKING:
    from lmeraser.sources.drafting import Draft, Findings, Rules
    from lmeraser.sources.image_folder import ImageFolder

HELP = "make a manifest of a folder of images (a folder a label), and say what is in it"
EXIT_CODES = {
    0: "written, and a build can use it",
    1: "nothing was written: a build would refuse it; the last lines say what to mend",
    2: BAD_INPUT,
}
EXAMPLES = [
    "lmeraser manifest photos --subject-from '(person[0-9]+)_' --public 30",
    "lmeraser manifest photos --label-from '_([a-z]+)[.]jpg$' --subject-from '^([^/]+)/' --public-labels stock",
    "lmeraser manifest photos --public-match '^(landscape|stock)/' --test 0.1 --left-out left-out.txt",
]
TEST_SHARE = 0.2
MAX_PIXELS = 50_000_000  # as params.yaml comes with it
MANY = 20_000  # images, above which the manifest itself is named as the source
SHOWN = 28  # columns of what a line is about


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="LABEL/IMAGE, or train/LABEL/IMAGE and test/LABEL/IMAGE")
    parser.add_argument(
        "--label-from", default="folder", metavar="folder|REGEX", help="the first folder (default), or the first group of REGEX"
    )
    parser.add_argument(
        "--subject-from",
        metavar="REGEX",
        help="whose image it is: its first group, searched in LABEL/IMAGE; without it each image is a person of its own",
    )
    parser.add_argument(
        "--test", type=float, metavar="SHARE", help=f"of the private people, for testing; {TEST_SHARE} if not said"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--by-subject", action="store_true", help="nobody is in training and test both (default)")
    how.add_argument("--by-image", action="store_true", help="draw images for testing, whoever they are of")
    public = parser.add_mutually_exclusive_group()
    public.add_argument("--public", type=float, metavar="N", help="percent of the people, drawn by a hash of their names")
    public.add_argument("--public-labels", metavar="A,B", help="people of whom every image has one of these labels")
    public.add_argument("--public-match", metavar="RE", help="people of whom every path matches")
    parser.add_argument("--output", type=Path, metavar="FILE.csv", help="FOLDER/manifest.csv if not said; in FOLDER or above it")
    parser.add_argument("--replace", action="store_true", help="also where FILE.csv is there and says something else")
    parser.add_argument("--left-out", type=Path, metavar="FILE", help="write down which files are left out, and why (mode 0600)")
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help="larger images are left out; as image.max_pixels in params.yaml",
    )


def act(options: argparse.Namespace) -> Result:
    """Raises: BadInputError."""
    from lmeraser.sources.drafting import draft, findings, problems, to_csv
    from lmeraser.sources.image_folder import look

    folder, output = _places(options)
    rules = _rules(options)
    before = _existing(output)
    looked = look(folder, options.max_pixels, (output, *([options.left_out] if options.left_out else [])), _threads())
    _require_images(looked)
    drafted = draft(looked.images, _with_test_share(rules, looked))
    prefix = "" if folder == output.parent else f"{folder.relative_to(output.parent).as_posix()}/"
    table = to_csv(drafted.rows, prefix)
    if before not in (None, table) and not options.replace:
        _refuse_other(output)
    left_out = sorted(looked.left_out + drafted.left_out)
    mend = [*problems(drafted.rows), *_unrecordable(folder)]
    if not mend:
        _write(output, table)
    if options.left_out:
        _write(options.left_out, "".join(f"{_as_text(path)}\t{reason}\n" for path, reason in left_out).encode())
    return _result(options, drafted, findings(drafted.rows, looked.images), left_out, mend)


def _places(options: argparse.Namespace) -> tuple[Path, Path]:
    """The folder and the manifest, links followed. Raises: BadInputError."""
    from lmeraser.core.errors import BadInputError

    folder = options.folder.resolve()
    output = (options.output or folder / "manifest.csv").absolute()
    output = output.parent.resolve() / output.name
    if output.suffix != ".csv":
        raise BadInputError("--output: expected a file that ends in .csv")
    if not folder.is_relative_to(output.parent):
        raise BadInputError(
            "--output: paths in a manifest are relative to it and stay inside; put it into FOLDER or a folder above it"
        )
    if output.is_symlink() or output.is_dir():
        raise BadInputError("--output: there is a link or a folder of that name; name another file")
    return folder, output


def _rules(options: argparse.Namespace) -> "Rules":
    """Raises: BadInputError for shares out of range and expressions that cannot be used, before anything is read."""
    from lmeraser.core.errors import BadInputError
    from lmeraser.sources.drafting import Rules, check_rules

    if options.test is not None and not 0 <= options.test < 1:
        raise BadInputError("--test: expected a share from 0 to below 1, as 0.2")
    if options.public is not None and not 0 <= options.public < 100:
        raise BadInputError("--public: expected a percentage from 0 to below 100, as 30")
    if options.max_pixels < 1:
        raise BadInputError("--max-pixels: expected at least 1, as 50000000")
    labels = frozenset(label.strip() for label in (options.public_labels or "").split(",") if label.strip())
    if options.public_labels is not None and not labels:
        raise BadInputError("--public-labels: no label is named; expected one or more, divided by commas")
    rules = Rules(
        label=options.label_from,
        subject=options.subject_from,
        test=options.test,
        by_subject=not options.by_image,
        public=(options.public or 0.0) / 100,
        public_labels=labels,
        public_match=options.public_match,
    )
    check_rules(rules)
    return rules


def _require_images(looked: "ImageFolder") -> None:
    """Raises: BadInputError with what there is instead."""
    from collections import Counter

    from lmeraser.core.errors import BadInputError

    if not looked.images:
        counts = Counter(reason for _, reason in looked.left_out)
        others = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "nothing at all"
        raise BadInputError(
            f"FOLDER holds no whole PNG, JPEG or WebP image ({others}); give the folder that holds the folders of images, and "
            "convert images of other kinds"
        )


def _with_test_share(rules: "Rules", looked: "ImageFolder") -> "Rules":
    from dataclasses import replace

    from lmeraser.sources.drafting import split_folders

    divided = split_folders(looked.images)
    return rules if divided or rules.test is not None else replace(rules, test=TEST_SHARE)


def _threads() -> int:
    return min(8, len(os.sched_getaffinity(0)))


def _existing(output: Path) -> bytes | None:
    """Raises: BadInputError."""
    from lmeraser.core.errors import BadInputError

    try:
        return output.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInputError(
            f"{output.name} is there and cannot be read ({error.strerror}); name another with --output"
        ) from error


def _refuse_other(output: Path) -> None:
    from lmeraser.core.errors import BadInputError

    raise BadInputError(
        f"{output.name} is there and says something else; keep it with --output OTHER.csv, or overwrite it with --replace"
    )


def _write(path: Path, data: bytes) -> None:
    """For the owner alone: it names people. Raises: BadInputError where nothing can be written."""
    import errno

    from lmeraser.core.errors import BadInputError
    from lmeraser.core.files import write_atomically

    try:
        write_atomically(path, data, mode=0o600)
    except OSError as error:
        advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check its folder's permissions"
        raise BadInputError(f"{path.name} cannot be written ({error.strerror}); {advice} and retry") from error


def _as_text(path: str) -> str:
    """A path as one printable line, whatever bytes it holds."""
    return (
        path
        if path.isprintable()
        else path.encode(errors="surrogateescape").decode(errors="backslashreplace").encode("unicode_escape").decode()
    )


def _unrecordable(folder: Path) -> list[str]:
    """What in the folder would keep DVC from recording it as a source."""
    from lmeraser.core.errors import ParamsError
    from lmeraser.sources.place import check_tree

    try:
        check_tree(folder)
    except ParamsError as error:
        return [str(error).removeprefix("params.yaml: ").replace("source.path", "FOLDER")]
    return []


def _result(
    options: argparse.Namespace, drafted: "Draft", counts: "Findings", left_out: list[tuple[str, str]], mend: list[str]
) -> Result:
    from collections import Counter
    from dataclasses import asdict

    output = options.output or options.folder / "manifest.csv"
    reasons = dict(sorted(Counter(reason for _, reason in left_out).items()))
    result: dict[str, Any] = {
        "manifest": None if mend else str(output),
        **asdict(counts),
        "partly_public": drafted.partly_public,
        "left_out": reasons,
        "problems": mend,
        "ready": not mend,
    }
    lines = [*_lines(counts, drafted), *(f"left out: {reason:<{SHOWN - 10}}{count:>8}" for reason, count in reasons.items())]
    if reasons and not options.left_out:
        lines.append("                            which files: --left-out FILE writes them down")
    for problem in mend:
        lines += textwrap.wrap(problem, WIDTH, initial_indent="mend: ", subsequent_indent="      ")
    if mend:
        return result, [*lines, "nothing was written"]
    # DVC looks at each file of a folder whenever it is asked anything; a manifest it reads alone.
    as_folder = output.name == "manifest.csv" and output.parent == options.folder and counts.images <= MANY
    data = options.folder if as_folder else output
    return result, [*lines, f"written: {output}", f"next: lmeraser new DIR --data {data}"]


def _lines(counts: "Findings", drafted: "Draft") -> list[str]:
    from lmeraser.sources.drafting import FEW, LARGE

    spread = f"records a person: {counts.records_min} to {counts.records_max}, median {counts.records_median:g}"
    rows: list[tuple[str, str]] = [
        ("images", f"{counts.images:>8}"),
        ("labels", f"{counts.labels:>8}"),
        (
            "people",
            f"{counts.subjects:>8}   {spread}",
        ),
        ("public, stay for ever", f"{counts.public:>8}   of {counts.public_subjects} people"),
        ("private, can be forgotten", f"{counts.private:>8}   of {counts.private_subjects} people"),
        ("for testing", f"{counts.test:>8}"),
    ]
    notes = (
        (counts.both, "people in both splits", "they have training and test records; all go with them"),
        (counts.few, "labels with few records", f"below {FEW} private training records"),
        (counts.repeated, "same image twice", "same person, label and split; kept once"),
        (counts.shared, "same image, two people", "if one is erased, the other's stays"),
        (counts.two_labels, "same image, two labels", "correct one of them"),
        (counts.alike, "people alike but for case", "they count as two; if they are one, rename their files"),
        (drafted.partly_public, "people public in part", "only some of their images match; they are private"),
        (
            round(counts.largest * 100) if counts.largest > LARGE else 0,
            "percent are one person's",
            "to erase them costs most of a build",
        ),
    )
    rows += [(title, f"{count:>8}   {meaning}") for count, title, meaning in notes if count]
    return [f"{title:<{SHOWN}}{value}" for title, value in rows]
