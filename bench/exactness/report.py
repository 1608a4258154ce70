"""The table of `bench.exactness`."""

from typing import Any


def markdown(report: dict[str, Any]) -> str:
    clusters, share, people = report["clusters_retrained"], report["records_share"], report["people_per_retraining"]
    equal = {True: "equal", False: "NOT EQUAL", None: "not measured"}
    rows = [
        ("people erased in turn, then at once", f"{sum(people)}, {report['people']['erased at once']}"),
        ("retrainings for those in turn, people in each", f"{len(people)}, {min(people)} to {max(people)}"),
        ("clusters a retraining, mean (max)", f"{sum(clusters) / len(clusters):.2f} ({max(clusters)})"),
        ("share of records a retraining, mean (max)", f"{sum(share) / len(share):.3f} ({max(share):.3f})"),
        (
            "clusters retrained for those at once",
            f"{report['batch']['clusters_retrained']} of {report['batch']['clusters_total']}",
        ),
        ("cuts that changed", str(report["cut_changes"])),
        ("audit --rebuild", f"{equal[report['audit']['equal']]}, {report['audit']['artifacts']} artifacts"),
        ("all at once", equal[report.get("at_once_equal")]),
        ("in turn in reverse order", equal[report.get("reverse_order_equal")]),
        ("a project that never had them", equal[report.get("never_had_them_equal")]),
    ]
    head = f"`{report['command']}` at {report['revision'][:12]}\n\n| | |\n|---|---|\n"
    return head + "".join(f"| {name} | {value} |\n" for name, value in rows)
