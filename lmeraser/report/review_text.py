"""A comparison in words: lines of at most 80 columns for a terminal, and Markdown for a pull request."""

import html
import re
import textwrap
from collections.abc import Callable, Iterator

from lmeraser.core.params import Review
from lmeraser.report.review import LOG_LOSS, SERVED, Blast, Breach, Change, Comparison, Groups
from lmeraser.report.states import Number

WIDTH = 80  # columns
INDENT = 18  # columns of a line's name
WORST = 5  # groups that are shown one by one
MOST_NAMES = 24  # slots or requests that are named; more are counted
LONGEST = 30  # characters of a label
MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|~:])")
PLAIN = ("met", "not met")


def text(comparison: Comparison, allowed: Review) -> list[str]:
    """Lines for a terminal, the verdict last."""
    lines = [f"{comparison.old} -> {comparison.new}", f"{'':<30}{'old':>12}{'new':>12}{'change':>12}"]
    for name, pair in _shown(comparison):
        lines.append(f"{_label(name, 29):<30}{_number(pair.old):>12}{_number(pair.new):>12}{_signed(pair.change):>12}")
    for title, groups, limit in _tables(comparison, allowed):
        lines += _wrapped(title, f"{_counted(groups)}; may fall by {limit:g}")
        lines += [f"  {_label(name):<28}{_number(pair.old):>12}{_number(pair.new):>12}{_signed(pair.change):>12}"
                  for name, pair in _worst(groups)]  # fmt: skip
    for title, said in (("blast radius", blast_words(comparison.blast)), ("cost", cost_words(comparison))):
        lines += _wrapped(title, said)
    for breach in comparison.breaches:
        lines += _wrapped("TOLERANCE BROKEN", breach_words(breach))
    return [*lines, *_wrapped("tolerances", PLAIN[not comparison.within])]


def markdown(comparison: Comparison, allowed: Review) -> str:
    """For a pull request: whatever a label holds is text there, and neither markup nor a mention."""
    verdict = "within the tolerances" if comparison.within else f"{len(comparison.breaches)} tolerances broken"
    lines = [f"## lmeraser review: {verdict}", "", f"{_text(comparison.old)} → {_text(comparison.new)}", ""]
    lines += [f"- **Tolerance broken**: {breach_words(breach, _code)}" for breach in comparison.breaches]
    lines += [""] if comparison.breaches else []
    lines += ["| metric | old | new | change |", "|---|---:|---:|---:|"]
    lines += [_row(name, pair) for name, pair in _shown(comparison)]
    for title, groups, limit in _tables(comparison, allowed):
        lines += ["", f"**{title}**: {_counted(groups)}; accuracy may fall by {limit:g}"]
        worst = _worst(groups)
        if worst:
            lines += ["", f"| {title} that fell most | old | new | change |", "|---|---:|---:|---:|"]
            lines += [_row(name, pair) for name, pair in worst]
    lines += ["", f"**Blast radius**: {blast_words(comparison.blast)}", "", f"**Cost**: {cost_words(comparison)}", ""]
    return "\n".join(lines)


def breach_words(breach: Breach, shown: Callable[[str], str] = lambda name: name) -> str:
    """What broke, by how much, and what was allowed. Args: shown: how a name is written."""
    kind = "" if breach.kind == "metric" else f"{breach.kind} "
    name = kind + shown(_label(breach.name))
    if breach.new is None:
        return f"{name} was {_number(breach.old)} and is not there any more"
    return f"{name} went from {_number(breach.old)} to {_number(breach.new)}; allowed is a change of {breach.allowed:g}"


def blast_words(blast: Blast) -> str:
    """Which clusters changed, and how many of the records were trained on again."""
    if not blast.known:
        return "unknown: one of the two has no dvc.lock"
    touched = (*blast.changed, *blast.added)
    said = f"{len(touched)} of {blast.clusters} clusters" + (f": {_names(touched)}" if touched else "")
    total = "" if blast.total is None else f" of {blast.total}"
    said += f"; {blast.records}{total} records trained on again"
    if blast.unsized:
        said += f", and those of {blast.unsized} clusters of few people, whose size is not shown"
    if blast.emptied:
        said += f"; emptied: {_names(blast.emptied)}"
    return said + ("; backbone or skeleton rebuilt" if blast.rebuilt else "")


def cost_words(comparison: Comparison) -> str:
    """The erasures in between, and the time that their steps took where a ledger tells."""
    requests = comparison.cost.requests
    if not requests:
        return "no erasure was certified in between"
    took = "time unknown here (no ledger)" if comparison.cost.seconds is None else f"{comparison.cost.seconds:.1f} s of steps"
    return f"{len(requests)} certified: {_names(requests)}; {took}"


def _shown(comparison: Comparison) -> list[tuple[str, Change]]:
    """The two that have tolerances, and whatever changed."""
    return [
        (name, pair)
        for name, pair in comparison.metrics.items()
        if pair.old != pair.new or (name in (SERVED, LOG_LOSS) and pair.old is not None)
    ]


def _tables(comparison: Comparison, allowed: Review) -> Iterator[tuple[str, Groups, float]]:
    yield "classes", comparison.classes, allowed.class_drop
    yield "clusters", comparison.clusters, allowed.cluster_drop


def _counted(groups: Groups) -> str:
    worse = sum(bool(pair.change and pair.change < 0) for pair in groups.changes.values())
    apart = f", {groups.apart} not (few people, new or gone)" if groups.apart else ""
    return f"{len(groups.changes)} compared{apart}, {worse} fell"


def _worst(groups: Groups) -> list[tuple[str, Change]]:
    fallen = [(name, pair) for name, pair in groups.changes.items() if pair.change and pair.change < 0]
    return sorted(fallen, key=lambda item: (item[1].change or 0, item[0]))[:WORST]


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _number(value: Number) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _signed(value: Number) -> str:
    return "-" if value is None else f"{round(value, 6):+.6g}"


def _label(name: str, longest: int = LONGEST - 2) -> str:
    """One printable line of a label, cut where it is long."""
    line = "".join(letter if letter.isprintable() else "?" for letter in name)
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _wrapped(title: str, said: str) -> list[str]:
    return textwrap.wrap(said, WIDTH, initial_indent=f"{title:<{INDENT}}", subsequent_indent=" " * INDENT)


def _text(said: str) -> str:
    """As Markdown shows it letter by letter: neither markup nor HTML."""
    return html.escape(MARKUP.sub(r"\\\1", said), quote=False)


def _code(said: str) -> str:
    """A name within code, where forges look for no mention of anybody and for no issue."""
    return f"<code>{_text(said)}</code>"


def _row(name: str, pair: Change) -> str:
    return f"| {_code(_label(name))} | {_number(pair.old)} | {_number(pair.new)} | {_signed(pair.change)} |"
