"""The rooms of the house: no module imports itself by way of others, not even within a function or past a package's own file.

import-linter's contracts (pyproject.toml) order the rooms; `acyclic_siblings` compares neighbours of one folder. Here the whole
graph is looked at. Imports within functions count, those for the type checker alone do not.
"""

import graphlib

import grimp
import pytest

PRODUCT = ("flows", "stages", "lmeraser")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Each module of the product, and those that it imports."""
    graph = grimp.build_graph(*PRODUCT, exclude_type_checking_imports=True, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of a circle in the order of their imports; none if there is no circle."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        modules: list[str] = error.args[1]
        return modules
    return []


def test_no_module_imports_itself_by_way_of_others(imports: dict[str, set[str]]) -> None:
    assert len(imports) > 120
    assert circle(imports) == []


def test_import_within_a_function_counts(imports: dict[str, set[str]]) -> None:
    assert "flows.requests.coordinator" in imports["flows.cli.resume"]
    closed = imports | {"flows.requests.coordinator": imports["flows.requests.coordinator"] | {"flows.cli.resume"}}
    assert {"flows.requests.coordinator", "flows.cli.resume"} <= set(circle(closed))
