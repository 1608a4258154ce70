"""The tutorial's commands, in order as they stand there, in a small folder of other people; and the page about Python."""

import os
import re
import subprocess
import sys
from pathlib import Path

import preloading
import pytest
import yaml
from builders import png
from commands import blocks
from sandbox import CANARY, REPOSITORY, SMALL, Sandbox

from lmeraser.core.params import Source
from lmeraser.sources import open_source

pytestmark = pytest.mark.slow

TUTORIAL, API = (REPOSITORY / "docs" / name for name in ("tutorial.md", "api.md"))
NOT_RUN = {"lmeraser audit --rebuild": "README's is run by tests/pipeline/test_documents.py"}
PEOPLE = 40
WHO = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def write_photos(folder: Path) -> None:
    """People of the digits as a folder a label, as somebody has them on a disk."""
    source = open_source(Source(kind="digits", path="data/digits.csv", erase=False), REPOSITORY)
    table = source.table()
    people = {subject: number for number, subject in enumerate(sorted(table["subject"].unique())[:PEOPLE])}
    rows = table[table["subject"].isin(people)]
    for row in rows.itertuples():
        label = folder / f"{CANARY}{row.label}"
        label.mkdir(parents=True, exist_ok=True)
        (label / f"person{people[str(row.subject)]:04d}_{row.Index:05d}.png").write_bytes(source.image(str(row.path)))


def shell(folder: Path, line: str) -> "subprocess.CompletedProcess[str]":
    """What a line prints, typed in a folder. `lmeraser` is this repository's, as an installed one is another than a project's."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    own = {"PATH": path, "PYTHONPATH": str(REPOSITORY), "DVC_NO_ANALYTICS": "1", "COLUMNS": "80"}
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=preloading.variables(os.environ | WHO | own),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def small(project: Path) -> None:
    """A network that learns in seconds, and few slots."""
    sandbox = Sandbox(project)
    slots = yaml.safe_load((project / "params.yaml").read_text())["slots"][:4]
    image = {"size": 16, "channels": 1}
    pretrain = SMALL["pretrain"] | {"epochs": 2}
    sandbox.set_params(slots=slots, **SMALL | {"pretrain": pretrain, "image": image, "evaluate": {"linear_head": False}})
    assert shell(project, "git commit --quiet --all --message small").returncode == 0


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The project at the end of the tutorial, and what each line of it printed."""
    base = tmp_path_factory.mktemp("tutorial")
    write_photos(base / "photos")
    here, printed = base, {}
    for line in (line for block in blocks(TUTORIAL) for line in block.lines if line not in NOT_RUN):
        if line.startswith("cd "):
            here = here / line.removeprefix("cd ")
            small(here)
            continue
        done = shell(here, line)
        allowed = (0, 1) if line == "lmeraser doctor" else (0,)  # a machine of tests may lack space
        assert done.returncode in allowed, (line, done.stdout, done.stderr)
        assert CANARY not in done.stdout + done.stderr
        printed[line] = done.stdout
    return here, printed


@pytest.mark.timeout(600)
def test_commands_of_the_tutorial_do_what_it_says(walk: tuple[Path, dict[str, str]]) -> None:
    project, printed = walk
    first = next(text for line, text in printed.items() if line.startswith("lmeraser manifest"))
    assert "written: photos/manifest.csv" in first
    assert "next: lmeraser new DIR --data photos" in first
    assert all(len(line) <= 80 for text in (first, printed["lmeraser doctor"]) for line in text.splitlines())
    forgotten = next(text for line, text in printed.items() if line.startswith("lmeraser forget"))
    assert "state               certified" in forgotten
    assert "valid: certificate 1" in printed["lmeraser verify certificates/*.json"]
    assert len(list((project / "certificates").glob("*.json"))) == 1
    assert shell(project, "git status --porcelain").stdout == ""
    name = (project.parent / "who.txt").read_text().strip()
    assert name not in "".join(printed.values())
    assert not [path for path in project.rglob("*") if path.is_file() and name.encode() in path.read_bytes()]


def test_lines_that_the_tutorial_shows_are_those_that_are_printed(walk: tuple[Path, dict[str, str]]) -> None:
    """Of other people: the words before the numbers."""
    printed_words = set()
    for text in walk[1].values():
        printed_words |= {re.split(r"\s{2,}|:", line)[0] for line in text.splitlines()}
    shown = re.findall(r"^```text\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1:]
    words = [re.split(r"\s{2,}|:", line)[0] for block in shown for line in block.splitlines()]
    assert len(words) > 10
    assert [word for word in words if word not in printed_words] == []


def test_python_of_the_api_page_runs(walk: tuple[Path, dict[str, str]]) -> None:
    project, _ = walk
    (project / "photo.png").write_bytes(png(seed=1))
    page = API.read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(code) == 3
    done = Sandbox(project).python("-c", "\n".join(code))
    assert done.returncode == 0, done.stderr
    label, verified, drafted = done.stdout.splitlines()
    assert label.startswith(CANARY)
    assert (verified, drafted) == ("1 True", f"{PEOPLE} []")
