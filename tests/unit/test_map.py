"""What the documents say of the house is so: the map's arrows are the code's, and every file, module and name in them exists."""

import ast
import importlib.util
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from builders import ROOT

from flows.cli.command import name_of
from flows.cli.registry import COMMANDS

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = ("flows", "lmeraser", "stages", "bench", "tests")
BASES = (ROOT, *(ROOT / folder for folder in ("lmeraser", "flows", "tests")))  # `learn/tuning.py` is short for lmeraser's
FILE = re.compile(r"(?<![\w./-])[a-z_][a-z0-9_/-]*\.py(?![\w])")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(CODE)})(?:\.[a-z_][a-z0-9_]*)+(?![\w(/]|\.[a-z])")
NAME_IN_FILE = re.compile(r"`([A-Za-z_][\w.]*)` (?:and `([A-Za-z_][\w.]*)` )?in `([a-z0-9_/-]+\.py)`")
CALL = re.compile(r"`([a-z_]+)\.([a-z_]+)`")  # `intake.receive`
STEPS = {path.stem: path for room in ("requests", "purge", "run") for path in (ROOT / "flows" / room).glob("[a-z]*.py")}
LINK = re.compile(r"\]\(([^)\s]+)\)")
ENDINGS = ("json", "py", "lock")  # of a file
EVENTS = ("lmeraser.deletion.requested", "lmeraser.request")  # Prefect's, not modules
NAMES = {path.name for folder in (*CODE, "docs", "params") for path in (ROOT / folder).rglob("*.py")}


def rooms() -> ModuleType:
    """docs/rooms.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def drawing() -> Any:
    return rooms()


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def shown(document: Path) -> str:
    return str(document.relative_to(ROOT))


# the picture


def test_the_map_shows_the_rooms_and_arrows_that_the_code_has(drawing: Any) -> None:
    assert drawing.PICTURE.read_text(encoding="utf-8") == drawing.draw(), "draw it again: python docs/rooms.py"


def test_every_arrow_of_the_map_goes_down_or_into_the_domain(drawing: Any) -> None:
    floor = {room: number for package in drawing.PRODUCT for number, row in enumerate(drawing.floors(package)) for room in row}
    for old, new in drawing.arrows():
        same = old.partition(".")[0] == new.partition(".")[0]
        assert floor[old] < floor[new] if same else new.startswith("lmeraser."), (old, new)
    assert len(floor) > 20


def test_arrow_that_follows_from_others_is_not_drawn_and_every_other_is(drawing: Any) -> None:
    assert drawing.drawn([("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d"), ("a", "e")]) == [
        ("a", "b"),
        ("a", "e"),
        ("b", "c"),
        ("c", "d"),
    ]


def test_the_picture_is_whole_and_tells_its_arrows_to_those_who_cannot_see_it(drawing: Any) -> None:
    description = ET.fromstring(drawing.PICTURE.read_text(encoding="utf-8")).findtext("{http://www.w3.org/2000/svg}desc")  # noqa: S314 (our own file)
    assert description
    assert [tuple(line.strip().split(" -> ")) for line in description.strip().splitlines()] == drawing.arrows()


# the texts


def test_every_command_and_every_room_has_a_row(drawing: Any) -> None:
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [command for command in map(name_of, COMMANDS) if f"\n| `lmeraser {command}" not in commands] == []
    rooms = [room.replace(".", "/") for package in drawing.PRODUCT for row in drawing.floors(package) for room in row]
    files = [room if (ROOT / room).is_dir() else f"{room}.py" for room in rooms]
    table = "\n".join(line for line in text_of(ROOT / "docs" / "architecture.md").splitlines() if line.startswith("| `"))
    assert [file for file in files if f"`{file}`" not in table] == []
    assert len(files) == len(set(files)) > 20


def test_every_word_of_the_glossary_stands_there_once() -> None:
    rows = [line for line in text_of(ROOT / "docs" / "glossary.md").splitlines() if line.startswith("| **")]
    words = [word.strip() for row in rows for head in re.findall(r"\*\*(.+?)\*\*", row.split("|")[1]) for word in head.split(",")]
    assert [word for word in words if words.count(word) > 1] == []
    assert all(re.search(r"`[\w/.]+\.py`", row.split("|")[3]) for row in rows), "a row without a file"
    assert len(words) > 60


def exists(file: str) -> bool:
    return any((base / file).is_file() for base in BASES) if "/" in file else file in NAMES


def resolves(dotted: str) -> bool:
    """Whether it is a module, or a name in one; or an event."""
    if dotted in EVENTS:
        return True
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:length])
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if path.is_file():
            return length == len(parts) or parts[length] in path.read_text(encoding="utf-8")
        if base.is_dir():
            return length == len(parts)
    return False


def defined(path: Path) -> set[str]:
    """Every name that a file defines: functions, classes, methods, constants and fields."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    assert [file for file in FILE.findall(text_of(document)) if not exists(file)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_module_that_a_document_names_exists(document: Path) -> None:
    assert [module for module in MODULE.findall(text_of(document)) if not resolves(module)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_name_that_a_document_finds_in_a_file_is_defined_there(document: Path) -> None:
    for first, second, file in NAME_IN_FILE.findall(text_of(document)):
        path = next(base / file for base in BASES if (base / file).is_file())
        for name in filter(None, (first, second)):
            assert name.rpartition(".")[2] in defined(path), f"{name} in {file}"


def test_every_function_that_the_table_of_steps_names_is_there() -> None:
    named = [call for call in CALL.findall(text_of(ROOT / "docs" / "requests.md")) if call[0] in STEPS and call[1] not in ENDINGS]
    assert [f"{module}.{name}" for module, name in named if name not in defined(STEPS[module])] == []
    assert len(named) > 8


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=shown)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = [link for link in LINK.findall(text_of(document)) if not re.match(r"[a-z]+:", link)]
    for link in links:
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}, link


def test_these_ways_of_looking_see_what_is_not_there() -> None:
    said = (
        "`gone` in `learn/tuning.py`, `stages/gone.py`, gone.py and `python -m flows.gone`; `lmeraser/learn/tuning.py`, flows.cli"
    )
    assert [file for file in FILE.findall(said) if not exists(file)] == ["stages/gone.py", "gone.py"]
    assert [module for module in MODULE.findall(said) if not resolves(module)] == ["flows.gone"]
    assert NAME_IN_FILE.findall(said) == [("gone", "", "learn/tuning.py")]
    assert "gone" not in defined(ROOT / "lmeraser" / "learn" / "tuning.py")
    assert sum(len(FILE.findall(text_of(document))) for document in DOCUMENTS) > 100
    assert sum(len(NAME_IN_FILE.findall(text_of(document))) for document in DOCUMENTS) > 15
