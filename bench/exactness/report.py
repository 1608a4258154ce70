"""The table of `bench.exactness`."""

from typing import NotRequired, TypedDict


class Amounts(TypedDict):
    """What one retraining trained again."""

    clusters_retrained: int
    clusters_total: int
    records_retrained: int


class Audit(TypedDict):
    """The JSON of `lmeraser audit --rebuild`, as far as it is read here."""

    equal: bool
    artifacts: int


class Erasures(TypedDict):
    """What erasing people in turn and at once did, and whether all that is left is equal. Lists: by retraining."""

    people_per_retraining: list[int]
    clusters_retrained: list[int]
    records_share: list[float]
    cut_changes: int
    batch: Amounts
    audit: Audit
    all_at_once: NotRequired[Amounts]  # these are absent with --audit-only
    at_once_equal: NotRequired[bool]
    reverse_order_equal: NotRequired[bool]
    never_had_them_equal: NotRequired[bool]


class Report(Erasures):
    """The whole campaign: bench/results/exactness-DATA.json."""

    data: str
    command: str
    people: dict[str, int]
    seconds: int
    revision: str
    environment: dict[str, str]


def markdown(report: Report) -> str:
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
