"""A review lets pass what the params let pass and nothing else, and what it prints stays what it is: text."""

import html
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from builders import make_params
from hypothesis import example, given
from hypothesis import strategies as st

from lmeraser.report.review import Breach, compare
from lmeraser.report.review_text import WIDTH, markdown, text
from lmeraser.report.states import Group, State

ALLOWED = make_params(
    {"review": {"accuracy_drop": 0.01, "class_drop": 0.1, "cluster_drop": 0.1, "least_wrong": 2, "log_loss_rise": 0.05}}
).review
IDS = [f"5eed0000-0000-4000-8000-{number:012d}" for number in range(40)]
TUNED = "artifacts/tune/{}.safetensors"


def state(name: str = "old", served: float | None = 0.9, log_loss: float | None = 0.2, **facts: object) -> State:
    metrics = {"accuracy.served": served, "log_loss": log_loss, "records.train": 60}
    return replace(State(name, metrics), **facts)  # type: ignore[arg-type]


def groups(**shares: float) -> Mapping[str, Group]:
    return {name: Group(20, share) for name, share in shares.items()}


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"served": 0.89}, []),  # 0.9 - 0.89 is more than 0.01 as floats have it
        ({"served": 0.8899}, ["accuracy.served"]),
        ({"served": None}, ["accuracy.served"]),
        ({"served": 1.0}, []),
        ({"log_loss": 0.25}, []),
        ({"log_loss": 0.2501}, ["log_loss"]),
        ({"log_loss": None}, ["log_loss"]),
        ({"served": 0.5, "log_loss": 3.0}, ["accuracy.served", "log_loss"]),
    ],
)
def test_overall_number_breaks_its_tolerance_beyond_it_and_when_it_is_lost(
    changed: dict[str, float | None], broken: list[str]
) -> None:
    comparison = compare(state(), state("new", **changed), ALLOWED)
    assert [breach.name for breach in comparison.breaches] == broken
    assert comparison.within == (not broken)


def test_older_metrics_without_log_loss_are_compared_by_what_they_have() -> None:
    assert compare(state(log_loss=None), state("new"), ALLOWED).within


@pytest.mark.parametrize("kind", ["classes", "clusters"])
def test_group_breaks_its_tolerance_unless_so_few_answers_turned_wrong(kind: str) -> None:
    def with_groups(shown: Mapping[str, Group]) -> State:
        return state(classes=shown) if kind == "classes" else state(clusters=shown)

    old = with_groups(groups(a=1.0, b=1.0))
    assert compare(old, with_groups(groups(a=0.9, b=1.0)), ALLOWED).within
    fallen = compare(old, with_groups(groups(a=0.85, b=1.0)), ALLOWED)
    assert fallen.breaches == (Breach("class" if kind == "classes" else "cluster", "a", 1.0, 0.85, 0.1),)
    of_six = compare(with_groups({"a": Group(6, 1.0)}), with_groups({"a": Group(6, 5 / 6)}), ALLOWED)
    assert of_six.within, "one answer of six is chance"


def test_group_that_one_state_hides_is_counted_and_not_compared() -> None:
    old = state(classes=groups(a=1.0, b=1.0), classes_hidden=1)
    comparison = compare(old, state("new", classes=groups(a=1.0), classes_hidden=2), ALLOWED)
    assert (list(comparison.classes.changes), comparison.classes.apart) == (["a"], 2)
    assert comparison.within


def test_blast_radius_is_what_the_locks_say_and_shows_no_size_of_few_people() -> None:
    old = state(
        sizes={"c00": 20, "c01": 30, "c02": 10, "c09": 5},
        outs={TUNED.format(slot): slot for slot in ("c00", "c01", "c02", "c09")},
    )
    outs = {TUNED.format("c00"): "c00", TUNED.format("c01"): "other", TUNED.format("c02"): "other", TUNED.format("c03"): "new"}
    new = state("new", sizes={"c00": 20, "c01": 29, "c02": None, "c03": 11}, outs=outs)
    blast = compare(old, new, ALLOWED).blast
    assert (blast.changed, blast.added, blast.emptied, blast.clusters) == (("c01", "c02"), ("c03",), ("c09",), 4)
    assert (blast.records, blast.unsized, blast.total, blast.rebuilt) == (40, 1, 60, False)
    assert blast.known
    assert not compare(state(), new, ALLOWED).blast.known
    assert "unknown" in "\n".join(text(compare(state(), new, ALLOWED), ALLOWED))


def test_cost_names_the_requests_that_were_certified_in_between() -> None:
    old, new = state(certificates={1: IDS[0]}), state("new", certificates={1: IDS[0], 3: IDS[3], 2: IDS[2]})
    cost = compare(old, new, ALLOWED, 12.3456).cost
    assert (cost.requests, cost.seconds) == ((IDS[2], IDS[3]), 12.346)
    assert "time unknown" in " ".join(" ".join(text(compare(old, new, ALLOWED), ALLOWED)).split())


def wide() -> tuple[State, State]:
    slots = [f"c{number:02d}" for number in range(200)]
    old = state(
        classes={f"{'a label ' * 20}{number}": Group(50, 1.0) for number in range(9)},
        sizes=dict.fromkeys(slots, 100),
        outs={TUNED.format(slot): "old" for slot in slots},
    )
    new = replace(old, name="new", outs={TUNED.format(slot): "new" for slot in slots}, certificates=dict(enumerate(IDS)))
    return old, replace(new, classes={name: Group(50, 0.5) for name in old.classes})


def test_lines_stay_within_the_terminal_and_the_verdict_is_last() -> None:
    lines = text(compare(*wide(), ALLOWED), ALLOWED)
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1].endswith("not met")
    assert sum(line.startswith("TOLERANCE BROKEN") for line in lines) == 9


@given(st.text(min_size=1, max_size=30))
@example("<b>&amp;</b> @someone #1")
@example("a|b\\`*_[x](http://y)")
def test_label_in_markdown_is_neither_markup_nor_a_mention_nor_a_cell(label: str) -> None:
    old, new = state(classes={label: Group(50, 1.0)}), state("new", classes={label: Group(50, 0.125)})
    written = markdown(compare(old, new, ALLOWED), ALLOWED)
    rows = [line for line in written.splitlines() if line.startswith("| <code>") and " 0.125 |" in line]
    assert len(rows) == 1, "one row, whatever line breaks and bars the label has"
    inside = rows[0].removeprefix("| <code>").split("</code> | 1 |")[0]
    assert not re.search(r"[`*_{}\[\]()#+\-.!|~:<]", re.sub(r"\\.", "", inside)), inside
    shown = re.sub(r"\\(.)", r"\1", html.unescape(inside))
    printable = "".join(letter if letter.isprintable() else "?" for letter in label)
    assert shown == printable or (shown.endswith("…") and printable.startswith(shown[:-1]))
    assert text(compare(old, new, ALLOWED), ALLOWED)


@given(st.floats(0, 1), st.floats(0, 1))
def test_no_rise_of_accuracy_breaks_anything_and_each_larger_fall_does(before: float, after: float) -> None:
    comparison = compare(state(served=round(before, 6)), state("new", served=round(after, 6)), ALLOWED)
    assert comparison.within == (round(round(before, 6) - round(after, 6), 6) <= 0.01)
