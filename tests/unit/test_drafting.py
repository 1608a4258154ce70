"""A drafted manifest: people stay whole, a hash alone draws them, and what it calls ready a build takes."""

from collections import defaultdict

import pytest
from builders import refused
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.errors import BadInputError, LmeraserError
from lmeraser.data.records import PRIVATE, PUBLIC, TEST, TRAIN
from lmeraser.sources.csv_file import read_csv
from lmeraser.sources.drafting import Rules, chance, check_rules, draft, draw, findings, problems, to_csv
from lmeraser.sources.image_folder import Image
from lmeraser.sources.manifest import table_of
from lmeraser.sources.splitting import check_shares

BY_NAME = "([a-z]+)_"
NAMES = st.sampled_from(["anna", "ben", "cleo", "dora", "emil", "fay"])
PATHS = st.builds("{}/{}_{}.png".format, st.sampled_from(["0", "1", "2"]), NAMES, st.integers(0, 30))


def images(*paths: str) -> list[Image]:
    return [Image(path, f"{number:064x}") for number, path in enumerate(sorted(paths))]


def people(count: int, each: int = 4) -> list[Image]:
    names = ["".join(chr(97 + int(digit)) for digit in f"{number:03d}") for number in range(count)]
    return images(*(f"{number % 2}/{name}_{number}.png" for name in names for number in range(each)))


def table(rows: bytes) -> object:
    return table_of(read_csv(rows, "manifest.csv"))


def test_label_is_the_folder_and_the_subject_the_first_group() -> None:
    row = draft(images("cat/deep/anna_1.png"), Rules(subject=BY_NAME)).rows[0]
    assert (row.path, row.label, row.subject, row.visibility, row.split) == ("cat/deep/anna_1.png", "cat", "anna", PRIVATE, TRAIN)


def test_group_of_the_options_name_is_taken_before_the_first() -> None:
    rules = Rules(label="(x)?_(?P<label>[a-z]+)[.]", subject="^(?:[^/]+)/(?P<subject>[^_]+)")
    assert [(row.label, row.subject) for row in draft(images("all/anna_cat.png"), rules).rows] == [("cat", "anna")]


def test_two_unicode_spellings_of_a_name_are_one_person() -> None:
    rows = draft(images("0/re\u0301ne_1.png", "1/r\u00e9ne_2.png"), Rules(subject="/([^_]+)_")).rows
    assert {row.subject for row in rows} == {"r\u00e9ne"}


def test_without_a_rule_for_subjects_each_image_is_a_person_of_its_own() -> None:
    assert [row.subject for row in draft(images("0/a.png", "1/a.png"), Rules()).rows] == ["0/a.png", "1/a.png"]


@given(st.sets(PATHS, min_size=2), st.sampled_from([0.0, 0.2, 0.5, 0.9]), st.sampled_from([0.0, 0.3, 0.8]))
def test_people_stay_whole(paths: set[str], test: float, public: float) -> None:
    rows = draft(images(*paths), Rules(subject=BY_NAME, test=test, public=public)).rows
    parts = defaultdict(set)
    for row in rows:
        parts[row.subject].add((row.visibility, row.split))
    assert all(len(part) == 1 for part in parts.values())
    assert {row.split for row in rows if row.visibility == PUBLIC} <= {TRAIN}
    assert len(rows) == len(paths)


@given(st.sets(PATHS, min_size=2), st.booleans(), st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 0.3, 0.8]))
def test_what_is_called_ready_is_what_a_build_takes(paths: set[str], by_name: bool, test: float, public: float) -> None:
    rows = draft(images(*paths), Rules(subject=BY_NAME if by_name else None, test=test, public=public)).rows
    mend = [line for line in problems(rows) if "one person's" not in line]  # a build would take that
    try:
        check_shares(table(to_csv(rows)), "manifest.csv")  # type: ignore[arg-type]
        taken = True
    except LmeraserError:
        taken = False
    assert taken == (not mend)


def test_person_who_joins_moves_nobody_else() -> None:
    rules = Rules(subject=BY_NAME, test=0.2, public=0.3)
    before = {row.path: row for row in draft(people(60), rules).rows}
    after = {row.path: row for row in draft([*people(60), *images("0/zoe_1.png", "1/zoe_2.png")], rules).rows}
    assert before == {path: after[path] for path in before}


def test_shares_are_about_what_was_asked_for() -> None:
    counts = findings(draft(people(400), Rules(subject=BY_NAME, test=0.2, public=0.3)).rows, people(400))
    assert 0.25 < counts.public_subjects / 400 < 0.35
    assert 0.15 < counts.test / counts.private < 0.25


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=3), min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_draw_leaves_somebody_on_both_sides(names: set[str], share: float) -> None:
    assert 0 < len(draw("test", names, share)) < len(names)


def test_two_draws_of_a_person_have_nothing_in_common() -> None:
    names = [f"p{number}" for number in range(2000)]
    assert abs(sum(chance("test", name) < 0.5 and chance("public", name) < 0.5 for name in names) - 500) < 80


def test_by_image_a_person_may_be_in_both_splits() -> None:
    drafted = draft(people(10, each=20), Rules(subject=BY_NAME, test=0.5, by_subject=False)).rows
    assert findings(drafted, people(10, each=20)).both == 10


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("Training", "VAL")])
def test_folders_of_a_data_set_say_what_is_for_testing(first: str, second: str) -> None:
    rows = draft(images(f"{first}/cat/anna_1.png", f"{second}/dog/anna_2.png"), Rules(subject=BY_NAME)).rows
    assert {(row.label, row.split) for row in rows} == {("cat", TRAIN), ("dog", TEST)}
    assert findings(rows, images(*(row.path for row in rows))).both == 1


def test_labels_that_are_named_train_and_bus_are_labels() -> None:
    assert {row.label for row in draft(images("train/a.png", "bus/b.png"), Rules()).rows} == {"train", "bus"}


def test_whoever_matches_in_part_stays_private() -> None:
    drafted = draft(
        images("cat/anna_1.png", "dog/anna_2.png", "cat/ben_1.png"), Rules(subject=BY_NAME, public_labels=frozenset({"cat"}))
    )
    assert {row.subject: row.visibility for row in drafted.rows} == {"anna": PRIVATE, "ben": PUBLIC}
    assert drafted.partly_public == 1
    matched = draft(images("stock/x_1.png", "own/y_1.png"), Rules(subject=BY_NAME, public_match="^stock/"))
    assert {row.subject: row.visibility for row in matched.rows} == {"x": PUBLIC, "y": PRIVATE}


def test_what_has_no_label_or_subject_is_left_out_with_its_reason() -> None:
    drafted = draft(
        images("CANARY.png", "0/CANARY.png", f"0/anna_{'x' * 1024}.png", "0/x\u200by_1.png", "0/anna_1.png"),
        Rules(subject="([a-z\u200b]+)_"),
    )
    assert dict(drafted.left_out) == {
        "CANARY.png": "no label",
        "0/CANARY.png": "no subject match",
        f"0/anna_{'x' * 1024}.png": "path too long",
        "0/x\u200by_1.png": "label or subject with characters that nobody sees",
    }
    assert [row.path for row in drafted.rows] == ["0/anna_1.png"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        (Rules(subject="(CANARY"), "--subject-from: not a regular expression"),
        (Rules(subject="CANARY"), "no group"),
        (Rules(subject="CANARY(x)"), "matches none of 2 paths"),
        (Rules(label="CANARY(x)"), "--label-from matches no path"),
        (Rules(public_match="[CANARY"), "--public-match: not a regular expression"),
        (Rules(public_match="CANARY-nobody"), "--public-match: the expression matches no path"),
        (Rules(public_labels=frozenset({"CANARY", "0"})), "1 of 2 are no labels here"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(rules: Rules, says: str) -> None:
    assert says in refused(BadInputError, lambda: draft(images("0/CANARY_1.png", "1/b_1.png"), rules))


def test_expressions_are_checked_before_anything_is_read() -> None:
    refused(BadInputError, lambda: check_rules(Rules(subject="(CANARY")))
    refused(BadInputError, lambda: check_rules(Rules(label="CANARY")))
    refused(BadInputError, lambda: check_rules(Rules(public_match="[CANARY")))
    check_rules(Rules(label="(a)", subject="(b)", public_match="c"))


def test_share_is_refused_where_folders_say_it() -> None:
    assert "leave --test out" in refused(BadInputError, lambda: draft(images("train/0/a.png", "test/0/b.png"), Rules(test=0.1)))


def test_folder_without_an_image_is_refused() -> None:
    assert "no PNG, JPEG or WebP" in refused(BadInputError, lambda: draft([], Rules()))


def test_images_of_the_same_bytes_are_counted_by_what_they_share() -> None:
    same = "f" * 64
    twins = [Image(path, same) for path in ("0/anna_1.png", "0/anna_2.png", "0/ben_1.png", "1/anna_3.png")]
    counts = findings(draft(twins, Rules(subject=BY_NAME)).rows, twins)
    assert (counts.repeated, counts.shared, counts.two_labels) == (1, 1, 1)


def test_people_alike_but_for_case_are_told() -> None:
    rows = draft(images("0/anna_1.png", "0/Anna_2.png"), Rules(subject="/([A-Za-z]+)_")).rows
    assert findings(rows, images(*(row.path for row in rows))).alike == 1


def test_one_person_with_everything_is_told() -> None:
    rows = draft(images("0/anna_1.png", "1/anna_2.png"), Rules(subject=BY_NAME)).rows
    assert any("one person's" in line for line in problems(rows))
    assert findings(rows, images(*(row.path for row in rows))).largest == 1.0


@given(st.lists(st.text("ab,;\"' |\t=#", min_size=1, max_size=6), min_size=1, max_size=6, unique=True))
def test_table_reads_back_as_it_was_meant(names: list[str]) -> None:
    rows = draft(images("x/x.png", *(f"{name}/{name}.png" for name in names)), Rules()).rows
    read = table(to_csv(rows))
    assert read["path"].tolist() == [row.path for row in rows]  # type: ignore[index]
    assert read["label"].tolist() == [row.label for row in rows]  # type: ignore[index]
