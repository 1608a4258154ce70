"""The recipe: it changes with everything that a slot is tuned with, and a slot is not trained with anything else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from builders import ROOT, make_params, refused

from lmeraser.core.errors import DigestMismatchError, ProjectError
from lmeraser.core.layout import Layout
from lmeraser.core.params import Params
from lmeraser.pipeline.recipe import CODE, PARAMS, check_recipe, make_recipe, save_recipe

PARAMS_NOW = make_params()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A project with the code of this one, and files that stand for backbone and skeleton."""
    made = Layout(tmp_path)
    for name in CODE:
        for path in (ROOT / name).rglob("*.py") if (ROOT / name).is_dir() else [ROOT / name]:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for path in (made.backbone, made.skeleton):
        path.parent.mkdir(parents=True)
        path.write_bytes(path.name.encode())
    save_recipe(made, PARAMS_NOW)
    return made


def with_section(section: str, **changes: object) -> Params:
    return PARAMS_NOW.model_copy(update={section: getattr(PARAMS_NOW, section).model_copy(update=changes)})


def test_recipe_that_was_kept_to_is_accepted_and_is_the_same_elsewhere(
    layout: Layout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check_recipe(layout, PARAMS_NOW)
    moved = tmp_path_factory.mktemp("elsewhere") / "project"
    layout.root.rename(moved)
    assert make_recipe(Layout(moved), PARAMS_NOW) == make_recipe(Layout(moved), PARAMS_NOW)
    check_recipe(Layout(moved), PARAMS_NOW)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("backbone", lambda layout: layout.backbone.write_bytes(b"another")),
        ("skeleton", lambda layout: layout.skeleton.write_bytes(b"another")),
        ("code", lambda layout: (layout.root / "stages" / "tune.py").write_text("# changed")),
        ("code", lambda layout: (layout.root / "lmeraser" / "learn" / "tuning.py").write_text("# changed")),
        ("code", lambda layout: (layout.root / "lmeraser" / "data" / "images.py").unlink()),
    ],
)
def test_slot_is_not_trained_with_anything_but_the_recipe(layout: Layout, name: str, change: Callable[[Layout], object]) -> None:
    change(layout)
    line = refused(DigestMismatchError, lambda: check_recipe(layout, PARAMS_NOW))
    assert f"{name} changed since the recipe was made; run `dvc repro`" in line


def test_file_beside_the_code_of_tuning_is_no_part_of_the_recipe(layout: Layout) -> None:
    (layout.root / "lmeraser" / "learn" / "new.py").write_text("# new")
    check_recipe(layout, PARAMS_NOW)


def test_params_that_tuning_reads_are_part_of_the_recipe_and_others_are_not(layout: Layout) -> None:
    changed = [
        with_section("tune", epochs=PARAMS_NOW.tune.epochs + 1),
        with_section("embed", batch=7),
        with_section("image", size=32),
        PARAMS_NOW.model_copy(update={"seed": 7}),
    ]
    for params in changed:
        assert "params" in refused(DigestMismatchError, partial(check_recipe, layout, params))
    for params in (
        with_section("serve", nearest=1),
        with_section("cluster", n_max=7),
        PARAMS_NOW.model_copy(update={"slots": ("c00",)}),
    ):
        check_recipe(layout, params)
    assert set(make_recipe(layout, PARAMS_NOW)["params"]) == set(PARAMS)


def test_missing_or_damaged_recipe_is_refused(layout: Layout) -> None:
    layout.recipe.write_bytes(b"{")
    assert "recipe.json" in refused(ProjectError, lambda: check_recipe(layout, PARAMS_NOW))
    layout.recipe.unlink()
    assert "run `dvc repro`" in refused(ProjectError, lambda: check_recipe(layout, PARAMS_NOW))
    layout.skeleton.unlink()
    assert "skeleton" in refused(ProjectError, lambda: save_recipe(layout, PARAMS_NOW))
