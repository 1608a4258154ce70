"""The picture beside the numbers: accuracy of each part of the model, and the size of every cluster."""

import io
from typing import Any

import pandas as pd

LABELLED = 40  # clusters that are shown by name
PARTS = {
    "served": "served (clusters + global head)",
    "clusters_soft": "clusters, soft routing",
    "clusters_hard": "clusters, hard routing",
    "global_head": "global head",
    "linear_head": "yardstick: linear head on all data",
    "linear_head_depths": "yardstick: the same over all depths",
}


def draw_overview(metrics: dict[str, Any], clusters: pd.DataFrame) -> bytes:
    """A PNG whose bytes are a function of the numbers and of matplotlib's version, whatever a user's matplotlibrc says.

    Args: clusters: slot, records (none where the group is too small to tell), accuracy.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        return _draw(metrics, clusters)


def _draw(metrics: dict[str, Any], clusters: pd.DataFrame) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    accuracies = {title: metrics["accuracy"][name] for name, title in PARTS.items() if metrics["accuracy"].get(name) is not None}
    names, values = list(accuracies)[::-1], list(accuracies.values())[::-1]
    colours = ["#4c78a8" if not name.startswith("yardstick") else "#b0b0b0" for name in names]
    left.barh(names, values, color=colours)
    for place, value in enumerate(values):
        left.text(value, place, f" {value:.3f}", va="center", fontsize=9)
    left.set_xlim(0, 1.12)
    left.set_title("Accuracy on private test records", fontsize=10)
    sizes = clusters["records"].fillna(0).astype(float)
    if len(clusters) <= LABELLED:
        right.bar(clusters["slot"], sizes, color="#72b7b2")
        right.tick_params(axis="x", rotation=90, labelsize=8)
    else:  # names would lie upon each other
        right.stairs(sorted(sizes, reverse=True), color="#72b7b2", fill=True)
        right.set_xlabel(f"{len(clusters)} clusters, largest first", fontsize=9)
    right.set_title("Private training records in each cluster", fontsize=10)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
