"""The table of `bench.exactness`."""

from bench.exactness.erasures import Results


def markdown(results: Results) -> str:
    clusters, share, people = results["clusters_retrained"], results["records_share"], results["people_per_retraining"]
    batch = results["batch"]
    equal = {True: "equal", False: "NOT EQUAL", None: "not measured"}
    rows = [
        ("people erased in turn, then at once", f"{sum(people)}, {results['people']['erased at once']}"),
        ("retrainings for those in turn, people in each", f"{len(people)}, {min(people)} to {max(people)}"),
        ("clusters a retraining, mean (max)", f"{sum(clusters) / len(clusters):.2f} ({max(clusters)})"),
        ("share of records a retraining, mean (max)", f"{sum(share) / len(share):.3f} ({max(share):.3f})"),
        (
            "clusters retrained for those at once",
            f"{batch['clusters_retrained']} of {batch['clusters_total']}",
        ),
        ("cuts that changed", str(results["cut_changes"])),
        ("audit --rebuild", f"{equal[results['audit']['equal']]}, {results['audit']['artifacts']} artifacts"),
        ("all at once", equal[results.get("at_once_equal")]),
        ("in turn in reverse order", equal[results.get("reverse_order_equal")]),
        ("a project that never had them", equal[results.get("never_had_them_equal")]),
    ]
    head = f"`{results['command']}` at {results['revision'][:12]}\n\n| | |\n|---|---|\n"
    return head + "".join(f"| {name} | {value} |\n" for name, value in rows)
