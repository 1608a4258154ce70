"""The table of `bench.exactness`."""

from typing import Any


def markdown(found: dict[str, Any]) -> str:
    clusters, share, people = found["clusters_retrained"], found["records_share"], found["people_per_retraining"]
    equal = {True: "equal", False: "NOT EQUAL", None: "not measured"}
    rows = [
        ("people erased in turn, then at once", f"{sum(people)}, {found['people']['erased at once']}"),
        ("retrainings for those in turn, people in each", f"{len(people)}, {min(people)} to {max(people)}"),
        ("clusters a retraining, mean (max)", f"{sum(clusters) / len(clusters):.2f} ({max(clusters)})"),
        ("share of records a retraining, mean (max)", f"{sum(share) / len(share):.3f} ({max(share):.3f})"),
        ("clusters retrained for those at once", f"{found['batch']['clusters_retrained']} of {found['batch']['clusters_total']}"),
        ("cuts that changed", str(found["cut_changes"])),
        ("audit --rebuild", f"{equal[found['audit']['equal']]}, {found['audit']['artifacts']} artifacts"),
        ("all at once", equal[found.get("at_once_equal")]),
        ("in turn in reverse order", equal[found.get("reverse_order_equal")]),
        ("a project that never had them", equal[found.get("never_had_them_equal")]),
    ]
    head = f"`{found['command']}` at {found['revision'][:12]}\n\n| | |\n|---|---|\n"
    return head + "".join(f"| {name} | {value} |\n" for name, value in rows)
