"""SVG within the page: drawn by hand, so that equal facts give equal bytes and every colour follows the reader's light or dark.

Shapes have classes and no colours: the style sheet gives these. Each picture has a title and a description, and the page a table
of the same numbers beside it.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape

from lmeraser.report.facts import Accuracy, Branch, ClusterFacts

LEFT, RIGHT = 52.0, 700.0  # of the plots, in units of a picture 720 wide
MARKED = 24  # erasures whose marks reach down; more are short
WIDEST = 4800  # of the map
NAMED, TURNED = 24, 40  # clusters whose names stand upright, or turned; more have none
LARGEST = 22.0  # radius of the largest cluster
TIMES = "\u00d7"  # the sign of multiplication
SMALL = 3.5  # radius where the size is not shown


def _svg(name: str, width: float, height: float, title: str, said: str, shapes: Sequence[str]) -> Markup:
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-labelledby="{name}-title {name}-said">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-said">{escape(said)}</desc>'
    )
    return Markup(head + "".join(shapes) + "</svg>")  # noqa: S704  (every text in it is escaped)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, said: str, anchor: str = "middle", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"{named}>{escape(said)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{_number(x1)}" y1="{_number(y1)}" x2="{_number(x2)}" y2="{_number(y2)}" class="{kind}"/>'


def seconds_of(at: str) -> float | None:
    """None where it is no time: somebody may have written into the ledger, and the page is there to say so."""
    try:
        time = datetime.fromisoformat(at)
        return time.replace(tzinfo=time.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def accuracy_chart(points: Sequence[Accuracy], erasures: Sequence[str]) -> Markup:
    """Served accuracy over time as steps, with a mark at each erasure.

    Args: points: oldest first, at least one, with times that are times; erasures: times.
    """
    top, bottom = 34.0, 210.0
    times = [seconds_of(point.at) or 0.0 for point in points]
    marks = [time for at in erasures if (time := seconds_of(at)) is not None]
    start, end = min(times + marks), max(times + marks)
    values = [value for point in points for value in (point.served, point.linear) if value is not None]
    low = max(0.0, math.floor(min(values) * 20 - 0.5) / 20)

    def x(time: float) -> float:
        return LEFT + 14 + (RIGHT - LEFT - 28) * ((time - start) / (end - start) if end > start else 0.5)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (1 - low) if low < 1 else top

    shapes = []
    for step in range(5):
        level = low + (1 - low) * step / 4
        shapes += [_line(LEFT, y(level), RIGHT, y(level), "grid"), _text(LEFT - 8, y(level) + 4, f"{level:.3f}", "end", "tick")]
    places = sorted({round(x(time)) for time in marks})
    for place in places:
        if len(places) > MARKED:
            shapes.append(_line(place, top - 16, place, top - 7, "tally"))
            continue
        shapes.append(_line(place, top - 6, place, bottom, "mark"))
        shapes.append(f'<path d="M{place - 5} {top - 16:g}h10l-5 9z" class="marker"/>')
    linear = [(x(time), y(point.linear)) for time, point in zip(times, points, strict=True) if point.linear is not None]
    served = [(x(time), y(point.served)) for time, point in zip(times, points, strict=True)]
    shapes += [_steps(served, "served"), _steps(linear, "linear")]  # where both are alike the dashes lie on the line
    shapes += [f'<circle cx="{_number(a)}" cy="{_number(b)}" r="4" class="dot"/>' for a, b in served]
    first, last = (datetime.fromtimestamp(end, UTC).date().isoformat() for end in (start, end))
    shapes += [_text(LEFT, 230, first, "start", "tick"), _text(RIGHT, 230, last, "end", "tick")]
    said = (
        f"Served accuracy {points[0].served:.4f} at first and {points[-1].served:.4f} now, over {len(points)} states; "
        f"{len(marks)} erasures are marked. The table below has every value."
    )
    return _svg("accuracy", 720, 240, "Accuracy over time", said, shapes)


def _steps(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A value holds until the next one."""
    if len(points) < 2:
        return ""
    path = f"M{_number(points[0][0])} {_number(points[0][1])}"
    path += "".join(f"H{_number(a)}V{_number(b)}" for a, b in points[1:])
    return f'<path d="{path}" class="{kind}"/>'


def cluster_map(clusters: Sequence[ClusterFacts], tree: Sequence[Branch]) -> Markup:
    """The hierarchy down to its cut, and below it the clusters, each as large as its records. Clusters side by side are alike.

    Args: clusters: at least one; tree: parents before children; none where clusters are no nodes of a hierarchy.
    """
    width = float(min(WIDEST, max(720, 9 * len(clusters))))
    places, parents = _places(tree), {branch.parent for branch in tree}
    ends = sum(number not in parents for number in range(len(tree))) or len(clusters)
    depth = max((branch.depth for branch in tree), default=0)
    step = min(26.0, 150 / max(depth, 1))
    row = 24 + depth * step + LARGEST + 14

    def x(place: float) -> float:
        return 20 + (width - 40) * (place + 0.5) / ends

    shapes = []
    for number, branch in enumerate(tree):
        if branch.parent >= 0:
            above, over = x(places[branch.parent]), 20 + tree[branch.parent].depth * step
            below = row if branch.slot else 20 + branch.depth * step
            path = f"M{_number(above)} {_number(over)}H{_number(x(places[number]))}V{_number(below)}"
            shapes.append(f'<path d="{path}" class="branch"/>')
    own = {branch.slot: places[number] for number, branch in enumerate(tree) if branch.slot}
    most = max((cluster.records or 0 for cluster in clusters), default=0) or 1
    radius = min(LARGEST, 0.46 * (width - 40) / ends)
    for index, cluster in enumerate(clusters):
        shapes += _cluster(cluster, x(own.get(cluster.slot, index)), row, radius, most, len(clusters))
    touched = sum(bool(cluster.erasures) for cluster in clusters)
    out = sum(cluster.left_out for cluster in clusters)
    said = (
        f"{len(clusters)} clusters in the order of the hierarchy; {touched} were retrained by an erasure, {out} are left out "
        "now. The table below has every one."
    )
    return _svg("map", width, row + LARGEST + (44 if len(clusters) <= TURNED else 12), "Map of the clusters", said, shapes)


def _places(tree: Sequence[Branch]) -> dict[int, float]:
    """Where each node stands: ends side by side, 0, 1, 2 and on, and every other node above the middle of its children."""
    children: dict[int, list[int]] = {}
    for number, branch in enumerate(tree):
        children.setdefault(branch.parent, []).append(number)
    ends = [number for number in range(len(tree)) if number not in children]
    places = {number: float(place) for place, number in enumerate(ends)}
    for number in reversed(range(len(tree))):
        if number in children:
            places[number] = (places[children[number][0]] + places[children[number][-1]]) / 2
    return places


def _cluster(cluster: ClusterFacts, x: float, y: float, radius: float, most: int, count: int) -> list[str]:
    """A circle whose area is the number of records: filled if it was retrained, dashed if it is left out, small if not shown."""
    size = SMALL if cluster.records is None else max(SMALL, radius * math.sqrt(cluster.records / most))
    kind = "out" if cluster.left_out else "touched" if cluster.erasures else "untouched"
    unknown = " unsized" if cluster.records is None else ""
    shapes = [f'<circle cx="{_number(x)}" cy="{_number(y)}" r="{_number(size)}" class="cluster {kind}{unknown}"/>']
    below = y + LARGEST + 16
    if count <= NAMED:
        shapes.append(_text(x, below, cluster.slot, kind="tick"))
        shapes += [_text(x, below + 14, f"{TIMES}{cluster.erasures}", kind="tick strong")] if cluster.erasures else []
    elif count <= TURNED:
        turned = f'transform="rotate(-60 {_number(x)} {_number(below)})"'
        shapes.append(
            f'<text x="{_number(x)}" y="{_number(below)}" text-anchor="end" class="tick" {turned}>{escape(cluster.slot)}</text>'
        )
    return shapes


def bars(name: str, title: str, rows: Sequence[tuple[str, float, str, str]]) -> Markup:
    """Horizontal bars. Args: rows: label, value, the value in words, and the class of the bar; at least one."""
    most = max(value for _, value, _, _ in rows) or 1.0
    shapes = []
    for place, (label, value, words, kind) in enumerate(rows):
        y = 10 + place * 52
        shapes += [
            _text(0, y + 12, label, "start"),
            f'<rect x="0" y="{y + 19}" width="{_number(max(1.0, 540 * value / most))}" height="16" class="bar {kind}"/>',
            _text(max(1.0, 540 * value / most) + 8, y + 32, words, "start", "tick"),
        ]
    said = "; ".join(f"{label}: {words}" for label, _, words, _ in rows)
    return _svg(name, 720, 52 * len(rows) + 4, title, said, shapes)
