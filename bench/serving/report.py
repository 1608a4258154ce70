"""Tables of what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.lab.report import table, write_report

Rows = Sequence[Mapping[str, Any]]


def milliseconds(value: float) -> str:
    return f"{1000 * value:.1f}"


def throughput_table(rows: Rows) -> str:
    head = ["server", "clients", "answers a second", "p50, ms", "p99, ms"]
    cells = [
        [row["server"], row["clients"], f"{row['a_second']:.0f}", milliseconds(row["p50_s"]), milliseconds(row["p99_s"])]
        for row in rows
    ]
    return table(head, cells)


def inside_table(rows: Rows) -> str:
    head = ["mode", "images at once", "rows through the network", "passes", "as many bare passes, ms", "the answer, ms", "over"]
    cells = [
        [
            "one pass" if row["one_pass"] else "whole",
            row["images"],
            row["rows"],
            row["passes"],
            milliseconds(row["bare_s"]),
            milliseconds(row["ours_s"]),
            f"{100 * row['over']:.1f} %",
        ]
        for row in rows
    ]
    return table(head, cells)


def erasure_table(rows: Rows) -> str:
    head = [
        "processes",
        "clients",
        "answers",
        "refused",
        "versions",
        "accepted to last answer from before, s",
        "in effect to it, s",
        "begun in effect, from before",
        "command to certified, s",
        "longest answer, s",
    ]
    cells = [
        [
            "warm" if row["warm"] else "cold",
            row["clients"],
            f"{row['answers']:,}",
            row["refused"],
            row["versions"],
            f"{row['accepted_to_last_old_s']:.2f}",
            f"{row['in_effect_to_last_old_s']:.3f}",
            row["begun_in_effect_but_old"],
            f"{row['command_to_certified_s']:.1f}",
            f"{row['longest_answer_s']:.2f}",
        ]
        for row in rows
    ]
    return table(head, cells)


def write(name: str, batch: int, throughput: Rows, inside: Rows, erasures: Rows) -> None:
    """bench/results/NAME.md and .json."""
    body = [
        "## Under load",
        f"One image a request, clients that ask without a pause from a process on the same cores; passes of {batch} records.",
        throughput_table(throughput),
        "## Heads and routing over the passes that they need",
        "Processor time within a process, one thread, medians of rounds that alternate.",
        inside_table(inside),
        "## A person is forgotten while clients ask",
        "Accepted: the request's first commit to the ledger. In effect: the quarantine's pointer stands. From before: of the "
        "version that answered before the command.",
        erasure_table(erasures),
    ]
    facts = {"throughput": throughput, "inside": inside, "erasures": erasures}
    write_report(name, "What serving costs, and how soon an erasure is in the answers", body, facts)
