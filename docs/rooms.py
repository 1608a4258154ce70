"""Draws docs/rooms.svg, the map of the rooms: `python docs/rooms.py`.

Floors come from the contracts in pyproject.toml, arrows from the imports that the code has (within functions too), sentences from
the rooms' docstrings. An arrow that follows from others is not drawn; the picture's description lists every one.
`tests/unit/test_map.py` draws it again and compares the bytes.
"""

import ast
import re
import textwrap
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "rooms.svg"
PRODUCT = ("flows", "stages", "lmeraser")
LEARNS = ("lmeraser.learn", "lmeraser.serve")  # the rooms with torch

Arrow = tuple[str, str]  # who imports, what is imported

# px
WIDTH, TOP = 1300, 96
BOX, GAP = 80, 22  # least height of a room, and the distance to the floor below
COLUMN, LANES = 420, 84  # width of a column's rooms, and of the lanes for arrows at each of its sides
LINE = 13  # between two lines of a room's text
LEFT, RIGHT = 20 + LANES, WIDTH - 20 - LANES - COLUMN  # where the rooms of the two columns begin
LANE = 13  # between two lanes

HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"
     aria-labelledby="t d" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" fill="#24292f">
  <title id="t">The rooms of the house, and which imports which</title>
  <desc id="d">
{arrows}
  </desc>
  <style>
    .house {{ fill: #f6f8fa; stroke: #d8dee4; }}
    .room {{ fill: #ffffff; stroke: #8c959f; }}
    .torch {{ fill: #ffe3c2; stroke: #bc4c00; }}
    .title {{ font-size: 17px; font-weight: 600; }}
    .name {{ font-size: 14px; font-weight: 600; }}
    .text {{ font-size: 11.5px; fill: #57606a; }}
    .line {{ fill: none; stroke: #57606a; stroke-width: 1.3; }}
    .wide {{ fill: none; stroke: #0969da; stroke-width: 2.5; }}
    .file {{ fill: none; stroke: #1a7f37; stroke-width: 2.5; stroke-dasharray: 7 5; }}
  </style>
  <defs>
    <marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse"
        orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#57606a"/></marker>
    <marker id="w" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="13" markerHeight="13" markerUnits="userSpaceOnUse"
        orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#0969da"/></marker>
  </defs>
  <rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>
"""


@dataclass(frozen=True)
class Place:
    """Where a room is drawn, in px. Attributes: half: `left` or `right` for the ends of a floor that several share, else empty;
    lines: the room's text."""

    floor: int
    x: float
    y: float
    width: float
    height: float
    half: str
    lines: tuple[str, ...]

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height


def floors(package: str) -> list[list[str]]:
    """The rooms of a package from top to bottom, as its contract of layers names them; stages have no contract of their own."""
    if package == "stages":
        return [["stages.update"], ["stages"], ["stages.runtime"]]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == [package])
    return [[f"{package}.{room.strip()}" for room in layer.split("|")] for layer in layers]


def room_of(module: str) -> str:
    """The room that a module lies in; a module of `stages/` itself is in the room `stages`."""
    parts = module.split(".")
    if parts[0] == "stages":
        return f"stages.{parts[1]}" if parts[1:2] in (["runtime"], ["update"]) else "stages"
    return ".".join(parts[:2])


def arrows() -> list[Arrow]:
    """Every pair of rooms of which one imports the other, sorted; imports for the type checker alone do not count."""
    graph = grimp.build_graph(*PRODUCT, exclude_type_checking_imports=True, cache_dir=None)
    imports = {(room_of(old), room_of(new)) for old in graph.modules for new in graph.find_modules_directly_imported_by(old)}
    return sorted((old, new) for old, new in imports if old != new and "lmeraser" not in (old, new))


def drawn(among: Collection[Arrow]) -> list[Arrow]:
    """The arrows that do not follow from others."""
    below: dict[str, set[str]] = {}
    for old, new in among:
        below.setdefault(old, set()).add(new)

    def reaches(start: str, end: str) -> bool:
        return any(room == end or reaches(room, end) for room in below.get(start, ()))

    return sorted((old, new) for old, new in among if not any(reaches(other, new) for other in below[old] - {new}))


def sentence(room: str) -> str:
    """The first sentence of a room's docstring, up to a semicolon and without what stands in brackets."""
    base = ROOT.joinpath(*room.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"; |\. ", " ".join(re.sub(r"`|\([^)]*\)", "", text.partition("\n\n")[0]).split()))[0].rstrip(".")


def text_of(room: str, width: float, every: Collection[Arrow]) -> tuple[str, ...]:
    """The room's sentence, and, for whoever calls it from outside, the rooms of lmeraser that it imports. Args: width: px."""
    lines = textwrap.wrap(sentence(room), int(width / 6.9))
    if not room.startswith("lmeraser."):
        called = [new.partition(".")[2] for old, new in every if old == room and new.startswith("lmeraser.")]
        lines += textwrap.wrap(f"→ {', '.join(called)}", int(width / 6.9)) if called else []
    return tuple(lines)


def places(rows: list[list[str]], x: float, y: float, every: Collection[Arrow]) -> dict[str, Place]:
    """A floor is as high as its longest text asks for."""
    found = {}
    for floor, rooms in enumerate(rows):
        width = (COLUMN - 14 * (len(rooms) - 1)) / len(rooms)
        texts = {room: text_of(room, width - 14, every) for room in rooms}
        height = max(BOX, 30 + LINE * max(map(len, texts.values())))
        for number, room in enumerate(rooms):
            half = "" if len(rooms) == 1 else {0: "left", len(rooms) - 1: "right"}.get(number, "")
            found[room] = Place(floor, x + number * (width + 14), y, width, height, half, texts[room])
        y += height + GAP
    return found


def draw_room(room: str, place: Place) -> list[str]:
    """A box with the room's name and its text."""
    kind = "torch" if room in LEARNS else "room"
    name = "stages/*" if room == "stages" else "/".join(room.split(".")[1:])
    box = f'<rect class="{kind}" x="{place.x:g}" y="{place.y:g}" width="{place.width:g}" height="{place.height:g}" rx="6"/>'
    title = f'<text class="name" x="{place.x + 10:g}" y="{place.y + 18:g}">{escape(name)}</text>'
    texts = [
        f'<text class="text" x="{place.x + 10:g}" y="{place.y + 33 + LINE * number:g}">{escape(line)}</text>'
        for number, line in enumerate(place.lines)
    ]
    return [box, title, *texts]


def _free_lane(taken: dict[tuple[str, int], list[tuple[int, int]]], side: str, above: int, below: int) -> int:
    lane = 1
    while any(above <= last and first <= below for first, last in taken.get((side, lane), [])):
        lane += 1
    return lane


def draw_arrows(among: Iterable[Arrow], where: dict[str, Place]) -> list[str]:
    """Straight to the floor below, else by a lane beside the column: short ways inside, one arrow in each piece of a lane."""
    lines: list[str] = []
    taken: dict[tuple[str, int], list[tuple[int, int]]] = {}  # the floors between which a lane is in use
    ports = dict.fromkeys(where, 0)
    for old, new in sorted(among, key=lambda arrow: (where[arrow[1]].floor - where[arrow[0]].floor, arrow)):
        start, end = where[old], where[new]
        if end.floor == start.floor + 1:
            x = min((start, end), key=lambda place: place.width).middle
            lines.append(f'<path class="line" d="M{x:g} {start.bottom:g} V{end.y:g}" marker-end="url(#a)"/>')
            continue
        halves = {start.half, end.half} - {""}
        sides = sorted(halves) if len(halves) == 1 else ["left", "right"]
        lane, side = min((_free_lane(taken, side, start.floor, end.floor), side) for side in sides)
        taken.setdefault((side, lane), []).append((start.floor, end.floor))
        ports[old] += 1
        ports[new] += 1
        away = 1 if side == "right" else -1
        out, into = (place.x + (place.width if side == "right" else 0) for place in (start, end))
        x = (max(out, into) if side == "right" else min(out, into)) + away * LANE * lane
        low, high = start.bottom - 9 * ports[old], end.y + 9 * ports[new]
        lines.append(f'<path class="line" d="M{out:g} {low:g} H{x:g} V{high:g} H{into + away:g}" marker-end="url(#a)"/>')
    return lines


def draw_house(title: str, x: float, y: float, end: float) -> list[str]:
    """Args: end: where its lowest room ends."""
    return [
        f'<rect class="house" x="{x - LANES:g}" y="{y - 40:g}" width="{COLUMN + 2 * LANES:g}" height="{end - y + 52:g}" rx="8"/>',
        f'<text class="title" x="{x:g}" y="{y - 14:g}">{escape(title)}</text>',
    ]


def draw() -> str:
    every, rows = arrows(), {package: floors(package) for package in PRODUCT}
    titles = {
        "flows": "flows: what people and Prefect call",
        "stages": "stages: one file a DVC stage",
        "lmeraser": "lmeraser: what decides bytes and who goes",
    }
    body: list[str] = []
    ends: dict[str, float] = {}
    begins = {"flows": (LEFT, TOP), "stages": (RIGHT, TOP)}
    for package in PRODUCT:
        x, y = begins[package] if package in begins else (RIGHT, ends["stages"] + 100)
        where = places(rows[package], x, y, every)
        ends[package] = max(place.bottom for place in where.values())
        body += draw_house(titles[package], x, y, ends[package])
        body += draw_arrows(drawn([arrow for arrow in every if arrow[0] in where and arrow[1] in where]), where)
        for room, place in where.items():
            body += draw_room(room, place)
    below = ends["stages"] + 100  # where lmeraser begins
    between, left, right = (LEFT + COLUMN + RIGHT) / 2, LEFT + COLUMN + LANES, RIGHT - LANES
    body += [
        f'<path class="file" d="M{left:g} {TOP + 60:g} H{right:g}"/>',
        f'<text class="text" x="{between:g}" y="{TOP + 50:g}" text-anchor="middle">dvc.yaml,</text>',
        f'<text class="text" x="{between:g}" y="{TOP + 78:g}" text-anchor="middle">files</text>',
        f'<path class="wide" d="M{left:g} {below + 60:g} H{right:g}" marker-end="url(#w)"/>',
        f'<path class="wide" d="M{RIGHT + COLUMN / 2:g} {ends["stages"] + 12:g} V{below - 40:g}" marker-end="url(#w)"/>',
        '<text class="text" x="20" y="28">A room imports rooms below it in its column, and of lmeraser those after its →; none '
        "above it or beside it. Arrows are imports that the code has.</text>",
        '<text class="text" x="20" y="44">What follows from other arrows is not drawn. Orange: the rooms with torch.</text>',
    ]
    listed = escape("\n".join(f"    {old} -> {new}" for old, new in every))
    head = HEAD.format(width=WIDTH, height=int(max(ends.values()) + 28), arrows=listed)
    return head + "".join(f"  {line}\n" for line in body) + "</svg>\n"


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
