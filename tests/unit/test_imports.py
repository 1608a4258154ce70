"""What must stay light stays light (no torch, timm or scikit-learn), and dvc.yaml lists the code that each stage imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from builders import ROOT, make_params, make_record, raw_params, refused

from flows.dvc.pipeline_files import next_names
from lmeraser.clusters.files import Cluster, save_clusters
from lmeraser.core.errors import ProjectError
from lmeraser.core.layout import Layout
from lmeraser.data.records import shard_file, write_records
from lmeraser.pipeline import recipe
from lmeraser.pipeline.files import expected, file_of, stale_file

HEAVY = ("torch", "timm", "sklearn")
SLOW = ("sqlalchemy", "pyarrow", "pydantic", "prefect", "dvc", "numpy")
PARAMS = make_params()
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def heavy_after(code: str, cwd: Path = ROOT, heavy: tuple[str, ...] = HEAVY) -> list[str]:
    """Run code in a new process; which heavy libraries it imported."""
    script = f"import sys\n{code}\nprint([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    imported: list[str] = ast.literal_eval(done.stdout.splitlines()[-1])
    return imported


@pytest.mark.slow
def test_domain_commands_and_erasing_import_nothing_heavy() -> None:
    erase = [f"lmeraser.erase.{path.stem}" for path in sorted((ROOT / "lmeraser" / "erase").glob("[a-z]*.py"))]
    prove = [f"lmeraser.prove.{path.stem}" for path in sorted((ROOT / "lmeraser" / "prove").glob("[a-z]*.py"))]
    assert len(erase) >= 5
    others = ["lmeraser.sources", "lmeraser.gate.checks", "lmeraser.pipeline.locks"]
    modules = ["lmeraser", *erase, *prove, *others, "flows.cli", "flows.requests.coordinator"]
    assert heavy_after("\n".join(f"import {module}" for module in modules)) == []


@pytest.mark.slow
def test_request_is_carried_out_without_pandas() -> None:
    code = """
from pathlib import Path
import flows.requests.coordinator, flows.cli.summary
from lmeraser.core.params import Source
from lmeraser.sources import open_source
open_source(Source(kind="digits", path="data/digits.csv", erase=False), Path.cwd())
"""
    assert heavy_after(code, heavy=(*HEAVY, "pandas")) == []


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 3])
def test_facts_are_read_without_pandas_from_a_file_and_from_shards(shards: int, tmp_path: Path) -> None:
    part = tmp_path / "p00.parquet"
    if shards > 1:
        part.mkdir()
    for number in range(shards):
        write_records(shard_file(part, number) if shards > 1 else part, [(make_record("x"), b"x")], number, shards)
    code = f"""
from pathlib import Path
from lmeraser.data.records import FACTS, read_table
read_table(Path({str(part)!r}), FACTS)
"""
    assert heavy_after(code, heavy=(*HEAVY, "pandas")) == []


def test_help_imports_nothing_that_costs_time() -> None:
    code = "import flows.cli\ntry:\n    flows.cli.main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    assert heavy_after(code, heavy=HEAVY + SLOW) == []


def test_a_certificate_is_verified_without_database_engine_or_learning() -> None:
    vectors = ROOT / "tests" / "vectors"
    files = [str(path) for path in sorted((vectors / "good").rglob("*.json"))[:1]]
    assert files
    arguments = ["verify", *files, "--key", str(vectors / "keys.pem")]
    code = (
        f"import flows.cli\ntry:\n    flows.cli.main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert heavy_after(code, heavy=HEAVY + SLOW) == []


@pytest.mark.slow
def test_this_way_of_looking_sees_what_is_heavy() -> None:
    assert heavy_after("import sklearn") == ["sklearn"]


def test_empty_slot_is_tuned_without_torch(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    save_clusters(layout.clusters, [Cluster("c01", 0, 0, 0, [], np.zeros(2))], ["c00", "c01"], {})
    code = f"""
from pathlib import Path
from stages.tune import tune
from lmeraser.core.layout import Layout
from lmeraser.data.records import shard_file, write_records
from lmeraser.core.params import load_params
tune(Layout(Path({str(tmp_path)!r})), load_params(Path({str(ROOT / "params.yaml")!r})), ["c00"])
"""
    assert heavy_after(code) == []
    assert layout.tuned("c00").exists()
    assert not layout.tuned("c01").exists()


# dvc.yaml


def source_of(module: str) -> Path | None:
    """The file of a module of this repository."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def does_something(path: Path) -> bool:
    """Whether a package's __init__ is more than a docstring and constants."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr | ast.Assign) or isinstance(getattr(node, "value", None), ast.Call) for node in body)


@cache
def imported_by(path: Path) -> frozenset[Path]:
    """Files of this repository that a file imports, also within functions, with the packages on the way."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path}: relative imports are not resolved here"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = set()
    for name in names:
        if name.split(".")[0] not in ("lmeraser", "stages"):
            continue
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            file = source_of(".".join(parts[:length]))
            if file and (file.name != "__init__.py" or does_something(file)):
                files.add(file)
    return frozenset(files)


def all_code_of(stage: str, free: Collection[Path] = ()) -> set[Path]:
    """Args: free: files that are left out, with what they alone import."""
    start = ROOT / "stages" / f"{stage}.py"
    packages = {ROOT / "stages" / "__init__.py"}  # `python -m stages.x` runs it first
    todo, seen = [start, *packages], set[Path]()
    while todo:
        path = todo.pop()
        if path not in seen and path not in free:
            seen.add(path)
            todo += imported_by(path)
    return seen


def definition(stage: str) -> dict[str, Any]:
    listed: dict[str, Any] = STAGES[stage]
    inner: dict[str, Any] = listed.get("do", listed)
    return inner


# Imported by stages, and no byte of an artifact can move by them. Everything else that a stage imports is its dependency.
DECIDES_NO_BYTE = {
    "lmeraser/__init__.py": "`lmeraser.load`, which no stage calls",
    "lmeraser/core/errors.py": "what people are told where nothing is made",
    "lmeraser/core/files.py": "when a file takes its place, never what is in it",
    "lmeraser/core/layout.py": "names places; those of deps and outs are compared with dvc.yaml here",
    "lmeraser/core/own_code.py": "refuses another clone's code",
    "lmeraser/core/params.py": "checks params; DVC compares their values",
    "lmeraser/core/private.py": "modes of files",
    "lmeraser/core/progress.py": "what a terminal shows",
    "lmeraser/learn/memory.py": "where memory is kept, and what is said where it is full",
    "lmeraser/pipeline/files.py": "which pipeline file holds a stage",
    "lmeraser/serve/picture.py": "a picture for people beside the metrics, and no out of a stage",
    "lmeraser/serve/quarantine.py": "what is left out while requests are open; `evaluate` leaves nobody out",
    "lmeraser/sources/erasing.py": "deletes from a source, which no stage does",
    "lmeraser/sources/place.py": "refuses a source by where it lies",
    "stages/runtime/entry.py": "turns an error into a line and a status",
}


def code_that_moves_bytes(stage: str) -> set[str]:
    """Files that a stage imports, directly or by others, as far as they can move its bytes."""
    free = {ROOT / name for name in DECIDES_NO_BYTE}
    if stage != "recipe":
        free.add(ROOT / "lmeraser" / "pipeline" / "recipe.py")  # checks that nothing moved
    return relative(*all_code_of(stage, free))


def code_deps(stage: str) -> list[str]:
    deps: list[str] = definition(stage)["deps"]
    return [dep for dep in deps if dep.startswith(("lmeraser", "stages"))]


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("tune", "recipe")])
def test_code_that_a_stage_depends_on_is_what_can_move_its_bytes(stage: str) -> None:
    assert sorted(code_deps(stage)) == sorted(code_that_moves_bytes(stage))
    assert len(code_deps(stage)) > 5


def test_code_that_the_recipe_depends_on_is_what_can_move_the_bytes_of_tuning() -> None:
    assert sorted(recipe.CODE) == sorted(code_that_moves_bytes("tune"))
    assert sorted(code_deps("recipe")) == sorted({*recipe.CODE, "stages/recipe.py", "lmeraser/pipeline/recipe.py"})
    assert code_deps("tune") == []  # by the recipe


def test_every_exemption_is_imported_by_some_stage_and_named_once() -> None:
    imported = {name for stage in STAGES for name in relative(*all_code_of(stage))}
    assert set(DECIDES_NO_BYTE) <= imported


@pytest.mark.parametrize("stage", STAGES)
def test_code_that_a_stage_lists_exists_and_is_its_own(stage: str) -> None:
    listed = code_deps(stage)
    assert stage == "tune" or f"stages/{stage}.py" in listed
    assert all((ROOT / dep).exists() for dep in listed)
    assert definition(stage)["cmd"].split()[:3] == ["python", "-m", f"stages.{stage}"]


def test_recipe_tells_of_all_that_the_stage_depends_on() -> None:
    """What DVC looks at for the stage `recipe` is what its file holds: else a slot could be trained with something else."""
    listed = definition("recipe")
    layout = Layout(ROOT)
    files = relative(layout.backbone, layout.skeleton)
    assert set(listed["deps"]) - {"stages/recipe.py", "lmeraser/pipeline/recipe.py"} == {*files, *recipe.CODE}
    assert set(listed["params"]) == set(recipe.PARAMS)


@pytest.mark.parametrize("count", [16, 64, 65, 512])
def test_generated_files_hold_every_slot_once_by_the_definition_in_dvc_yaml(count: int) -> None:
    slots = [*PARAMS.slots, *next_names(PARAMS.slots, count)]
    texts = expected((ROOT / "dvc.yaml").read_text(encoding="utf-8"), slots)
    in_files: list[str] = []
    for name, text in texts.items():
        stage = yaml.safe_load(text)["stages"]["tune"]
        in_files += slots if stage["foreach"] == "${slots}" else stage["foreach"]
        here = {} if name == "dvc.yaml" else {"wdir": "../.."}
        assert stage["do"] == definition("tune") | here
    assert in_files == slots
    assert all(file_of(f"tune@{slot}", slots) in texts for slot in slots)


def test_pipeline_files_of_the_repository_are_what_the_command_writes() -> None:
    assert stale_file(ROOT, PARAMS.slots) is None


def test_resolver_sees_imports_within_functions() -> None:
    # stages/cluster.py imports learn.anchors and stages/tune.py imports learn.tuning only where they are needed.
    assert ROOT / "lmeraser" / "learn" / "anchors.py" in all_code_of("cluster")
    assert ROOT / "lmeraser" / "learn" / "tuning.py" in all_code_of("tune")
    assert ROOT / "lmeraser" / "learn" / "tuning.py" not in all_code_of("head")


def expanded(stage: str) -> set[str]:
    """Paths of all outs, metrics and plots of a stage, for every item of a foreach."""
    items = {"${parts}": PARAMS.parts, "${slots}": PARAMS.slots}.get(STAGES[stage].get("foreach", ""), ("",))
    outs = []
    for kind in ("outs", "metrics", "plots"):
        outs += [next(iter(out)) if isinstance(out, dict) else out for out in definition(stage).get(kind, [])]
    return {out.replace("${item}", item) for out in outs for item in items}


def relative(*paths: Path) -> set[str]:
    return {str(path.relative_to(ROOT)) for path in paths}


def test_layout_names_the_paths_of_dvc_yaml() -> None:
    layout = Layout(ROOT)
    expected = {
        "split": relative(layout.public, layout.private),
        "pretrain": relative(layout.backbone),
        "skeleton": relative(layout.skeleton),
        "recipe": relative(layout.recipe),
        "embed": relative(*(layout.leaves(part).parent for part in PARAMS.parts)),
        "cluster": relative(layout.clusters),
        "validate": relative(layout.validation / "passed.json", layout.validation / "report.json"),
        "tune": relative(*(layout.tuned(slot) for slot in PARAMS.slots)),
        "head": relative(layout.head),
        "evaluate": relative(*(layout.metrics / n for n in ("metrics.json", "classes.csv", "clusters.csv"))),
    }
    assert {stage: expanded(stage) for stage in STAGES} == expected
    assert layout.router.parent == layout.clusters == layout.members("c00").parent.parent
    assert {layout.part(part).parent for part in PARAMS.parts} == {layout.private}
    assert {layout.sums(part).parent for part in PARAMS.parts} == {layout.leaves(part).parent for part in PARAMS.parts}


def test_every_artifact_that_a_stage_depends_on_is_made_by_another() -> None:
    made = {path for stage in STAGES for path in expanded(stage)}
    for stage in STAGES:
        for dep in definition(stage)["deps"]:
            if dep.startswith("artifacts"):
                options = [dep.replace("${item}", item) for item in (*PARAMS.parts, *PARAMS.slots)]
                inside = [p for p in options if any(p == m or p.startswith(f"{m}/") or m.startswith(f"{p}/") for m in made)]
                assert inside, f"{stage}: {dep}"


@pytest.mark.parametrize("stage", STAGES)
def test_params_that_a_stage_lists_exist(stage: str) -> None:
    raw = raw_params()
    for name in definition(stage).get("params", []):
        value = raw
        for key in name.split("."):
            value = value[key]


def test_project_is_found_from_below_and_refused_elsewhere(tmp_path: Path) -> None:
    assert Layout.find(ROOT / "lmeraser" / "core").root == ROOT
    (tmp_path / "CANARY-home").mkdir()
    assert "no project here" in refused(ProjectError, lambda: Layout.find(tmp_path / "CANARY-home"))


@pytest.mark.parametrize("folder", ["pipeline", "chaos"])
def test_whatever_quick_does_not_look_for_is_slow(folder: str) -> None:
    """`make quick` names tests/unit alone."""
    others = [path for path in (ROOT / "tests").rglob("test_*.py") if path.parent.name not in ("unit", "pipeline", "chaos")]
    assert others == []
    for path in (ROOT / "tests" / folder).glob("test_*.py"):
        marks = re.search(r"^pytestmark = .*?(?=^\S|\Z)", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        assert marks, path.name
        assert any(f"pytest.mark.{name}" in marks[0] for name in ("slow", "campaign")), path.name
